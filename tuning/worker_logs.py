"""The log of a trial: what its worker processes wrote, found in Ray's files on this machine.

`tuning.node_logs` does the same on the other nodes of a cluster.

Ray keeps what each worker writes in ``session_*/logs/worker-*-PID.out`` and ``.err`` under its
temporary directory, of ended sessions too. A worker takes many trials, one after another; before
each attempt it writes a line, `heading`, by which its part of the file is found.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import ExperimentError
from tuning.experiment import Experiment
from tuning.journal import Row
from tuning.local_ray import sessions as own_sessions
from tuning.storage.place import AnyPath

_MARK = "== "
#: Lines that Ray writes into the files for itself.
_RAYS = (":job_id:", ":actor_name:", ":task_name:")


def heading(experiment: AnyPath, trial: int, attempt: int) -> str:
    """The line before what a worker writes for an attempt."""
    return f"{_MARK}{experiment}: trial {trial}, attempt {attempt}"


@dataclass
class AttemptSaid:
    """What the journal says of an attempt at a trial.

    Attributes:
        number: From 1.
        worker: ``host:pid``; None where it never reported.
        iteration: Of its last report.
        end: How it ended, or its state, in words.
    """

    number: int
    worker: str | None = None
    iteration: int = 0
    end: str = "running"

    @property
    def host(self) -> str | None:
        """Address of its node; None where it never reported."""
        return self.worker.rsplit(":", 1)[0] if self.worker else None

    def __str__(self) -> str:
        where = f"on {self.worker}" if self.worker else "never reported"
        return f"attempt {self.number} {where}: iteration {self.iteration}, {self.end}"


def attempts_of(rows: Iterable[Row], trial: int) -> list[AttemptSaid]:
    """The attempts at a trial."""
    found: dict[int, AttemptSaid] = {}
    for row in rows:
        if row.trial != trial or row.attempt is None or row.kind == "retried":
            continue
        said = found.setdefault(row.attempt, AttemptSaid(row.attempt))
        said.worker = row.worker or said.worker
        if row.kind == "report":
            said.iteration = row.iteration or 0
        state = "failed" if row.kind == "failed" else row.state or "running"
        said.end = f"{state}: {row.reason}" if row.reason else state
    return list(found.values())


def choose_attempt(
    experiment: Experiment, rows: Sequence[Row], trial: int, number: int | None
) -> tuple[list[AttemptSaid], AttemptSaid]:
    """All attempts at a trial, and the one that is asked for: the last where none is.

    Raises:
        ExperimentError: where there is no such trial or attempt, saying which there are.
    """
    attempts = attempts_of(rows, trial)
    if not attempts:
        known = max((row.trial for row in rows if row.trial is not None), default=None)
        there = "there are none yet" if known is None else f"they are numbered 0 to {known}"
        raise ExperimentError(f"{experiment.name}: has no trial {trial}; {there}.")
    chosen = [each for each in attempts if number in (None, each.number)]
    if not chosen:
        raise ExperimentError(
            f"{experiment.name}: trial {trial} has no attempt {number}; it has {len(attempts)}."
        )
    return attempts, chosen[-1]


def written(heading: str, directories: Iterable[Path] | None = None) -> dict[str, str]:
    """What a worker wrote under a heading, into its files on this machine.

    Args:
        heading: See `heading`.
        directories: Of Ray's logs; None for all there are on this machine.

    Returns:
        The text of each file that has the heading, of the first directory in which one has;
        empty where no file has.
    """
    for directory in ray_log_directories() if directories is None else directories:
        files = [
            file for end in ("out", "err") for file in sorted(directory.glob(f"worker-*.{end}"))
        ]
        parts = {str(file): part_of(file, heading) for file in files}
        found = {file: text for file, text in parts.items() if text is not None}
        if found:
            return found
    return {}


def part_of(file: Path, heading: str) -> str | None:
    """What follows a heading up to the next one; None where it is not there."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return _part_of(lines, heading)
    except OSError:  # another user's, or just removed
        return None


def _part_of(lines: Iterable[str], heading: str) -> str | None:
    kept: list[str] | None = None
    for line in lines:
        if line.rstrip("\n") == heading:
            kept = []
        elif kept is not None and line.startswith(_MARK):
            break
        elif kept is not None and not line.startswith(_RAYS):
            kept.append(line)
    return None if kept is None else "".join(kept)


def ray_log_directories(*more: Path) -> Iterator[Path]:
    """Where the sessions of Ray on this machine have their logs, the newest first.

    Args:
        more: Directories of sessions beside the usual ones.
    """
    usual = [os.environ.get("RAY_TMPDIR"), "/tmp", tempfile.gettempdir()]
    places = [*more, own_sessions(), *(Path(place, "ray") for place in usual if place)]
    sessions = {
        session.resolve()
        for place in dict.fromkeys(places)
        for session in place.glob("session_*")
        if session.is_dir() and not session.is_symlink()
    }
    for session in sorted(sessions, key=lambda each: each.name, reverse=True):
        yield session / "logs"
