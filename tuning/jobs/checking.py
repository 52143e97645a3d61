"""What can be known of a search before it is sent: everything but the cluster's own part."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from model.config import DEFAULTS, parse_assignments
from model.errors import ConfigurationError, DialogueTuneError
from tuning.sweeps.sweep_file import Sweep

#: Where the sweep file and files to try lie in a package, and what ``--data`` names.
_SUBMITTED, _DATA = "submitted", "data"
#: An experiment's best, as ``--try`` has it: on the cluster, where we cannot look.
_EXPERIMENT = re.compile(r".+:\d+")
_EMBEDDED = "everyday"


@dataclass
class Checked:
    """A search that is right as far as can be seen from here.

    Attributes:
        sweep: Overrides and choices included.
        files: What is sent along, by its path in the package.
        words: Arguments that name these files.
    """

    sweep: Sweep
    files: dict[str, Path] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


def check(arguments: Namespace, data: Path | None) -> Checked:
    """Checks a search, and finds which files it needs.

    Args:
        arguments: As the command `run` has parsed them.
        data: Of ``--data``: a corpus or a prepared data set to send along.

    Raises:
        ConfigurationError: naming everything that is wrong, at once.
    """
    from tuning.choices import load_chosen, with_choices

    overrides = parse_assignments(arguments.assignments)
    sweep = load_chosen(arguments.file, arguments.searcher, overrides)
    sweep = with_choices(sweep, arguments.searcher, arguments.scheduler)
    name = f"{_SUBMITTED}/{Path(arguments.file).name}"
    checked = Checked(sweep, {name: Path(arguments.file)}, [name])
    problems: list[str] = []

    def attempt(part: Callable[[Namespace, Checked], None]) -> None:
        try:
            part(arguments, checked)
        except DialogueTuneError as error:
            problems.extend(str(error).splitlines())

    for part in (_check_making, _check_resources, _check_tried):
        attempt(part)
    attempt(lambda arguments, checked: _check_data(checked, data))
    if problems:
        raise ConfigurationError("submit", problems)
    return checked


def _check_making(arguments: Namespace, checked: Checked) -> None:
    from tuning.scheduling import make_scheduler
    from tuning.searchers import make_searcher

    make_searcher(checked.sweep, arguments.seed)
    make_scheduler(checked.sweep, arguments.seed)


def _check_resources(arguments: Namespace, checked: Checked) -> None:
    from tuning.cluster import Resources

    Resources(arguments.cpus_per_trial, arguments.gpus_per_trial)


def _check_tried(arguments: Namespace, checked: Checked) -> None:
    """Files to try are checked and sent; experiments are the cluster's."""
    from tuning.starting.try_first import points_to_try

    files = []
    for number, reference in enumerate(arguments.try_first):
        if _EXPERIMENT.fullmatch(reference) and not Path(reference).is_file():
            checked.words.append(f"--try={reference}")
            continue
        files.append(reference)
        sent = f"{_SUBMITTED}/try-{number}-{Path(reference).name}"
        checked.files[sent] = Path(reference)
        checked.words.append(f"--try={sent}")
    points_to_try(files, checked.sweep.space)


def _check_data(checked: Checked, data: Path | None) -> None:
    """The data are sent along, lie on the cluster under an absolute path, or are embedded."""
    from model.data_source import open_or_prepare

    given = dict(checked.sweep.space.constants)
    corpus = str(given.get("corpus", DEFAULTS["corpus"]))
    if data is not None:
        if not data.is_file():
            raise ConfigurationError("--data", [f"{data}: is no file; name one file to send."])
        open_or_prepare(given | {"corpus": str(data)}, progress=True)
        sent = f"{_DATA}/{data.name}"
        checked.files[sent] = data
        checked.words.append(f"--set=corpus={sent}")
    elif corpus == _EMBEDDED:
        open_or_prepare(given)
    elif not (Path(corpus).is_absolute() or "://" in corpus):
        raise ConfigurationError(
            "corpus",
            [
                f"{corpus!r} lies on this machine, and no data are sent unasked; send it with "
                "--data FILE, or name where it lies on the cluster: --set corpus=/PATH"
            ],
        )
