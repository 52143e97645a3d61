"""What a search begins with beside its sweep: points to try first, and trials of earlier ones.

    runs/NAME/try.json           configurations that are tried first, in their order
    runs/NAME/warm_start.json    ended trials of earlier experiments over the same space

Both are written before the manifest and never changed, so that a resume needs nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ExperimentError
from model.files import atomic_write_json, finite, storage_errors
from model.wording import plural
from tuning.journal.row import check_format
from tuning.searchers import Outcome, PastTrial, Searcher

#: Number of the format written here; a newer one is refused.
FORMAT = 1
TRY, WARM_START = "try.json", "warm_start.json"
FILES = (TRY, WARM_START)


@dataclass(frozen=True)
class StartingPoints:
    """What a search begins with; nothing, by default.

    Attributes:
        tried: Configurations that are tried first.
        past: Trials of earlier experiments, for searchers that learn.
    """

    tried: Sequence[Mapping[str, Any]] = ()
    past: Sequence[PastTrial] = ()

    def give_to(self, searcher: Searcher) -> None:
        """Tells a new searcher, before its first proposal or the first one it is replayed."""
        if self.past:
            searcher.warm_start(self.past)
        if self.tried:
            searcher.enqueue(self.tried)

    def notes(self, searcher: Searcher, trials: int) -> Iterator[str]:
        """Yields what people may not expect of it, in words.

        Args:
            searcher: Who proposes.
            trials: How many trials are asked for.
        """
        if len(self.tried) > trials:
            tried = f"{trials} of the {len(self.tried)} points to try"
            yield f"{tried} are tried; the others come with extend."
        if self.past and not searcher.learns:
            past = f"the {plural(len(self.past), 'trial')} of the warm start"
            yield f"{searcher.name} learns nothing from {past}; it only leaves them out."

    def write(self, directory: Path) -> None:
        """Writes the files that there is something for, and removes others of their names.

        Raises:
            StorageError: where one cannot be written.
        """
        with storage_errors(directory, "removed"):
            for name in FILES:
                (directory / name).unlink(missing_ok=True)
        if self.tried:
            configurations = [dict(configuration) for configuration in self.tried]
            content = {"format": FORMAT, "configurations": configurations}
            atomic_write_json(directory / TRY, content)
        if self.past:
            trials = [_mapping(trial) for trial in self.past]
            atomic_write_json(directory / WARM_START, {"format": FORMAT, "trials": trials})

    @classmethod
    def read(cls, directory: Path) -> StartingPoints:
        """Reads what `write` wrote.

        Raises:
            ExperimentError: where a file is damaged or of a newer format.
        """
        return cls(
            tried=_read(directory / TRY, "configurations", dict),
            past=_read(directory / WARM_START, "trials", _past_trial),
        )


def _mapping(trial: PastTrial) -> dict[str, Any]:
    mapping: dict[str, Any] = finite(
        {
            "configuration": dict(trial.configuration),
            "state": trial.outcome.state,
            "value": trial.outcome.value,
            "iteration": trial.outcome.iteration,
            "others": list(trial.outcome.others),
            "reports": [list(report) for report in trial.reports],
        }
    )
    return mapping


def _past_trial(mapping: Mapping[str, Any]) -> PastTrial:
    others = tuple(mapping.get("others", ()))
    outcome = Outcome(mapping["state"], mapping["value"], mapping["iteration"], others)
    reports = tuple((int(iteration), float(value)) for iteration, value in mapping["reports"])
    return PastTrial(dict(mapping["configuration"]), outcome, reports)


def _read(file: Path, key: str, make: Any) -> tuple[Any, ...]:
    if not file.exists():
        return ()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        check_format(content.get("format"), file, FORMAT)
        return tuple(make(item) for item in content[key])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExperimentError(f"{file}: cannot be read: {error}") from None
