"""Conditions between hyper-parameters, written as people write them.

    optimizer == 'adam'
    clip > 0 or learning_rate < 0.0005
    0.001 <= learning_rate * decoder_learning_ratio <= 0.1
    attention in ('dot', 'general') and not embedding_size is None

The grammar is that of `tuning.spaces.grammar`; names are fields of the configuration. A field that
is None is missing, and so is a number divided by zero.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from model.config import DEFAULTS
from model.validation import Rule, did_you_mean
from tuning.spaces.grammar import KINDS, Compute, ExpressionError, Part, Reader, parse
from tuning.spaces.logic import computed, conjunction, disjunction, negated

__all__ = ["Expression", "ExpressionError"]

_LONGEST = 2_000  # characters

Values = Mapping[str, Any]
#: A part's value for given values of the fields; None for missing, or neither true nor false.
Of = Callable[[Values], Any]


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
        _Compiling(rules).read_flag(parse(text, _LONGEST))
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
def _compiled(text: str) -> tuple[frozenset[str], Of]:
    tree = parse(text, _LONGEST)
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return names, _Compiling(None).read_flag(tree)


class _Compiling(Reader[Of]):
    """Turns the tree of an expression into functions.

    Args:
        rules: What the fields accept, or None where that is not known.
    """

    noun = "field"

    def __init__(self, rules: Mapping[str, Rule] | None) -> None:
        super().__init__()
        self.rules = rules

    def named(self, name: str) -> Part[Of]:
        if self.rules is not None and name not in self.rules:
            raise self.unknown(name, self.rules)
        kind = "any" if self.rules is None else KINDS[self.rules[name].kind]
        return Part(kind, lambda values: values[name])

    def constant(self, value: Any) -> Of:
        return lambda values: value

    def missing(self, data: Of) -> Of:
        return lambda values: data(values) is None

    def negated(self, flag: Of) -> Of:
        return lambda values: negated(flag(values))

    def joined(self, flags: Sequence[Of], *, every: bool) -> Of:
        join = conjunction if every else disjunction
        return lambda values: join([flag(values) for flag in flags])

    def calculated(self, compute: Compute, *numbers: Of) -> Of:
        return lambda values: computed(compute, *[number(values) for number in numbers])

    def compared(self, compare: Compute, one: Of, other: Of) -> Of:
        return self.calculated(compare, one, other)

    def paired(
        self, left: ast.expr, one: Part[Of], right: ast.expr, other: Part[Of]
    ) -> tuple[Part[Of], Part[Of]]:
        """Refuses a comparison with a text that a field never is, too."""
        pair = super().paired(left, one, right, other)
        for name, text in ((left, right), (right, left)):
            if self.rules and isinstance(name, ast.Name) and isinstance(text, ast.Constant):
                choices = self.rules[name.id].choices
                if choices is not None and text.value not in choices:
                    hint = did_you_mean(str(text.value), choices)
                    raise ExpressionError(f"{name.id} is never {text.value!r}{hint}")
        return pair
