"""The journal: one append-only record of a search, and the truth about it.

The driver alone writes it, and flushes each row to disk before the decision in it takes effect.
A resume, a simulation, the results and the dashboards are all readings of it.

On disk it is a directory of segments, since object stores cannot append to a file:

    journal/000001.jsonl      a header line with the format number, then one JSON row a line
    journal/000002.jsonl      a resumed driver begins a segment of its own
    journal/compacted.parquet at the end of a search, all segments so far in one typed table

A driver killed while writing leaves at most one torn last line in its segment; readers skip it.
Rows are never changed or deleted. Where a trial was restored to an earlier iteration, the rows of
older attempts from there on are superseded: see `current_reports`.

A row says when it was and, by a clock that nobody sets, how long its driver had been running: for
durations see `tuning.journal.clock`.

`read_journal` gives rows; `tuning.journal.columns` gives columns, for journals of millions of rows.
"""

from tuning.journal.row import COMPLETE, FORMAT, Row, check_format
from tuning.journal.segments import (
    Journal,
    compact,
    current_reports,
    read_journal,
    trials_asked_for,
)

__all__ = [
    "COMPLETE",
    "FORMAT",
    "Journal",
    "Row",
    "check_format",
    "compact",
    "current_reports",
    "read_journal",
    "trials_asked_for",
]
