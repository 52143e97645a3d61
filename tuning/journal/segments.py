"""The journal's segments: writing them, reading rows back, and putting them into one table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from model.errors import ExperimentError
from model.files import flush, reason_of, storage_errors
from tuning.journal.compaction import (
    read_compacted,
    rows_of_table,
    segments_in_compacted,
    table_of,
    write_compacted,
)
from tuning.journal.row import FORMAT, Complain, Row, check_format, no_format, refuse
from tuning.storage.patience import patiently

#: Rows after which a new segment is begun, and where each change sends the whole segment.
SEGMENT_ROWS, SENT_SEGMENT_ROWS = 10_000, 1_000


class Journal:
    """Appends rows to the journal of an experiment; there must be one writer at a time.

    A storage that is away is waited for, see `tuning.storage.patience`. A row whose writing failed
    is written again, whole, into a new segment: of a row that is there twice readers take the last.

    Args:
        directory: The journal's directory; made if it is not there, where the experiment is.
        next_seq: Sequence number of the next row: the number of rows already there.
        segment_rows: Rows after which a new segment is begun; None for `SEGMENT_ROWS`.

    Attributes:
        on_wait: Is told in words that the storage is away, and that it is back.
        stopped: Is asked, while the storage is away, whether to give up early.

    Raises:
        StorageError: here and in `append`, where nothing can be written.
    """

    def __init__(self, directory: Path, next_seq: int = 0, segment_rows: int | None = None) -> None:
        self.directory = directory
        self.segment_rows = segment_rows or SEGMENT_ROWS
        self.next_seq = next_seq
        self.on_wait: Callable[[str], None] = lambda text: None
        self.stopped: Callable[[], bool] = lambda: False
        self._file: TextIO | None = None
        self._rows_in_segment = 0
        self._opened = time.monotonic()
        with storage_errors(directory):
            directory.mkdir(exist_ok=True)

    def append(self, row: Row) -> Row:
        """Writes a row, with its sequence number and the times, and flushes it to disk."""
        now, elapsed = round(time.time(), 3), round(time.monotonic() - self._opened, 3)
        row = replace(row, seq=self.next_seq, time=now, elapsed=elapsed)
        patiently(
            lambda: self._write(row),
            anchor=self.directory,
            on_wait=self.on_wait,
            stopped=self.stopped,
        )
        self.next_seq += 1
        self._rows_in_segment += 1
        return row

    def _write(self, row: Row) -> None:
        with storage_errors(self.directory):
            try:
                segment = self._segment()
                segment.write(row.to_json() + "\n")
                segment.flush()
                flush(segment.fileno())
            except BaseException:  # the line may be torn: nothing may be written behind it
                self._drop_segment()
                raise

    def _drop_segment(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what is left in its buffer
                file.close()

    def _segment(self) -> TextIO:
        if self._file is None or self._rows_in_segment >= self.segment_rows:
            self.close()
            number = 1 + max(
                [int(p.stem) for p in self.directory.glob("*.jsonl")]
                + [segments_in_compacted(self.directory)]
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


def read_journal(directory: Path, complain: Complain = refuse) -> Reading:
    """Reads a journal, of a running search too.

    Args:
        directory: The journal's directory.
        complain: Hears of each damaged row and file. By default nothing damaged is read: a search
            must not go on from half of what it knew. Those who only look may leave it out.

    Raises:
        ExperimentError: where there is no journal, or a row is damaged (with file and line), or
            the format is newer.
    """
    rows: list[Row] = []
    torn: list[str] = []
    try:
        for part in parts_of(directory, torn, complain):
            if isinstance(part, Segment):
                rows.extend(part.rows(complain))
            else:
                rows.extend(rows_of_table(part))
    except FileNotFoundError:  # compacted just now
        return read_journal(directory, complain)
    by_seq = {row.seq: row for row in rows}
    return Reading([by_seq[seq] for seq in sorted(by_seq)], torn)


@dataclass(frozen=True)
class Segment:
    """The rows of a segment, not yet decoded.

    Attributes:
        path: The file.
        body: Its whole lines after the header, each with its newline.
    """

    path: Path
    body: bytes

    def rows(self, complain: Complain) -> Iterator[Row]:
        """Its rows; damaged ones are complained of, with file and line."""
        for number, line in enumerate(self.body.split(b"\n")[:-1], start=2):
            try:
                row = Row.from_mapping(_mapping(line))
            except ValueError as error:
                complain(f"{self.path}:{number}: damaged row: {error}")
            else:
                yield row


def parts_of(directory: Path, torn: list[str], complain: Complain) -> Iterator[Any]:
    """What a journal is made of, in order: its compacted table, if there is one, and `Segment`s.

    Raises:
        ExperimentError: where there is no journal, or its format is newer.
        FileNotFoundError: where it was compacted meanwhile; read it again.
    """
    if not directory.is_dir():
        raise ExperimentError(f"{directory}: there is no journal here.")
    # The segments are listed first: compaction writes its table before it removes them.
    segments = sorted(directory.glob("*.jsonl"))
    table = read_compacted(directory, complain)
    if table is not None:
        yield table
    for segment in segments:
        try:
            content = segment.read_bytes()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not segment.is_symlink():
                raise
            complain(f"{segment}: cannot be read: {reason_of(error)}.")
        else:
            yield Segment(segment, _body(segment, content, torn, complain))


def _body(segment: Path, content: bytes, torn: list[str], complain: Complain) -> bytes:
    """The lines after the header, which is checked, without a torn last one."""
    end = content.rfind(b"\n") + 1
    if end < len(content):  # no newline: its row was never promised to anybody
        torn.append(str(segment))
    if not end:
        return b""
    begin = content.index(b"\n") + 1
    _check_header(content[: begin - 1], segment, complain)
    return content[begin:end]


def _check_header(line: bytes, segment: Path, complain: Complain) -> None:
    try:
        number = _mapping(line).get("format")
    except ValueError as error:
        complain(f"{segment}:1: damaged row: {error}")
        return
    if isinstance(number, int):
        check_format(number, segment)
    else:
        complain(no_format(segment))


def _mapping(line: bytes) -> dict[str, Any]:
    try:
        mapping = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(mapping, dict):
        raise ValueError("not a mapping")
    return mapping


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


def trials_asked_for(first: int | None, rows: Iterable[Row]) -> int | None:
    """How many trials a search is asked for by now.

    Args:
        first: How many at first, as its manifest says; None for as many as there are.
        rows: Its journal, with every extension.
    """
    if first is None:
        return None
    return first + sum(int(row.metrics["trials"]) for row in rows if row.kind == "extended")


def compact(directory: Path) -> None:
    """Writes all rows into one typed Parquet table and then removes the segments.

    Raises:
        ExperimentError: where something is damaged; everything is left as it was.
        StorageError: where the table cannot be written; likewise.
    """
    segments = sorted(directory.glob("*.jsonl"))
    tables = [  # a segment at a time: rows as objects are large
        table_of(list(part.rows(refuse))) if isinstance(part, Segment) else part
        for part in parts_of(directory, [], refuse)
    ]
    numbers = [int(segment.stem) for segment in segments]
    tables = tables or [table_of([])]
    write_compacted(directory, tables, max([*numbers, segments_in_compacted(directory)]))
    for segment in segments:
        segment.unlink()
