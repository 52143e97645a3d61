"""The compacted journal: one typed Parquet table of all rows, written at the end of a search.

Metrics become columns ``metrics.NAME``; configuration and values stay JSON texts, which the file's
dictionary encoding keeps small. pyarrow is loaded only where there is such a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from model.files import atomic_write, finite
from tuning.journal.row import FORMAT, Complain, Row, check_format

COMPACTED = "compacted.parquet"
#: Columns that hold JSON texts, and what a null there stands for.
_JSON_COLUMNS = {"config": "{}", "values": "[]"}
#: Columns without which a row says nothing.
_ESSENTIAL = ("kind", "seq", "time", "trial", "attempt", "iteration", "state")


def write_compacted(directory: Path, tables: Sequence[Any], last_segment: int) -> None:
    """Writes the compacted table of a journal.

    Args:
        directory: The journal's directory.
        tables: All its rows, in the order of segments, each of `table_of` or `read_compacted`.
        last_segment: Number of the newest segment in them.

    Raises:
        StorageError: where it cannot be written; an older table is left as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Permissive: a metric may be whole in one segment, and absent from another.
    whole = in_order(pa.concat_tables(map(_as_texts, tables), promote_options="permissive"))
    whole = whole.replace_schema_metadata({"format": str(FORMAT), "segments": str(last_segment)})
    buffer = pa.BufferOutputStream()
    pq.write_table(whole, buffer)
    atomic_write(directory / COMPACTED, buffer.getvalue().to_pybytes())


def table_of(rows: Sequence[Row]) -> Any:
    """Rows as a `pyarrow.Table` of the compacted form."""
    import pyarrow as pa

    return pa.table(_columns(rows))


def _as_texts(table: Any) -> Any:
    """JSON texts as such, where they were read as dictionaries."""
    for name in _JSON_COLUMNS:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).cast("string"))
    return table


def in_order(table: Any) -> Any:
    """A table sorted by sequence number; of rows that are there twice, the last one."""
    seq = table.column("seq").to_numpy()
    if (np.diff(seq) > 0).all():
        return table
    order = np.argsort(seq, kind="stable")
    ordered = seq[order]
    return table.take(order[np.append(ordered[1:] != ordered[:-1], True)])


def segments_in_compacted(directory: Path) -> int:
    """Number of the newest segment in the compacted table; 0 where there is none."""
    if not (directory / COMPACTED).exists():
        return 0
    import pyarrow.parquet as pq

    return int(pq.read_schema(directory / COMPACTED).metadata[b"segments"])


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


def read_compacted(directory: Path, complain: Complain) -> Any:
    """Reads the compacted table of a journal, as far as it can be read.

    Returns:
        A `pyarrow.Table`, or None where there is none or nothing of it can be read. Columns that
        are damaged are complained of and left out.

    Raises:
        ExperimentError: where its format is newer.
    """
    file = directory / COMPACTED
    if not file.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        texts = [name for name in pq.read_schema(file).names if name in _JSON_COLUMNS]
        # As dictionaries: there are few distinct texts, and each is kept once.
        parquet = pq.ParquetFile(file, read_dictionary=texts)
    except (OSError, pa.ArrowException) as error:
        complain(f"{file}: damaged: {error}")
        return None
    with parquet:
        metadata = parquet.schema_arrow.metadata or {}
        check_format(int(metadata.get(b"format", b"0")) or None, file)
        try:
            return parquet.read()
        except (OSError, pa.ArrowException):
            return _readable_columns(parquet, file, complain)


def _readable_columns(parquet: Any, file: Path, complain: Complain) -> Any:
    import pyarrow as pa

    columns = {}
    for name in parquet.schema_arrow.names:
        try:
            columns[name] = parquet.read([name]).column(name)
        except (OSError, pa.ArrowException) as error:
            complain(f"{file}: damaged: column {name!r} cannot be read: {error}")
    return pa.table(columns) if columns.keys() >= set(_ESSENTIAL) else None


def rows_of_table(table: Any) -> list[Row]:
    """The rows of a compacted table, as they were before."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for name in columns.keys() & _JSON_COLUMNS.keys():  # few distinct texts, each decoded once
        nothing = _JSON_COLUMNS[name]
        decoded = {text: json.loads(text or nothing) for text in set(columns[name])}
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
