"""Dataframes as text and as files: table, CSV, Parquet, JSON, Markdown.

The same frame gives the same bytes. CSV and JSON have every digit; tables and Markdown four.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from model.cli import table
from model.errors import ConfigurationError
from model.files import finite

#: Every format, and the endings of files that mean it.
FORMATS = {
    "table": (".txt",),
    "csv": (".csv",),
    "parquet": (".parquet", ".pq"),
    "json": (".json",),
    "markdown": (".md", ".markdown"),
}


def format_of(name: str | None, file: Path | None) -> str:
    """The format asked for, or the one that a file's ending means, or a table.

    Raises:
        ConfigurationError: where the ending is unknown, or Parquet is to be printed.
    """
    if name is None and file is not None:
        known = {ending: name for name, endings in FORMATS.items() for ending in endings}
        name = known.get(file.suffix.lower())
        if name is None:
            problem = f"{file}: of which format? End it in {', '.join(known)}, or say --format."
            raise ConfigurationError("--out", [problem])
    if name == "parquet" and file is None:
        raise ConfigurationError("--format", ["parquet is not for a terminal; say --out FILE."])
    return name or "table"


def frame_bytes(frame: pd.DataFrame, name: str) -> bytes:
    """A dataframe in one of `FORMATS`, as the contents of a file."""
    if name == "parquet":
        return frame.to_parquet(index=False)
    return (frame_text(frame, name).rstrip("\n") + "\n").encode()


def frame_text(frame: pd.DataFrame, name: str) -> str:
    """A dataframe in one of `FORMATS` but Parquet."""
    if name == "csv":
        return frame.to_csv(index=False)
    if name == "json":
        return frame_json(frame)
    if name == "markdown":
        return frame_markdown(frame)
    return frame_table(frame)


def frame_table(frame: pd.DataFrame) -> str:
    """A dataframe as a table in text."""
    return table(_cells(frame), [str(name) for name in frame])


def frame_markdown(frame: pd.DataFrame) -> str:
    """A dataframe as a Markdown table; numbers to the right."""
    cells = _cells(frame)
    headers = [_escaped(str(name)) for name in frame]
    numbers = [pd.api.types.is_numeric_dtype(frame[name].dtype) for name in frame]
    lines = [headers, ["---:" if number else "---" for number in numbers]]
    lines += [[_escaped(_short(cell)) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def frame_json(frame: pd.DataFrame) -> str:
    """A dataframe as a JSON list of one object a row; what is missing is null, times are ISO."""
    names = [str(name) for name in frame]
    rows = [dict(zip(names, map(_for_json, row), strict=True)) for row in _cells(frame)]
    if not rows:
        return "[]"
    lines = (json.dumps(finite(row), allow_nan=False) for row in rows)
    return "[\n" + ",\n".join(lines) + "\n]"


def _cells(frame: pd.DataFrame) -> list[list[Any]]:
    columns = [frame[name].to_list() for name in frame]  # by column: a row has but one dtype
    return [[plain(value) for value in row] for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """None for what is missing."""
    return None if pd.isna(value) else value


def _for_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
