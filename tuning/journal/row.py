"""A row of the journal, the number of the journal's format, and what hears of damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.errors import ExperimentError
from model.files import finite

#: Number of the format written here; a newer one is refused. Format 1 had no ``extended``,
#: ``retried`` and ``stopped`` rows and no clones.
FORMAT = 2

#: Why a session ended, where the search then had all that was asked for.
COMPLETE = "complete"
TARGET_REACHED = "target reached"
#: Why an attempt failed that could not help it: such failures are not counted.
NODE_LOST = "its node was lost"
PREEMPTED = "preempted: its node was taken back"
STORAGE_LOST = "its node alone has lost the storage"
CONNECTION_LOST = "the connection to the worker was lost"  # as where a node dies, before Ray knows
_BLAMELESS = (NODE_LOST, PREEMPTED, STORAGE_LOST, CONNECTION_LOST)
#: How the reason begins where a configuration does not fit into its GPU: it is not tried again.
OUT_OF_GPU_MEMORY = "out of GPU memory"
#: Why it ended otherwise: by Ctrl-C, or because its time was over.
INTERRUPTED = "interrupted"
TIME_BUDGET = "time budget"

#: Hears of damage, in words with the place: it raises, or notes it and reading goes on without.
Complain = Callable[[str], None]


def is_blameless(reason: str | None) -> bool:
    """Whether an attempt that failed for a reason could not help it."""
    return reason is not None and reason.startswith(_BLAMELESS)


#: Of what type each field of a row is; those that are not needed may be missing or null.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "seq": int,
    "time": (int, float),
    "elapsed": (int, float),
    "trial": int,
    "attempt": int,
    "iteration": int,
    "config": dict,
    "metrics": dict,
    "values": list,
    "decision": str,
    "state": str,
    "reason": str,
    "worker": str,
    "worker_device": str,
    "worker_type": str,
    "source": int,
    "source_iteration": int,
}
_NEEDED = ("kind", "seq")
#: Beyond it, tables have no whole numbers.
_LARGEST = 2**63


@dataclass(frozen=True, kw_only=True)
class Row:
    """One event of a search.

    Attributes:
        kind: ``session`` (a driver began), ``proposed`` (a trial was asked for), ``restarted``
            (a trial begins another attempt), ``report``, ``failed`` (an attempt raised or its
            worker died), ``stopped`` (a trial that waited to be restarted ended: the target was
            reached), ``retried`` (a trial that had failed or diverged is to run again),
            ``extended`` (``metrics.trials`` more trials are asked for) or ``ended`` (the driver
            finished its session). A kind that a reader does not know it passes over.
        seq: Position in the journal, from 0, without gaps.
        time: Seconds since 1970 (UTC), by the clock of the driver's machine, which may be set: it
            says when, not how long.
        elapsed: Seconds since the session's driver opened the journal, by a clock that nobody sets
            (`time.monotonic`), for durations: see `tuning.journal.clock`. None in rows of earlier
            versions.
        trial: Number of the trial, from 0 in the order of proposal; None for sessions.
        attempt: From 1; a trial restarted after a failure or an interruption gets the next one.
        iteration: Training iterations done at a report.
        config: The configuration in force: the searched and fixed fields.
        metrics: What the trainer measured.
        values: Best so far of each objective, None where there is none yet.
        decision: ``continue``, ``stop`` or ``clone``, for a report.
        state: What the trial is after this row: ``running``, ``finished``, ``stopped`` (by the
            scheduler), ``diverged`` or ``failed``.
        reason: Why an attempt failed or a session ended, in words.
        worker: Where the trial runs, ``host:pid``.
        worker_device: On which device of it, ``cpu`` or ``cuda:3 NVIDIA H200``; only the first
            report of an attempt says so, and its type.
        worker_type: The type of its node: what a cluster file or Kubernetes calls it, or the model
            of its GPUs; None where the cluster knows none.
        source: Number of the trial whose weights this attempt begins with, where it is a clone
            (population-based training); None otherwise.
        source_iteration: Iterations that the source had reported then.
    """

    kind: str
    seq: int = -1
    time: float = 0.0
    elapsed: float | None = None
    trial: int | None = None
    attempt: int | None = None
    iteration: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    values: list[float | None] = field(default_factory=list)
    decision: str | None = None
    state: str | None = None
    reason: str | None = None
    worker: str | None = None
    worker_device: str | None = None
    worker_type: str | None = None
    source: int | None = None
    source_iteration: int | None = None

    @property
    def completes(self) -> bool:
        """Whether it says that the search had all that was asked for up to here."""
        return self.kind == "ended" and self.reason in (COMPLETE, TARGET_REACHED)

    def to_json(self) -> str:
        """One line of standard JSON; fields that say nothing are left out."""
        said = {k: v for k, v in asdict(self).items() if v not in (None, {}, [])}
        return json.dumps(finite(said), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Row:
        """The row of a decoded line; fields added by a later version are ignored.

        Raises:
            ValueError: where a field is missing or of another type, in words.
        """
        for name in _NEEDED:
            if mapping.get(name) is None:
                raise ValueError(f"it has no {name!r}.")
        known = {k: v for k, v in mapping.items() if k in _TYPES and v is not None}
        for name, value in known.items():
            if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
                raise ValueError(f"{name} cannot be {value!r}.")
            if isinstance(value, int) and abs(value) >= _LARGEST:
                raise ValueError(f"{name} is too large.")
        return cls(**known)


def refuse(problem: str) -> None:
    """Does not read on where something is damaged.

    Raises:
        ExperimentError: always.
    """
    raise ExperimentError(problem)


def check_format(number: Any, file: Path, newest: int = FORMAT) -> None:
    """Refuses a file of a newer format, or of none.

    Raises:
        ExperimentError: naming the file and both numbers.
    """
    if not isinstance(number, int):
        raise ExperimentError(no_format(file))
    if number > newest:
        raise ExperimentError(
            f"{file}: has format {number}, written by a newer version; this one reads {newest}."
        )


def no_format(file: Path) -> str:
    """What is said of a file whose format is unknown."""
    return f"{file}: has no format number; it is not one of this project."
