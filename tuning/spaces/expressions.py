"""Conditions between hyper-parameters, written as people write them.

    optimizer == 'adam'
    clip > 0 or learning_rate < 0.0005
    0.001 <= learning_rate * decoder_learning_ratio <= 0.1
    attention in ('dot', 'general') and not embedding_size is None

The grammar is that of the conditions on results, a small part of Python's expressions: names of
fields, numbers, texts in quotes, ``True``, ``False``, ``None``; ``== != < <= > >=``, also chained;
``in`` and ``not in`` a list; ``is None`` and ``is not None``; ``and or not``; ``+ - * /``;
parentheses. Python only parses it: nothing of it is ever run, and calls, attributes and anything
else are refused.

A comparison with a field that is None, or with a number divided by zero, is neither true nor
false, as in SQL.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from model.config import DEFAULTS
from model.validation import Rule, did_you_mean
from tuning.spaces.logic import computed, conjunction, disjunction, negated

_LONGEST = 2_000  # characters
_DEEPEST = 100  # levels
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_GRAMMAR = "use fields, numbers, texts in quotes, comparisons, in, is None, and, or, not, + - * /."
_REFUSED: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute (a dot)",
    ast.Subscript: "an index",
    ast.Lambda: "a function",
    ast.IfExp: "if ... else",
    ast.JoinedStr: "a formatted text",
    ast.NamedExpr: "an assignment",
}
_KINDS: dict[type, str] = {int: "number", float: "number", str: "text", bool: "flag"}

Values = Mapping[str, Any]


class ExpressionError(ValueError):
    """What is wrong with an expression, in words."""


@dataclass(frozen=True)
class Expression:
    """A condition on a configuration. Two are equal where their texts are.

    Attributes:
        text: As it was written.
    """

    text: str

    @classmethod
    def parse(cls, text: str, rules: Mapping[str, Rule] | None = None) -> Expression:
        """Reads an expression; see the module's description.

        Args:
            text: The expression.
            rules: What each field accepts: names, kinds and choices are checked against it. None
                leaves them unchecked.

        Raises:
            ExpressionError: where it cannot be read, names no field, or compares what cannot be.
        """
        tree = _parse(text)
        _Reading(rules).read_flag(tree)
        return cls(text.strip())

    @property
    def names(self) -> frozenset[str]:
        """The fields that it names."""
        return _compiled(self.text)[0]

    def true_of(self, values: Values) -> bool:
        """Whether it is true; what is neither true nor false is not.

        Args:
            values: A configuration; fields that it leaves out have their defaults.

        Raises:
            ExpressionError: where a number is compared with a text.
            KeyError: where it names what is no field.
        """
        names, evaluate = _compiled(self.text)
        known = {name: values[name] if name in values else DEFAULTS[name] for name in names}
        try:
            return evaluate(known) is True
        except TypeError:
            raise ExpressionError(f"cannot compare a number with a text ({self.text}).") from None

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1024)  # not kept by the expression, which is then plain data
def _compiled(text: str) -> tuple[frozenset[str], Callable[[Values], Any]]:
    tree = _parse(text)
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return names, _Reading(None).read_flag(tree)


def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise ExpressionError(f"is longer than {_LONGEST:,} characters.")
    text = text.strip()
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd literals, which we judge ourselves
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        lone = error.offset and text[error.offset - 1 : error.offset + 1].strip() == "="
        hint = "; for equality, write ==" if lone or "==" in str(error.msg) else ""
        place = error.offset or len(text) + 1  # 0 where it ends too early
        raise ExpressionError(f"cannot be read at character {place}{hint}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError("cannot be read.") from None


@dataclass(frozen=True)
class _Part:
    """A part of an expression.

    Attributes:
        kind: ``number``, ``text``, ``flag`` (true, false or neither), ``none``, or ``any`` where
            that is not known.
        of: Its value for given values of the fields; None for missing, or neither true nor false.
    """

    kind: str
    of: Callable[[Values], Any]


class _Reading:
    """Turns the tree of an expression into functions, from its leaves up.

    Args:
        rules: What the fields accept, or None where that is not known.
    """

    def __init__(self, rules: Mapping[str, Rule] | None) -> None:
        self.rules = rules
        self.depth = 0

    def read_flag(self, tree: ast.expr) -> Callable[[Values], Any]:
        """The whole, which must be true or false."""
        part = self.read(tree)
        if part.kind not in ("flag", "any"):
            raise ExpressionError(f"must be true or false, but is a {part.kind}.")
        return part.of

    def read(self, node: ast.expr) -> _Part:
        """What a node of the tree is.

        Raises:
            ExpressionError: where the grammar does not have it, or its parts do not fit.
        """
        if self.depth == _DEEPEST:
            raise ExpressionError("is nested too deep.")
        self.depth += 1
        part = self._read(node)
        self.depth -= 1
        return part

    def _read(self, node: ast.expr) -> _Part:  # noqa: PLR0911 - one for each kind of node
        match node:
            case ast.Name():
                return self._name(node.id)
            case ast.Constant():
                return _constant(node.value)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                return self._all_or_any(node)
            case ast.UnaryOp(op=ast.Not()):
                flag = self._read_as("flag", node.operand, "not")
                return _Part("flag", lambda values: negated(flag(values)))
            case ast.UnaryOp(op=ast.USub()):
                number = self._read_as("number", node.operand, "-")
                return _Part("number", lambda values: computed(operator.neg, number(values)))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return self._arithmetic(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            raise ExpressionError("write 'and' and 'or' instead of & and |.")
        what = _REFUSED.get(type(node), "something else")
        raise ExpressionError(f"has {what}, which is not allowed: {_GRAMMAR}")

    def _name(self, name: str) -> _Part:
        if self.rules is None:
            return _Part("any", lambda values: values[name])
        if name not in self.rules:
            hint = did_you_mean(name, self.rules).rstrip(".")
            raise ExpressionError(f"unknown field {name!r}{hint} (texts need quotes)")
        return _Part(_KINDS[self.rules[name].kind], lambda values: values[name])

    def _read_as(self, kind: str, node: ast.expr, what: str) -> Callable[[Values], Any]:
        part = self.read(node)
        if part.kind not in (kind, "any"):
            wanted = {"flag": "what is true or false", "number": "a number"}[kind]
            raise ExpressionError(f"{what!r} needs {wanted}, but {ast.unparse(node)!r} is not.")
        return part.of

    def _all_or_any(self, node: ast.BoolOp) -> _Part:
        is_and = isinstance(node.op, ast.And)
        join, word = (conjunction, "and") if is_and else (disjunction, "or")
        parts = [self._read_as("flag", part, word) for part in node.values]
        return _Part("flag", lambda values: join([part(values) for part in parts]))

    def _arithmetic(self, node: ast.BinOp) -> _Part:
        word, compute = _ARITHMETIC[type(node.op)]
        left, right = (self._read_as("number", side, word) for side in (node.left, node.right))
        return _Part("number", lambda values: computed(compute, left(values), right(values)))

    def _comparison(self, node: ast.Compare) -> _Part:
        """``a < b < c`` is ``a < b and b < c``."""
        sides = [node.left, *node.comparators]
        parts = [
            self._compare(sides[place], comparison, sides[place + 1])
            for place, comparison in enumerate(node.ops)
        ]
        return _Part("flag", lambda values: conjunction([part(values) for part in parts]))

    def _compare(
        self, left: ast.expr, comparison: ast.cmpop, right: ast.expr
    ) -> Callable[[Values], Any]:
        if isinstance(comparison, ast.In | ast.NotIn):
            found = self._member(left, right)
            if isinstance(comparison, ast.In):
                return found
            return lambda values: negated(found(values))
        first, second = self.read(left), self.read(right)
        if "none" in (first.kind, second.kind):
            return _missing(second if first.kind == "none" else first, comparison)
        if type(comparison) not in _COMPARISONS:
            raise ExpressionError("'is' is for None only; for equality, write ==.")
        compare = _COMPARISONS[type(comparison)]
        self._check_pair(left, first, right, second)
        if first.kind == "flag" and compare not in (operator.eq, operator.ne):
            raise ExpressionError(f"{ast.unparse(left)!r} is true or false: use == or !=.")
        return lambda values: computed(compare, first.of(values), second.of(values))

    def _member(self, left: ast.expr, members: ast.expr) -> Callable[[Values], Any]:
        if not isinstance(members, ast.Tuple | ast.List | ast.Set):
            raise ExpressionError("'in' needs a list, such as ('adam', 'sgd').")
        value, pairs = self.read(left), []
        for member in members.elts:
            part = self.read(member)
            if part.kind == "none":
                pairs.append(_missing(value, ast.Is()))
            else:
                self._check_pair(left, value, member, part)
                pairs.append(_equality(value, part))
        return lambda values: disjunction([pair(values) for pair in pairs])

    def _check_pair(self, left: ast.expr, one: _Part, right: ast.expr, other: _Part) -> None:
        """Refuses a comparison of two kinds, and with a text that a field never is."""
        if "any" not in (one.kind, other.kind) and one.kind != other.kind:
            what = f"{ast.unparse(left)}, {ast.unparse(right)}"
            raise ExpressionError(f"cannot compare a {one.kind} with a {other.kind} ({what}).")
        for name, text in ((left, right), (right, left)):
            if self.rules and isinstance(name, ast.Name) and isinstance(text, ast.Constant):
                choices = self.rules[name.id].choices
                if choices is not None and text.value not in choices:
                    hint = did_you_mean(str(text.value), choices)
                    raise ExpressionError(f"{name.id} is never {text.value!r}{hint}")


def _constant(value: Any) -> _Part:
    if value is None:
        return _Part("none", lambda values: None)
    kind = _KINDS.get(type(value))
    if kind is None:
        raise ExpressionError(f"has {value!r}, which is not allowed: {_GRAMMAR}")
    return _Part(kind, lambda values: value)


def _missing(part: _Part, comparison: ast.cmpop) -> Callable[[Values], Any]:
    if isinstance(comparison, ast.Is | ast.Eq):
        return lambda values: part.of(values) is None
    if isinstance(comparison, ast.IsNot | ast.NotEq):
        return lambda values: part.of(values) is not None
    raise ExpressionError("None can only be compared by 'is None' and 'is not None'.")


def _equality(one: _Part, other: _Part) -> Callable[[Values], Any]:
    return lambda values: computed(operator.eq, one.of(values), other.of(values))
