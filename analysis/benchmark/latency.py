"""Latencies of several sides that take turns, and what is computed of them.

A turn is a few calls of one side in a row, timed one by one; in every round each side has a turn on
the same batches, in an order drawn anew. What else the machine does falls on all sides alike, and
sides are compared within a round, so that drift cancels. A turn begins with a call that is not
timed: the caches and the threads of a library that had to wait.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

#: Calls of a turn.
CALLS = 5
_RESAMPLES = 2_000
_LEVEL = 0.95
#: Seconds between two turns, in which the threads of the last library go to sleep.
_PAUSE = 0.002


@dataclass(frozen=True)
class Latency:
    """Of the calls of one side.

    Attributes:
        calls: How many were timed.
        median_ms: Of a call, in milliseconds.
        mean_ms: Likewise.
        p95_ms: 95 of 100 calls took no longer (linear between the nearest two).
        p99_ms: Likewise.
        replies_per_second: Of the mean.
    """

    calls: int
    median_ms: float
    mean_ms: float
    p95_ms: float
    p99_ms: float
    replies_per_second: float

    @classmethod
    def of(cls, seconds: Seconds, replies: int) -> Latency:
        """Of the seconds of every call, each of so many replies."""
        p95, p99 = 1e3 * np.percentile(seconds, [95, 99])
        return cls(
            calls=int(seconds.size),
            median_ms=1e3 * float(np.median(seconds)),
            mean_ms=1e3 * float(seconds.mean()),
            p95_ms=float(p95),
            p99_ms=float(p99),
            replies_per_second=replies / float(seconds.mean()),
        )


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one side is as another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, reference: Seconds, own: Seconds) -> Ratio:
        """Median over the rounds of the ratio of the sides' medians in a round.

        The interval is the percentile bootstrap's over the rounds (Efron 1979), of a fixed seed.

        Args:
            reference: (rounds, calls) of the side that is compared with.
            own: (rounds, calls) of the other.
        """
        ratios = np.median(reference, axis=1) / np.median(own, axis=1)
        drawn = np.random.default_rng(0).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
        medians = np.median(ratios[drawn], axis=1)
        tail = 50 * (1 - _LEVEL)
        low, high = np.percentile(medians, [tail, 100 - tail])
        return cls(float(np.median(ratios)), float(low), float(high))


def take_turns(
    sides: Mapping[Name, Callable[[int], object]],
    *,
    rounds: int,
    synchronise: Callable[[], object] = lambda: None,
    progress: Callable[[], object] = lambda: None,
) -> dict[Name, Seconds]:
    """Times the sides in turns.

    Args:
        sides: What each does with batch number i, counted from 0 and not bounded.
        rounds: Turns of each side.
        synchronise: Waits until the device has done everything asked of it.
        progress: Called after every turn.

    Returns:
        Of each side the seconds of its calls, (rounds, `CALLS`).
    """
    seconds = {name: np.empty((rounds, CALLS)) for name in sides}
    draw = random.Random(0)
    with _no_garbage_collection():
        for turn in range(rounds):
            for name in draw.sample(list(sides), len(sides)):
                time.sleep(_PAUSE)
                sides[name](turn * CALLS)
                for call in range(CALLS):
                    seconds[name][turn, call] = _timed(
                        sides[name], turn * CALLS + call, synchronise
                    )
                progress()
    return seconds


def _timed(side: Callable[[int], object], batch: int, synchronise: Callable[[], object]) -> float:
    synchronise()
    started = time.perf_counter()
    side(batch)
    synchronise()
    return time.perf_counter() - started


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Which would fall on whichever side is running."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
