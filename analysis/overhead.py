"""Where the time of a search went, from its journal alone.

A worker's second is either within an attempt at a trial or not. Within, the reports say how long
each step took and what for; the rest is waiting for the driver. The parts add up to the wall time
times the number of workers, of every session of a driver. Steps are by the worker's clock, all else
by the driver's; nobody sets these. What passed between two sessions is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from analysis.results import Results
from tuning.journal import COMPLETE, Row
from tuning.searchers import STATES

#: What a step says of itself, and where it is counted.
_MEASURED = {
    "build_seconds": "building",
    "train_seconds": "training",
    "eval_seconds": "evaluation",
    "save_seconds": "saving",
}
#: Every part, in the order of a table, and what it is.
PARTS = {
    "start-up": "Ray, worker processes and imports, up to each process's first step",
    "building": "model and optimizer of each attempt, going to a checkpoint",
    "training": "training iterations",
    "evaluation": "validation at the reports",
    "saving": "snapshots, and waiting for files",
    "other": "of a step, beside these",
    "between reports": "the driver, Ray and the way there and back",
    "between trials": "from an attempt's end to the first step of the next",
    "unreported": "after the last report of an attempt that failed, was interrupted or still runs",
    "idle at the end": "no trial is left to begin, others still run",
}

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Session:
    """One driver's run of a search: from its start to its end, or its last row.

    Attributes:
        state: ``complete``, ``interrupted``, ``time budget`` (it was over), ``running``, or
            ``killed`` (it did not end by itself).
        wall_seconds: From the call that started it, imports before that left out.
        workers: The most trials that were live at once.
        trials: How many ended.
        first_step_seconds: Until the first trial began to train; None where none reported.
        overhead_per_trial: Seconds; (wall time - time to the first step - training and evaluation
            (and what was not reported) / workers) / trials. None where no trial ended.
        parts: Worker seconds of each of `PARTS`; their sum is wall time times workers.
    """

    state: str
    wall_seconds: float
    workers: int
    trials: int
    first_step_seconds: float | None
    overhead_per_trial: float | None
    parts: dict[str, float]

    @property
    def worker_seconds(self) -> float:
        """Wall time times workers."""
        return self.wall_seconds * self.workers


def overhead(results: Results) -> list[Session]:
    """Where the time went, session by session."""
    sessions = _by_session(results.steady_rows)
    running = results.running
    return [_Timeline(rows).session(running=running and rows is sessions[-1]) for rows in sessions]


def total(sessions: Iterable[Session]) -> dict[str, float]:
    """Worker seconds of each of `PARTS`, over all sessions."""
    sessions = list(sessions)
    return {part: sum(session.parts[part] for session in sessions) for part in PARTS}


def _by_session(rows: list[Row]) -> list[list[Row]]:
    """The rows of each driver; there is something in each."""
    sessions: list[list[Row]] = []
    for row in rows:
        if row.kind == "session" or not sessions:
            sessions.append([])
        sessions[-1].append(row)
    return sessions


@dataclass
class _Attempt:
    """An attempt at a trial; `at` is the time of its last row so far."""

    begin: float
    at: float
    steps: int = 0
    end: float | None = None


@dataclass
class _Timeline:
    """Goes through the rows of one session and counts."""

    rows: list[Row]
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    attempts: list[_Attempt] = field(default_factory=list)
    live: dict[int, _Attempt] = field(default_factory=dict)
    processes: set[str | None] = field(default_factory=set)
    workers: int = 0
    trials: int = 0
    first_step: float | None = None
    first_training: float | None = None

    def session(self, *, running: bool) -> Session:
        start = self.rows[0].time - _figure(self.rows[0], "startup_seconds")
        end = self.rows[-1].time
        begun = [r.time - _figure(r, "step_seconds") for r in self.rows if r.kind == "report"]
        self.first_step = min(begun, default=None)
        for row in self.rows:
            self._take(row)
        for attempt in list(self.live.values()):
            self._leave(attempt, end)
        self._count_idle(start, end)
        last = self.rows[-1]
        reason = COMPLETE if last.completes else str(last.reason)
        ended = reason if last.kind == "ended" else "running" if running else "killed"
        return Session(
            state=ended,
            wall_seconds=end - start,
            workers=self.workers,
            trials=self.trials,
            first_step_seconds=None if self.first_training is None else self.first_training - start,
            overhead_per_trial=self._overhead_per_trial(end),
            parts=self.parts,
        )

    def _take(self, row: Row) -> None:
        if row.trial is None:
            return
        if row.kind in ("proposed", "restarted"):
            self.live[row.trial] = _Attempt(row.time, row.time)
            self.attempts.append(self.live[row.trial])
            self.workers = max(self.workers, len(self.live))
        elif row.trial in self.live:
            attempt = self.live[row.trial]
            if row.kind == "report":
                self._take_step(attempt, row)
            if row.kind == "failed" or row.state in STATES:
                del self.live[row.trial]
                self._leave(attempt, row.time)
            self.trials += row.state in STATES

    def _take_step(self, attempt: _Attempt, row: Row) -> None:
        """Counts a step and the time before it."""
        step = _figure(row, "step_seconds")
        self._count_before(attempt, row, row.time - step)
        measured = {part: _figure(row, name) for name, part in _MEASURED.items()}
        if sum(measured.values()) > step + _ROUNDING:  # of an earlier step, repeated
            measured = {}
        for part, seconds in measured.items():
            self.parts[part] += seconds
        self.parts["other"] += step - sum(measured.values())
        built = row.time - step + measured.get("building", 0.0)
        self.first_training = min(built, built if (t := self.first_training) is None else t)
        attempt.steps += 1
        attempt.at = row.time

    def _count_before(self, attempt: _Attempt, row: Row, begun: float) -> None:
        """Counts what lies before a step that has begun at a time."""
        assert self.first_step is not None
        if attempt.steps:
            self.parts["between reports"] += begun - attempt.at
            return
        new = row.worker not in self.processes
        self.processes.add(row.worker)
        # A trial that was to wait for its process may be given to one that was up earlier.
        until = begun if new else max(attempt.at, self.first_step)
        self.parts["start-up"] += until - attempt.at
        self.parts["between trials"] += begun - until

    def _leave(self, attempt: _Attempt, time: float) -> None:
        attempt.end = time
        self.parts["unreported"] += time - attempt.at

    def _count_idle(self, start: float, end: float) -> None:
        """Counts what lies in no attempt: before the first began, after the last began, between."""
        begins = [attempt.begin for attempt in self.attempts]
        first, last = (min(begins), max(begins)) if begins else (end, end)
        bounds = {
            "start-up": (start, first),
            "between trials": (first, last),
            "idle at the end": (last, end),
        }
        for part, (left, right) in bounds.items():
            busy = sum(_overlap(attempt, left, right) for attempt in self.attempts)
            self.parts[part] += self.workers * (right - left) - busy

    def _overhead_per_trial(self, end: float) -> float | None:
        if self.first_step is None or not self.trials:
            return None
        work = sum(self.parts[part] for part in ("training", "evaluation", "unreported"))
        return (end - self.first_step - work / self.workers) / self.trials


def _overlap(attempt: _Attempt, left: float, right: float) -> float:
    assert attempt.end is not None
    return max(0.0, min(attempt.end, right) - max(attempt.begin, left))


def _figure(row: Row, name: str) -> float:
    value: Any = row.metrics.get(name)
    return float(value) if value is not None else 0.0
