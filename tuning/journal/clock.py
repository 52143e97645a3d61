"""Times of rows for durations: by a clock that nobody sets.

A row says when it was written by the clock of the driver's machine, which is set now and then: by a
time server, by hand, after the machine has slept. It also says how long the driver had been running
by then, by a monotonic clock (`Row.elapsed`), which stands still while the machine sleeps. Steady
times are seconds since the journal's first row. They go on

- within a session by `Row.elapsed`; in rows of earlier versions, which do not have it, by the
  clock of the machine, where nothing takes less than no time;
- from one session to the next by the clock of the machine, likewise: two drivers, perhaps on two
  machines, have no other clock in common.

So steady times never go back, and differences within a session are durations. What a worker
measures in its own process (``step_seconds`` and the others) is monotonic there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from tuning.journal.row import Row


class SteadyClock:
    """Gives the steady times of rows that come one by one, from a journal's first one on."""

    def __init__(self) -> None:
        self._before: Row | None = None
        self._now = 0.0

    def time_of(self, row: Row) -> float:
        """The steady time of the next row, in seconds; 0 for the first."""
        if self._before is not None:
            self._now += _taken(self._before, row)
        self._before = row
        return self._now


def _taken(before: Row, row: Row) -> float:
    """How long it took from a row to the next one, in seconds, at least 0."""
    if row.kind != "session" and before.elapsed is not None and row.elapsed is not None:
        passed = row.elapsed - before.elapsed
        if passed >= 0:  # else a session began whose first row is lost
            return passed
    return max(0.0, row.time - before.time)


def steady_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of a whole journal, with their steady times in place of their times."""
    clock = SteadyClock()
    return [replace(row, time=clock.time_of(row)) for row in rows]


def steady_times(table: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Steady times of a whole journal in columns (`JournalTable.table`), in seconds."""
    import pyarrow.compute as pc

    time = table.column("time").fill_null(0.0).to_numpy()
    elapsed = table.column("elapsed").fill_null(np.nan).to_numpy()
    begins = pc.equal(table.column("kind"), "session").fill_null(False).to_numpy()
    passed = np.diff(elapsed)
    known = ~begins[1:] & (passed >= 0)
    taken = np.where(known, passed, np.maximum(np.diff(time), 0.0))
    return np.append(np.zeros(min(1, len(time))), np.cumsum(taken))
