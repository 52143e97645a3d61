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
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO

from model.errors import ExperimentError
from model.files import atomic_write, finite, flush, storage_errors

#: Number of the format written here; a newer one is refused.
FORMAT = 1
#: Rows after which a new segment is begun.
SEGMENT_ROWS = 10_000
_COMPACTED = "compacted.parquet"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One event of a search.

    Attributes:
        kind: ``session`` (a driver began), ``proposed`` (a trial was asked for), ``restarted``
            (a trial begins another attempt), ``report``, ``failed`` (an attempt raised or its
            worker died) or ``ended`` (the driver finished its session).
        seq: Position in the journal, from 0, without gaps.
        time: Seconds since 1970 (UTC).
        trial: Number of the trial, from 0 in the order of proposal; None for sessions.
        attempt: From 1; a trial restarted after a failure or an interruption gets the next one.
        iteration: Training iterations done at a report.
        config: The configuration in force: the searched and fixed fields.
        metrics: What the trainer measured.
        values: Best so far of each objective, None where there is none yet.
        decision: ``continue`` or ``stop``, for a report.
        state: What the trial is after this row: ``running``, ``finished``, ``stopped`` (by the
            scheduler), ``diverged`` or ``failed``.
        reason: Why an attempt failed or a session ended, in words.
        worker: Where the trial runs, ``host:pid``.
    """

    kind: str
    seq: int = -1
    time: float = 0.0
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

    def to_json(self) -> str:
        """One line of standard JSON; fields that say nothing are left out."""
        said = {k: v for k, v in asdict(self).items() if v not in (None, {}, [])}
        return json.dumps(finite(said), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Row:
        """The row of a decoded line; fields added by a later version are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in mapping.items() if k in known})


