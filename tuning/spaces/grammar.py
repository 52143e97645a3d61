"""The grammar of conditions, which results and hyper-parameters share.

A small part of Python's expressions: names, numbers, texts in quotes, ``True``, ``False``,
``None``; ``== != < <= > >=``, also chained; ``in`` and ``not in`` a list; ``is None`` and
``is not None``; ``and or not``; ``+ - * /`` between numbers; parentheses. Python only parses it:
nothing of it is ever run, and calls, attributes and anything else are refused.

A comparison with what is missing is neither true nor false, as in SQL.
"""

from __future__ import annotations

import ast
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

from model.validation import did_you_mean

T = TypeVar("T")
Compute = Callable[..., Any]

_DEEPEST = 100  # levels
_COMPARISONS: dict[type[ast.cmpop], Compute] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, Compute]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_REFUSED: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute (a dot)",
    ast.Subscript: "an index",
    ast.Lambda: "a function",
    ast.IfExp: "if ... else",
    ast.JoinedStr: "a formatted text",
    ast.NamedExpr: "an assignment",
}
#: What a literal, or a field that accepts this type, is called.
KINDS: dict[type, str] = {
    bool: "flag",
    int: "number",
    float: "number",
    str: "text",
    type(None): "none",
}
_WANTED = {"flag": "what is true or false", "number": "a number"}


class ExpressionError(ValueError):
    """What is wrong with a condition, in words."""


