"""A journal as columns: a million rows in seconds, where a million `Row` objects take minutes.

Segments go through pyarrow's JSON reader, the compacted table straight into memory. A segment in
which anything is out of the ordinary is read again row by row, so that damage costs the damaged
rows alone and is named with file and line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ExperimentError
from tuning.journal.compaction import in_order
from tuning.journal.row import Row
from tuning.journal.segments import Segment, parts_of

#: Columns of every table, and their types in Arrow; then come ``metrics.NAME``, in float64.
_COLUMNS = {
    "kind": "string",
    "seq": "int64",
    "time": "float64",
    "elapsed": "float64",
    "trial": "int64",
    "attempt": "int64",
    "iteration": "int64",
    "decision": "string",
    "state": "string",
    "reason": "string",
    "worker": "string",
    "worker_device": "string",
    "worker_type": "string",
}
METRIC = "metrics."
#: Bytes that pyarrow parses at once; a longer line is read by the slow way.
_BLOCK = 1 << 20


@dataclass
class JournalTable:
    """What is in a journal.

    Attributes:
        table: A `pyarrow.Table` of all rows in order of their sequence numbers, with the columns
            kind, seq, time, elapsed, trial, attempt, iteration, decision, state, reason, worker,
            worker_device, worker_type, as in `tuning.journal.Row`, and ``metrics.NAME`` for every
            metric.
        configs: Configuration of each trial, as it was proposed.
        changes: Of trials that went on with another one (population-based training): the sequence
            number of each such restart, in order, and the configuration from there on.
        torn: Files whose last line was torn and skipped.
        problems: Damage that was passed over, in words: file, line, reason.
    """

    table: Any
    configs: dict[int, dict[str, Any]] = field(default_factory=dict)
    changes: dict[int, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, sorted."""
        names = self.table.column_names
        return sorted(n.removeprefix(METRIC) for n in names if n.startswith(METRIC))

    def config_at(self, trial: int, seq: int) -> dict[str, Any]:
        """A trial's configuration at a row, by its sequence number; empty where it is lost."""
        known = [config for change, config in self.changes.get(trial, []) if change <= seq]
        return known[-1] if known else self.configs.get(trial, {})


def read_journal_table(directory: Path) -> JournalTable:
    """Reads a journal as columns, of a running search too; what is damaged is left out and said.

    Raises:
        ExperimentError: where there is no journal, its format is newer, or all of it is damaged.
    """
    import pyarrow as pa

    reading = JournalTable(None)
    tables = [_typed({}, 0)]
    try:
        for part in parts_of(directory, reading.torn, reading.problems.append):
            tables.append(
                _table_of_segment(part, reading)
                if isinstance(part, Segment)
                else _table_of_compacted(part, reading)
            )
    except FileNotFoundError:  # compacted just now
        return read_journal_table(directory)
    reading.table = in_order(pa.concat_tables(tables, promote_options="default").combine_chunks())
    if reading.problems and not reading.table.num_rows:
        raise ExperimentError("\n".join(reading.problems))
    _note_gaps(reading, directory)
    return reading


def table_of_rows(rows: Iterable[Row]) -> JournalTable:
    """Rows as columns, in the order in which they are given."""
    rows = list(rows)
    reading = JournalTable(None)
    reading.table = _table_of_rows(rows, "rows", reading)
    return reading


# Segments


def _table_of_segment(segment: Segment, reading: JournalTable) -> Any:
    body = segment.body
    ends = np.flatnonzero(np.frombuffer(body, "uint8") == ord("\n"))
    table = _parsed(body, len(ends))
    if table is None:
        rows = list(segment.rows(reading.problems.append))
        return _table_of_rows(rows, str(segment.path), reading)
    begins = np.append(0, ends + 1)
    _take_configs(reading, table, lambda i: json.loads(body[begins[i] : ends[i]]).get("config"))
    return table