class Journal:
    """Appends rows to the journal of an experiment; there must be one writer at a time.

    Args:
        directory: The journal's directory; made if it is not there.
        next_seq: Sequence number of the next row: the number of rows already there.

    Raises:
        StorageError: here and in `append`, where nothing can be written.
    """

    def __init__(self, directory: Path, next_seq: int = 0) -> None:
        self.directory = directory
        self.next_seq = next_seq
        self._file: TextIO | None = None
        self._rows_in_segment = 0
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)

    def append(self, row: Row) -> Row:
        """Writes a row, with its sequence number and the time, and flushes it to disk."""
        row = replace(row, seq=self.next_seq, time=round(time.time(), 3))
        with storage_errors(self.directory):
            segment = self._segment()
            segment.write(row.to_json() + "\n")
            segment.flush()
            flush(segment.fileno())
        self.next_seq += 1
        self._rows_in_segment += 1
        return row

    def _segment(self) -> TextIO:
        if self._file is None or self._rows_in_segment >= SEGMENT_ROWS:
            self.close()
            number = 1 + max(
                [int(p.stem) for p in self.directory.glob("*.jsonl")]
                + [_segments_in_compacted(self.directory)]
            )
            self._file = (self.directory / f"{number:06d}.jsonl").open("x", encoding="utf-8")
            self._file.write(json.dumps({"format": FORMAT}) + "\n")
            self._rows_in_segment = 0
        return self._file

    def close(self) -> None:
        """Closes the segment being written; a later `append` begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class Reading:
    """What is in a journal.

    Attributes:
        rows: All rows in order of their sequence numbers.
        torn: Files whose last line was torn and skipped.
    """

    rows: list[Row]
    torn: list[str]


def read_journal(directory: Path) -> Reading:
    """Reads a journal, of a running search too.

    Raises:
        ExperimentError: where there is no journal, or a row is damaged (with file and line), or
            the format is newer.
    """
    compacted = directory / _COMPACTED
    if not directory.is_dir():
        raise ExperimentError(f"{directory}: there is no journal here.")
    # The segments are listed first: compaction writes its table before it removes them.
    segments = sorted(directory.glob("*.jsonl"))
    rows = _read_compacted(compacted) if compacted.exists() else []
    torn: list[str] = []
    try:
        for segment in segments:
            rows.extend(_read_segment(segment, torn))
    except FileNotFoundError:  # compacted just now
        return read_journal(directory)
    except OSError as error:
        raise ExperimentError(f"{directory}: cannot be read: {error.strerror}.") from None
    by_seq = {row.seq: row for row in rows}
    return Reading([by_seq[seq] for seq in sorted(by_seq)], torn)


def _read_segment(segment: Path, torn: list[str]) -> list[Row]:
    lines = segment.read_bytes().split(b"\n")
    rows = []
    if lines[-1]:  # the last line has no newline: its row was never promised to anybody
        torn.append(str(segment))
    for number, line in enumerate(lines[:-1], start=1):
        try:
            mapping = json.loads(line)
            if not isinstance(mapping, dict):
                raise ValueError("not a mapping")
        except ValueError as error:
            raise ExperimentError(f"{segment}:{number}: damaged row: {error}") from None
        if number == 1:
            check_format(mapping.get("format"), segment)
        else:
            rows.append(Row.from_mapping(mapping))
    return rows


def check_format(number: Any, file: Path) -> None:
    """Refuses a file of a newer format, or of none.

    Raises:
        ExperimentError: naming the file and both numbers.
    """
    if not isinstance(number, int):
        raise ExperimentError(f"{file}: has no format number; it is not one of this project.")
    if number > FORMAT:
        raise ExperimentError(
            f"{file}: has format {number}, written by a newer version; this one reads {FORMAT}."
        )


def current_reports(rows: Iterable[Row]) -> list[Row]:
    """The reports that stand: without those of older attempts that a restart superseded.

    Where a later attempt of a trial reports from iteration r on, the reports of its earlier
    attempts at r and beyond no longer stand.
    """
    standing: dict[int, list[Row]] = {}
    for row in rows:
        if row.kind != "report" or row.trial is None or row.iteration is None:
            continue
        reports = standing.setdefault(row.trial, [])
        while reports and reports[-1].iteration >= row.iteration:  # type: ignore[operator]
            reports.pop()
        reports.append(row)
    return sorted((row for reports in standing.values() for row in reports), key=lambda r: r.seq)


def compact(directory: Path) -> None:
    """Writes all rows into one typed Parquet table and then removes the segments.

    Metrics become columns ``metrics.NAME``; configuration and values stay JSON texts, which the
    file's dictionary encoding keeps small.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    segments = sorted(directory.glob("*.jsonl"))
    rows = read_journal(directory).rows
    table = pa.table(_columns(rows)).replace_schema_metadata(
        {"format": str(FORMAT), "segments": str(_last_segment(directory, segments))}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    atomic_write(directory / _COMPACTED, buffer.getvalue().to_pybytes())
    for segment in segments:
        segment.unlink()


def _last_segment(directory: Path, segments: Sequence[Path]) -> int:
    return max([int(s.stem) for s in segments] + [_segments_in_compacted(directory)])


def _segments_in_compacted(directory: Path) -> int:
    if not (directory / _COMPACTED).exists():
        return 0
    import pyarrow.parquet as pq

    return int(pq.read_schema(directory / _COMPACTED).metadata[b"segments"])


_JSON_COLUMNS = ("config", "values")


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    plain = [f.name for f in fields(Row) if f.name != "metrics"]
    columns: dict[str, list[Any]] = {
        name: [
            json.dumps(finite(getattr(row, name))) if name in _JSON_COLUMNS else getattr(row, name)
            for row in rows
        ]
        for name in plain
    }
    for name in sorted({name for row in rows for name in row.metrics}):
        columns[f"metrics.{name}"] = [finite(row.metrics.get(name)) for row in rows]
    return columns


def _read_compacted(file: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ExperimentError(f"{file}: damaged: {error}") from None
    check_format(int(table.schema.metadata.get(b"format", b"0")) or None, file)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for name in _JSON_COLUMNS:  # few distinct texts, each decoded once
        decoded = {text: json.loads(text) for text in set(columns[name])}
        columns[name] = [decoded[text] for text in columns[name]]
    metric_names = [n for n in columns if n.startswith("metrics.")]
    rows = []
    for i in range(table.num_rows):
        metrics = {
            n.removeprefix("metrics."): columns[n][i]
            for n in metric_names
            if columns[n][i] is not None
        }
        known = {f.name: columns[f.name][i] for f in fields(Row) if f.name in columns}
        rows.append(Row(**known, metrics=metrics))
    return rows