def parse(text: str, longest: int) -> ast.expr:
    """The tree of a condition; what is in it is for a `Reader` to judge.

    Args:
        text: The condition.
        longest: Characters at most.

    Raises:
        ExpressionError: where it is longer, or is no expression.
    """
    if len(text) > longest:
        raise ExpressionError(f"is longer than {longest:,} characters.")
    text = text.strip()
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd literals, which a reader judges
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        lone = error.offset and text[error.offset - 1 : error.offset + 1].strip() == "="
        hint = "; for equality, write ==" if lone or "==" in str(error.msg) else ""
        place = error.offset or len(text) + 1  # 0 where it ends too early
        raise ExpressionError(f"cannot be read at character {place}{hint}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError("cannot be read.") from None


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of a condition.

    Attributes:
        kind: ``number``, ``text``, ``flag`` (true, false or neither), ``none``, ``any`` where it
            is not known, or a kind of the reader's own.
        data: What the reader makes of it.
    """

    kind: str
    data: T


class Reader(ABC, Generic[T]):
    """Reads the tree of a condition from its leaves up, and refuses what makes no sense.

    What stands for a part, a value or a function that gives it, is for the subclass to say. In
    what it computes, None, NaN or what else stands for missing goes on as SQL has it.

    Attributes:
        noun: What a name means.
        each: What the whole must be true or false for, in words; may be empty.
    """

    noun: ClassVar[str]
    each: ClassVar[str] = ""

    def __init__(self) -> None:
        self._depth = 0

    @abstractmethod
    def named(self, name: str) -> Part[T]:
        """What a name means."""

    @abstractmethod
    def constant(self, value: Any) -> T:
        """A literal of one of `KINDS`."""

    @abstractmethod
    def missing(self, data: T) -> T:
        """Whether it is missing."""

    @abstractmethod
    def negated(self, flag: T) -> T:
        """The contrary."""

    @abstractmethod
    def joined(self, flags: Sequence[T], *, every: bool) -> T:
        """Whether all of them are true, or else whether any is."""

    @abstractmethod
    def calculated(self, compute: Compute, *numbers: T) -> T:
        """The result of arithmetic."""

    @abstractmethod
    def compared(self, compare: Compute, one: T, other: T) -> T:
        """The result of a comparison, of two parts that `paired` gave."""

    def paired(
        self, left: ast.expr, one: Part[T], right: ast.expr, other: Part[T]
    ) -> tuple[Part[T], Part[T]]:
        """Two parts as they can be compared.

        Raises:
            ExpressionError: where they cannot.
        """
        if one.kind != other.kind and "any" not in (one.kind, other.kind):
            what = f"{ast.unparse(left)}, {ast.unparse(right)}"
            raise ExpressionError(f"cannot compare a {one.kind} with a {other.kind} ({what}).")
        return one, other

    def unknown(self, name: str, known: Iterable[str]) -> ExpressionError:
        """The error of a name that means nothing."""
        hint = did_you_mean(name, known).rstrip(".")
        return ExpressionError(f"unknown {self.noun} {name!r}{hint} (texts need quotes)")

    def read_flag(self, tree: ast.expr) -> T:
        """The whole, which must be true or false.

        Raises:
            ExpressionError: where it is not, or the grammar does not have it, or its parts do not
                fit.
        """
        part = self._read(tree)
        if part.kind not in ("flag", "any"):
            raise ExpressionError(f"must be true or false{self.each}, but is a {part.kind}.")
        return part.data

    def _read(self, node: ast.expr) -> Part[T]:
        if self._depth == _DEEPEST:
            raise ExpressionError("is nested too deep.")
        self._depth += 1
        part = self._read_node(node)
        self._depth -= 1
        return part

    def _read_node(self, node: ast.expr) -> Part[T]:  # noqa: PLR0911 - one for each kind of node
        match node:
            case ast.Name():
                return self.named(node.id)
            case ast.Constant() if type(node.value) in KINDS:
                return Part(KINDS[type(node.value)], self.constant(node.value))
            case ast.Compare():
                return Part("flag", self._comparison(node))
            case ast.BoolOp():
                return Part("flag", self._all_or_any(node))
            case ast.UnaryOp(op=ast.Not()):
                return Part("flag", self.negated(self._read_as("flag", node.operand, "not")))
            case ast.UnaryOp(op=ast.USub()):
                number = self._read_as("number", node.operand, "-")
                return Part("number", self.calculated(operator.neg, number))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return Part("number", self._arithmetic(node))
        raise self._refusal(node)

    def _refusal(self, node: ast.expr) -> ExpressionError:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            return ExpressionError("write 'and' and 'or' instead of & and |.")
        what = _REFUSED.get(type(node), "something else")
        if isinstance(node, ast.Constant):
            what = repr(node.value)
        return ExpressionError(
            f"has {what}, which is not allowed: use {self.noun}s, numbers, texts in quotes, "
            "comparisons, in, is None, and, or, not, + - * /."
        )

    def _read_as(self, kind: str, node: ast.expr, what: str) -> T:
        part = self._read(node)
        if part.kind not in (kind, "any"):
            raise ExpressionError(
                f"{what!r} needs {_WANTED[kind]}, but {ast.unparse(node)!r} is not."
            )
        return part.data

    def _all_or_any(self, node: ast.BoolOp) -> T:
        every = isinstance(node.op, ast.And)
        word = "and" if every else "or"
        return self.joined([self._read_as("flag", n, word) for n in node.values], every=every)

    def _arithmetic(self, node: ast.BinOp) -> T:
        word, compute = _ARITHMETIC[type(node.op)]
        sides = [self._read_as("number", side, word) for side in (node.left, node.right)]
        return self.calculated(compute, *sides)

    def _comparison(self, node: ast.Compare) -> T:
        """``a < b < c`` is ``a < b and b < c``."""
        read = cache(self._read)  # else b is read twice, what is in the midst of it four times ...
        sides = [node.left, *node.comparators]
        flags = [
            self._compare(sides[i], comparison, sides[i + 1], read)
            for i, comparison in enumerate(node.ops)
        ]
        return flags[0] if len(flags) == 1 else self.joined(flags, every=True)

    def _compare(
        self,
        left: ast.expr,
        comparison: ast.cmpop,
        right: ast.expr,
        read: Callable[[ast.expr], Part[T]],
    ) -> T:
        if isinstance(comparison, ast.In | ast.NotIn):
            found = self._member(left, right, read(left))
            return found if isinstance(comparison, ast.In) else self.negated(found)
        one, other = read(left), read(right)
        if "none" in (one.kind, other.kind):
            return self._is_none(other if one.kind == "none" else one, comparison)
        if type(comparison) not in _COMPARISONS:
            raise ExpressionError("'is' is for None only; for equality, write ==.")
        compare = _COMPARISONS[type(comparison)]
        one, other = self.paired(left, one, right, other)
        if one.kind == "flag" and compare not in (operator.eq, operator.ne):
            raise ExpressionError(f"{ast.unparse(left)!r} is true or false: use == or !=.")
        return self.compared(compare, one.data, other.data)

    def _member(self, left: ast.expr, members: ast.expr, value: Part[T]) -> T:
        if not isinstance(members, ast.Tuple | ast.List | ast.Set):
            raise ExpressionError("'in' needs a list, such as ('adam', 'sgd').")
        found = []
        for member in members.elts:
            part = self._read(member)
            if part.kind == "none":
                found.append(self.missing(value.data))
            else:
                one, other = self.paired(left, value, member, part)
                found.append(self.compared(operator.eq, one.data, other.data))
        return self.joined(found, every=False)

    def _is_none(self, part: Part[T], comparison: ast.cmpop) -> T:
        if isinstance(comparison, ast.Is | ast.Eq):
            return self.missing(part.data)
        if isinstance(comparison, ast.IsNot | ast.NotEq):
            return self.negated(self.missing(part.data))
        raise ExpressionError("None can only be compared by 'is None' and 'is not None'.")
