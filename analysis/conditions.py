"""Conditions on the rows of a dataframe, written as people write them.

    val_loss < 4 and optimizer == 'adam'
    state in ('finished', 'stopped') and not clip > 50
    last_val_loss - val_loss > 0.1 or reason is not None

The grammar is that of `tuning.spaces.grammar`; names are columns. Times are compared with texts
such as ``'2026-01-31 12:00'``. A comparison with a missing value is neither true nor false, as in
SQL: a row is taken only where the condition is true.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from tuning.spaces.grammar import Compute, Part, Reader, parse
from tuning.spaces.grammar import ExpressionError as ConditionError

__all__ = ["ConditionError", "matches"]

_LONGEST = 10_000  # characters


def matches(frame: pd.DataFrame, condition: str) -> pd.Series[bool]:
    """Which rows of a frame fulfil a condition; see the module's description.

    Raises:
        ConditionError: where it cannot be read, names no column, or compares what cannot be.
    """
    flags = _Evaluating(frame).read_flag(parse(condition, _LONGEST))
    if not isinstance(flags, pd.Series):
        flags = pd.Series(flags, index=frame.index, dtype="boolean")
    return flags.fillna(False).astype(bool)


class _Evaluating(Reader[Any]):
    """Works a condition out; a part is a series of the frame's length, or one value for all rows.

    Flags are of numpy or pandas, for their ``& | ~``: of three values with pandas.

    Args:
        frame: Its columns are what names mean.
    """

    noun = "column"
    each = " for each row"

    def __init__(self, frame: pd.DataFrame) -> None:
        super().__init__()
        self.frame = frame

    def named(self, name: str) -> Part[Any]:
        if name not in self.frame.columns:
            raise self.unknown(name, map(str, self.frame.columns))
        return _column(self.frame[name])

    def constant(self, value: Any) -> Any:
        if isinstance(value, bool):
            return np.bool_(value)
        if not isinstance(value, int | float):
            return value
        try:
            return np.float64(value)
        except OverflowError:
            raise ConditionError("has a number that is too large.") from None

    def missing(self, data: Any) -> Any:
        missing: Any = pd.isna(data)
        if isinstance(missing, pd.Series):
            return missing.astype("boolean")
        return np.bool_(missing)

    def negated(self, flag: Any) -> Any:
        return ~flag

    def joined(self, flags: Sequence[Any], *, every: bool) -> Any:
        return reduce(operator.and_ if every else operator.or_, flags, np.bool_(every))

    def calculated(self, compute: Compute, *numbers: Any) -> Any:
        with np.errstate(all="ignore"):  # a division by zero is infinite or missing
            return compute(*numbers)

    def compared(self, compare: Compute, one: Any, other: Any) -> Any:
        result = compare(one, other)
        sides = [side for side in (one, other) if isinstance(side, pd.Series)]
        if not sides:
            return np.bool_(result)
        flags = pd.Series(result, index=self.frame.index).astype("boolean")
        for side in sides:
            flags = flags.mask(side.isna())
        return flags

    def paired(
        self, left: ast.expr, one: Part[Any], right: ast.expr, other: Part[Any]
    ) -> tuple[Part[Any], Part[Any]]:
        """Reads a text as a time where it is compared with one, too."""
        if {one.kind, other.kind} == {"time", "text"}:
            return _as_time(one), _as_time(other)
        return super().paired(left, one, right, other)


def _column(series: pd.Series[Any]) -> Part[Any]:
    if pd.api.types.is_bool_dtype(series.dtype):
        return Part("flag", series.astype("boolean"))
    if pd.api.types.is_numeric_dtype(series.dtype):
        numbers = series.to_numpy("float64", na_value=np.nan)
        return Part("number", pd.Series(numbers, index=series.index))
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return Part("time", series)
    return Part("text", series.astype("str"))


def _as_time(value: Part[Any]) -> Part[Any]:
    if value.kind == "time":
        return value
    if isinstance(value.data, str):
        try:
            moment = pd.Timestamp(value.data)
            moment = moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")
            if not pd.isna(moment):
                return Part("time", moment)
        except ValueError:
            pass
    raise ConditionError(f"{value.data!r} is no time; write '2026-01-31 12:00'.")