def _parsed(body: bytes, lines: int) -> Any:
    """Lines as pyarrow reads them; None where anything in them is not as it should be."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not body:
        return _typed({}, 0)
    parsing = arrow_json.ParseOptions(
        explicit_schema=pa.schema([(name, kind) for name, kind in _arrow_types().items()]),
        unexpected_field_behavior="infer",
    )
    try:
        if not body.isascii():
            body.decode()  # pyarrow would take any bytes for a text
        table = arrow_json.read_json(
            pa.BufferReader(body),
            read_options=arrow_json.ReadOptions(block_size=_BLOCK),
            parse_options=parsing,
        )
        columns = {name: table.column(name) for name in _COLUMNS}
        needed = columns["kind"].null_count + columns["seq"].null_count
        if table.num_rows != lines or needed:
            return None
        return _typed(columns | _metric_columns(table), table.num_rows)
    except (pa.ArrowException, UnicodeDecodeError):
        return None


def _metric_columns(table: Any) -> dict[str, Any]:
    """The fields of the column ``metrics`` as columns of their own.

    Raises:
        ArrowException: where one is not of numbers.
    """
    import pyarrow as pa

    if "metrics" not in table.column_names:
        return {}
    metrics = table.column("metrics")
    if pa.types.is_null(metrics.type):
        return {}
    if not pa.types.is_struct(metrics.type):
        raise pa.ArrowTypeError("metrics")
    names = [metrics.type.field(i).name for i in range(metrics.type.num_fields)]
    return {METRIC + name: c for name, c in zip(names, metrics.flatten(), strict=True)}


# Rows and the compacted table


def _table_of_rows(rows: Sequence[Row], source: str, reading: JournalTable) -> Any:
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    for name in {name for row in rows for name in row.metrics}:
        columns[METRIC + name] = [
            _figure(row, name, source, reading.problems.append) for row in rows
        ]
    table = _typed(columns, len(rows))
    _take_configs(reading, table, lambda i: rows[i].config)
    return table


def _figure(row: Row, name: str, source: str, complain: Callable[[str], None]) -> float | None:
    value = row.metrics.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, int | float):
            return float(value)
    except OverflowError:
        pass
    complain(f"{source}: row {row.seq}: metrics.{name} is not a number that can be shown.")
    return None


def _table_of_compacted(table: Any, reading: JournalTable) -> Any:
    columns = {name: table.column(name) for name in _COLUMNS if name in table.column_names}
    for name in table.column_names:
        if name.startswith(METRIC):
            kind = table.schema.field(name).type
            if _is_figure(kind):
                columns[name] = table.column(name)
            else:
                reading.problems.append(f"compacted.parquet: {name} is {kind}, not numbers.")
    typed = _typed(columns, table.num_rows)
    if "config" in table.column_names:
        texts = table.column("config")
        _take_configs(reading, typed, lambda i: json.loads(texts[i].as_py() or "{}"))
    return typed


# Shared


@cache
def _arrow_types() -> dict[str, Any]:
    import pyarrow as pa

    return {name: getattr(pa, kind)() for name, kind in _COLUMNS.items()}


def _is_figure(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def _typed(columns: dict[str, Any], rows: int) -> Any:
    """A table of `_COLUMNS`, in their types, and the metrics in float64.

    Raises:
        ArrowException: where a column is of another type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    typed = {}
    for name, kind in _arrow_types().items():
        column = columns.get(name)
        typed[name] = pa.nulls(rows, kind) if column is None else _as(column, kind)
    for name in sorted(name for name in columns if name.startswith(METRIC)):
        column = columns[name]
        if isinstance(column, list):
            column = pa.array(column, pa.float64())
        if not _is_figure(column.type):
            raise pa.ArrowTypeError(name)
        typed[name] = pc.cast(column, pa.float64(), safe=False)
    return pa.table(typed)


def _as(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    return pa.array(column, kind) if isinstance(column, list) else column.cast(kind)


def _take_configs(
    reading: JournalTable, table: Any, config_of: Callable[[int], dict[str, Any] | None]
) -> None:
    """Keeps the configuration in the first row of each trial that is new, and later changes."""
    numbers, places = np.unique(_whole(table, "trial"), return_index=True)
    for trial, place in zip(numbers.tolist(), places.tolist(), strict=True):
        if trial >= 0 and trial not in reading.configs and (config := config_of(place)):
            reading.configs[trial] = config
    restarts = np.flatnonzero(_restarted(table))
    numbers, seqs = _whole(table, "trial")[restarts], _whole(table, "seq")[restarts]
    for trial, seq, place in zip(numbers.tolist(), seqs.tolist(), restarts.tolist(), strict=True):
        config = config_of(place)
        if trial >= 0 and config and config != reading.config_at(trial, seq):
            reading.changes.setdefault(trial, []).append((seq, config))


def _restarted(table: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows begin another attempt."""
    import pyarrow.compute as pc

    found: np.ndarray[Any, np.dtype[np.bool_]] = (
        pc.equal(table.column("kind"), "restarted").fill_null(False).to_numpy()
    )
    return found


def _whole(table: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A column of whole numbers, -1 where there is none."""
    values: np.ndarray[Any, np.dtype[np.int64]] = table.column(name).fill_null(-1).to_numpy()
    return values


def _note_gaps(reading: JournalTable, directory: Path) -> None:
    """Says how many rows are missing beyond those that are known to be damaged."""
    seq = _whole(reading.table, "seq")
    if not len(seq):
        return
    missing = int(seq[-1]) + 1 - len(seq)
    if missing > len(reading.problems):
        before = np.append(-1, seq[:-1])
        place = int(np.flatnonzero(seq - before > 1)[0])
        first, last = int(before[place]) + 1, int(seq[place]) - 1
        reading.problems.append(
            f"{directory}: {missing} rows are missing or damaged, the first of them "
            + (f"number {first}." if first == last else f"numbers {first} to {last}.")
        )
