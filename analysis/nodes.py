"""What each node did for a search, and hours of each type of node, from the journal alone.

An attempt at a trial holds its worker from its first step to its last row, by clocks that nobody
sets: the worker measured the step, the driver what came after it. What a node is up beyond that
(starting, waiting for work, until it is taken away) the journal does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.results import Results
from tuning.journal import Row

_HOUR = 3600.0
_BEGINS = ("proposed", "restarted")


@dataclass
class Placed:
    """An attempt at a trial on a worker.

    Attributes:
        trial: Which trial.
        worker: ``host:pid``.
        begin, end: First step and last row, in seconds since the search began
            (`tuning.journal.clock`).
        device, kind: `Row.worker_device` and `Row.worker_type`, where they are known.
        peak_mb: Resident memory at its peak, in megabytes; 0 where it is not known.
    """

    trial: int
    worker: str
    begin: float
    end: float
    device: str | None
    kind: str | None
    peak_mb: float = 0.0

    @property
    def node(self) -> str:
        """Its host."""
        return self.worker.rsplit(":", 1)[0]


@dataclass(frozen=True)
class Use:
    """What a node, or all nodes of a type, did.

    Attributes:
        node: Its address; None for a type.
        kind: Its type as the cluster calls it; None where that is not known.
        nodes: How many there were.
        devices: Of its workers.
        trials: How many trials were there, those that ended elsewhere too.
        attempts: How many attempts at them reported.
        hours: While at least one trial ran on it; of a type, the sum over its nodes.
        worker_hours: The sum over attempts.
        gpu_hours: The same, times the GPUs that a trial holds.
        peak_memory_mb: The largest of a worker there, in megabytes; None where it is not known.
    """

    node: str | None
    kind: str | None
    nodes: int
    devices: tuple[str, ...]
    trials: int
    attempts: int
    hours: float
    worker_hours: float
    gpu_hours: float
    peak_memory_mb: float | None


def by_node(results: Results) -> list[Use]:
    """What each node did, in the order of their first use."""
    gpus = _gpus_of(results)
    return [
        _use(own, gpus, node=own[0].node) for own in _grouped(_placed(results), lambda a: a.node)
    ]


def by_type(results: Results) -> list[Use]:
    """The same of each type of node; those of no known type are one."""
    gpus = _gpus_of(results)
    return [_use(own, gpus) for own in _grouped(_placed(results), lambda a: a.kind)]


def _gpus_of(results: Results) -> float:
    resources = results.experiment.manifest["settings"].get("resources", {})
    return float(resources.get("gpus", 0.0))


def _placed(results: Results) -> list[Placed]:
    """All attempts that reported; what type a node has is known from any of them."""
    attempts = list(placed(results.steady_rows))
    kinds = {attempt.node: attempt.kind for attempt in attempts if attempt.kind}
    for attempt in attempts:
        attempt.kind = attempt.kind or kinds.get(attempt.node)
    return attempts


def placed(rows: Iterable[Row]) -> Iterator[Placed]:
    """Attempts that reported, in the order of their first reports.

    Args:
        rows: Of a whole journal, with steady times.
    """
    live: dict[int, Placed] = {}
    found: list[Placed] = []
    for row in rows:
        if row.trial is None:
            continue
        if row.kind in _BEGINS:
            live.pop(row.trial, None)
        elif row.kind == "report" and row.worker is not None:
            if row.trial not in live:
                live[row.trial] = _begun(row)
                found.append(live[row.trial])
            attempt = live[row.trial]
            attempt.end = row.time
            attempt.peak_mb = max(attempt.peak_mb, _figure(row, "peak_memory_mb"))
        elif row.kind == "failed" and row.trial in live:
            live.pop(row.trial).end = row.time
    return iter(found)


def _begun(row: Row) -> Placed:
    assert row.trial is not None and row.worker is not None
    begin = row.time - _figure(row, "step_seconds")
    return Placed(row.trial, row.worker, begin, row.time, row.worker_device, row.worker_type)


def _figure(row: Row, name: str) -> float:
    value: Any = row.metrics.get(name)
    return float(value) if value is not None else 0.0


def _grouped(attempts: Iterable[Placed], key: Callable[[Placed], str | None]) -> list[list[Placed]]:
    groups: dict[str | None, list[Placed]] = {}
    for attempt in attempts:
        groups.setdefault(key(attempt), []).append(attempt)
    return list(groups.values())


def _use(own: Sequence[Placed], gpus: float, *, node: str | None = None) -> Use:
    """Sums over attempts, of which there is at least one."""
    worker_hours = sum(attempt.end - attempt.begin for attempt in own) / _HOUR
    nodes = _grouped(own, lambda attempt: attempt.node)
    return Use(
        node=node,
        kind=own[-1].kind,
        nodes=len(nodes),
        devices=tuple(dict.fromkeys(each.device for each in own if each.device)),
        trials=len({attempt.trial for attempt in own}),
        attempts=len(own),
        hours=sum(map(_busy_seconds, nodes)) / _HOUR,
        worker_hours=worker_hours,
        gpu_hours=gpus * worker_hours,
        peak_memory_mb=max(attempt.peak_mb for attempt in own) or None,
    )


def _busy_seconds(own: Iterable[Placed]) -> float:
    """How long at least one of these attempts was running."""
    busy, until = 0.0, float("-inf")
    for attempt in sorted(own, key=lambda attempt: attempt.begin):
        busy += max(0.0, attempt.end - max(attempt.begin, until))
        until = max(until, attempt.end)
    return busy
