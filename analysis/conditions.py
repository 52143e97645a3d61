"""Conditions on the rows of a dataframe, written as people write them.

    val_loss < 4 and optimizer == 'adam'
    state in ('finished', 'stopped') and not clip > 50
    last_val_loss - val_loss > 0.1 or reason is not None

The grammar is a small part of Python's expressions: names of columns, numbers, texts in quotes,
``True``, ``False``, ``None``; ``== != < <= > >=``, also chained; ``in`` and ``not in`` a list;
``is None`` and ``is not None``; ``and or not``; ``+ - * /`` between numbers; parentheses. Python
only parses it: nothing of it is ever run, and calls, attributes and anything else are refused.

A comparison with a missing value is neither true nor false, as in SQL: a row is taken only where
the condition is true.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.validation import did_you_mean

#: Characters of a condition at most.
_LONGEST = 10_000
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_GRAMMAR = "use columns, numbers, texts in quotes, comparisons, in, is None, and, or, not, + - * /."
_REFUSED: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute (a dot)",
    ast.Subscript: "an index",
    ast.Lambda: "a function",
    ast.IfExp: "if ... else",
    ast.JoinedStr: "a formatted text",
    ast.NamedExpr: "an assignment",
}


class ConditionError(ValueError):
    """What is wrong with a condition, in words."""


@dataclass(frozen=True)
class _Value:
    """A part of a condition.

    Attributes:
        kind: ``number``, ``text``, ``flag`` (true, false or missing), ``time`` or ``none``.
        data: A series of the frame's length, or one value.
    """

    kind: str
    data: Any


def matches(frame: pd.DataFrame, condition: str) -> pd.Series[bool]:
    """Which rows of a frame fulfil a condition; see the module's description.

    Raises:
        ConditionError: where it cannot be read, names no column, or compares what cannot be.
    """
    tree = _parse(condition)
    _check_names(tree, frame, condition)
    try:
        value = _Reading(frame).read(tree)
    except RecursionError:
        raise ConditionError("is nested too deep.") from None
    if value.kind != "flag":
        raise ConditionError(f"must be true or false for each row, but is a {value.kind}.")
    flags = value.data
    if not isinstance(flags, pd.Series):
        flags = pd.Series(flags, index=frame.index, dtype="boolean")
    return flags.fillna(False).astype(bool)


def _parse(condition: str) -> ast.expr:
    if len(condition) > _LONGEST:
        raise ConditionError(f"is longer than {_LONGEST} characters.")
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd literals, which we judge ourselves
            return ast.parse(condition.strip(), mode="eval").body
    except SyntaxError as error:
        hint = "; for equality, write ==" if "==" in str(error.msg) else ""
        raise ConditionError(f"cannot be read at character {error.offset}{hint}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise ConditionError("cannot be read.") from None


def _check_names(tree: ast.expr, frame: pd.DataFrame, condition: str) -> None:
    try:
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    except RecursionError:
        raise ConditionError("is nested too deep.") from None
    for name in names:
        if name not in frame.columns:
            hint = did_you_mean(name, map(str, frame.columns)).rstrip(".")
            raise ConditionError(f"unknown column {name!r}{hint} (texts need quotes)")


class _Reading:
    """Reads a condition's tree, from its leaves up.

    Args:
        frame: Its columns are what names mean.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def read(self, node: ast.expr) -> _Value:  # noqa: PLR0911 - one for each kind of node
        """What a node of the tree is.

        Raises:
            ConditionError: where the grammar does not have it, or its parts do not fit.
        """
        match node:
            case ast.Name():
                return _column(self.frame[node.id])
            case ast.Constant():
                return _constant(node.value)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                return self._all_or_any(node)
            case ast.UnaryOp(op=ast.Not()):
                return _Value("flag", ~self._read_as("flag", node.operand, "not"))
            case ast.UnaryOp(op=ast.USub()):
                return _Value("number", -self._read_as("number", node.operand, "-"))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return self._arithmetic(node)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                raise ConditionError("write 'and' and 'or' instead of & and |.")
        what = _REFUSED.get(type(node), "something else")
        raise ConditionError(f"has {what}, which is not allowed: {_GRAMMAR}")

    def _read_as(self, kind: str, node: ast.expr, what: str) -> Any:
        value = self.read(node)
        if value.kind != kind:
            wanted = {"flag": "what is true or false", "number": "a number"}[kind]
            raise ConditionError(f"{what!r} needs {wanted}, but {ast.unparse(node)!r} is not.")
        return value.data

    def _all_or_any(self, node: ast.BoolOp) -> _Value:
        is_and = isinstance(node.op, ast.And)
        word = "and" if is_and else "or"
        parts = [self._read_as("flag", part, word) for part in node.values]
        result = parts[0]
        for part in parts[1:]:  # of three values: false and missing is false, true or missing true
            result = result & part if is_and else result | part
        return _Value("flag", result)

    def _arithmetic(self, node: ast.BinOp) -> _Value:
        compute = _ARITHMETIC[type(node.op)]
        word = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(node.op)]
        left, right = (self._read_as("number", part, word) for part in (node.left, node.right))
        with np.errstate(all="ignore"):  # a division by zero is infinite or missing
            return _Value("number", compute(left, right))

    def _comparison(self, node: ast.Compare) -> _Value:
        """``a < b < c`` is ``a < b and b < c``."""
        sides = [node.left, *node.comparators]
        result: Any = None
        for i, comparison in enumerate(node.ops):
            one = self._compare(sides[i], comparison, sides[i + 1])
            result = one if result is None else result & one
        return _Value("flag", result)

    def _compare(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> Any:
        if isinstance(comparison, ast.In | ast.NotIn):
            found = self._member(self.read(left), right, ast.unparse(left))
            return found if isinstance(comparison, ast.In) else ~found
        first, second = self.read(left), self.read(right)
        if "none" in (first.kind, second.kind):
            return _is_missing(first, second, comparison)
        if type(comparison) not in _COMPARISONS:
            raise ConditionError("'is' is for None only; for equality, write ==.")
        first, second = _of_one_kind(first, second, f"{ast.unparse(left)}, {ast.unparse(right)}")
        if first.kind == "flag" and not isinstance(comparison, ast.Eq | ast.NotEq):
            raise ConditionError(f"{ast.unparse(left)!r} is true or false: use == or !=.")
        return _known(_COMPARISONS[type(comparison)](first.data, second.data), first, second)

    def _member(self, value: _Value, members: ast.expr, name: str) -> Any:
        if not isinstance(members, ast.Tuple | ast.List | ast.Set):
            raise ConditionError("'in' needs a list, such as ('adam', 'sgd').")
        found: Any = _known(False, value, value)
        for member in members.elts:
            pair = _of_one_kind(value, self.read(member), f"{name}, {ast.unparse(member)}")
            found = found | _known(pair[0].data == pair[1].data, *pair)
        return found


def _column(series: pd.Series[Any]) -> _Value:
    if pd.api.types.is_bool_dtype(series.dtype):
        return _Value("flag", series.astype("boolean"))
    if pd.api.types.is_numeric_dtype(series.dtype):
        numbers = series.to_numpy("float64", na_value=np.nan)
        return _Value("number", pd.Series(numbers, index=series.index))
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return _Value("time", series)
    return _Value("text", series.astype("str"))


def _constant(value: Any) -> _Value:
    if value is None:
        return _Value("none", None)
    if isinstance(value, bool):
        return _Value("flag", _flag(value))
    if isinstance(value, str):
        return _Value("text", value)
    if isinstance(value, int | float):
        try:
            return _Value("number", np.float64(value))
        except OverflowError:
            raise ConditionError("has a number that is too large.") from None
    raise ConditionError(f"has {value!r}, which is not allowed: {_GRAMMAR}")


def _flag(value: bool) -> Any:
    """A flag that is the same for each row; an array, for its three-valued ``& | ~``."""
    return np.bool_(value)


def _of_one_kind(left: _Value, right: _Value, what: str) -> tuple[_Value, _Value]:
    kinds = {left.kind, right.kind}
    if len(kinds) == 1:
        return left, right
    if kinds == {"time", "text"}:
        return _as_time(left), _as_time(right)
    one, other = left.kind, right.kind
    raise ConditionError(f"cannot compare a {one} with a {other} ({what}).")


def _as_time(value: _Value) -> _Value:
    if value.kind == "time":
        return value
    if isinstance(value.data, str):
        try:
            moment = pd.Timestamp(value.data)
            moment = moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")
            if not pd.isna(moment):
                return _Value("time", moment)
        except ValueError:
            pass
    raise ConditionError(f"{value.data!r} is no time; write '2026-01-31 12:00'.")


def _is_missing(left: _Value, right: _Value, comparison: ast.cmpop) -> Any:
    value = right if left.kind == "none" else left
    missing: Any = pd.isna(value.data)
    missing = missing.astype("boolean") if isinstance(missing, pd.Series) else np.bool_(missing)
    if isinstance(comparison, ast.Is | ast.Eq):
        return missing
    if isinstance(comparison, ast.IsNot | ast.NotEq):
        return ~missing
    raise ConditionError("None can only be compared by 'is None' and 'is not None'.")


def _known(result: Any, *sides: _Value) -> Any:
    """The result of a comparison, missing where a side is."""
    series = next((s.data for s in sides if isinstance(s.data, pd.Series)), None)
    if series is None:
        return np.bool_(result)
    flags = pd.Series(result, index=series.index).astype("boolean")
    for side in sides:
        if isinstance(side.data, pd.Series):
            flags = flags.mask(side.data.isna())
    return flags
