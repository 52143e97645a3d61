"""Our own part of a sweep file, ``dialogue_tune``: what W&B's format has no words for.

dialogue_tune:
  parameters:
    clip: {ordinal: true}
    decoder_learning_ratio: {when: "optimizer == 'adam'"}
  constraints: ["clip > 0 or learning_rate < 0.0005"]
  searcher: gp
  scheduler: {type: median}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.config import RULES
from model.validation import Problems, did_you_mean
from tuning.spaces.expressions import Expression, ExpressionError

if TYPE_CHECKING:
    from tuning.scheduling import SchedulerSettings

#: The key of the block.
EXTENSION = "dialogue_tune"
_KEYS = ("parameters", "constraints", "searcher", "scheduler")
_PARAMETER_KEYS = ("ordinal", "when")


@dataclass(frozen=True)
class Extension:
    """The block, as far as it is right.

    Attributes:
        ordinal: Fields whose values are in order.
        when: Conditions under which fields are searched.
        constraints: What every configuration must fulfil.
        searcher: Who proposes, instead of ``method``.
        scheduler: What stops trials, instead of ``early_terminate``.
    """

    ordinal: tuple[str, ...] = ()
    when: Mapping[str, Expression] = field(default_factory=dict)
    constraints: tuple[Expression, ...] = ()
    searcher: str | None = None
    scheduler: SchedulerSettings | None = None


def parse_extension(block: Any, problems: Problems) -> Extension:
    """Reads the block; None stands for an empty one."""
    if block is None:
        return Extension()
    if not isinstance(block, Mapping):
        keys = ", ".join(_KEYS)
        problems.add(EXTENSION, f"must be a mapping with any of {keys}, but got {block!r}.")
        return Extension()
    for key in block:
        if key not in _KEYS:
            problems.unknown_key(EXTENSION, key, _KEYS)
    ordinal, when = _parameters(block.get("parameters"), problems)
    return Extension(
        ordinal=ordinal,
        when=when,
        constraints=_constraints(block.get("constraints"), problems),
        searcher=_searcher(block.get("searcher"), problems),
        scheduler=_scheduler(block.get("scheduler"), problems),
    )


def _parameters(block: Any, problems: Problems) -> tuple[tuple[str, ...], dict[str, Expression]]:
    path = f"{EXTENSION}.parameters"
    ordinal: list[str] = []
    when: dict[str, Expression] = {}
    if block is None:
        return (), when
    if not isinstance(block, Mapping):
        problems.add(path, f"must be a mapping from field to ordinal or when, but got {block!r}.")
        return (), when
    for name, settings in block.items():
        here = f"{path}.{name}"
        if not isinstance(settings, Mapping):
            problems.add(here, f"must be a mapping with ordinal or when, but got {settings!r}.")
            continue
        for key in settings:
            if key not in _PARAMETER_KEYS:
                problems.unknown_key(here, key, _PARAMETER_KEYS)
        flag = settings.get("ordinal", False)
        if type(flag) is not bool:
            problems.add(f"{here}.ordinal", f"must be true or false, but got {flag!r}.")
        elif flag:
            ordinal.append(name)
        if "when" in settings:
            condition = _expression(settings["when"], f"{here}.when", problems)
            if condition is not None:
                when[name] = condition
    return tuple(ordinal), when


def _constraints(block: Any, problems: Problems) -> tuple[Expression, ...]:
    path = f"{EXTENSION}.constraints"
    if block is None:
        return ()
    if not isinstance(block, list):
        problems.add(path, f"must be a list of conditions in quotes, but got {block!r}.")
        return ()
    parsed = [_expression(text, f"{path}[{i}]", problems) for i, text in enumerate(block)]
    return tuple(expression for expression in parsed if expression is not None)


def _expression(text: Any, path: str, problems: Problems) -> Expression | None:
    if not isinstance(text, str):
        example = "\"optimizer == 'adam'\""
        problems.add(path, f"must be a condition in quotes such as {example}, but got {text!r}.")
        return None
    try:
        return Expression.parse(text, RULES)
    except ExpressionError as error:
        problems.add(path, str(error))
        return None


def _searcher(name: Any, problems: Problems) -> str | None:
    from tuning.searchers import SEARCHERS  # which needs search spaces, as we do

    if name is None or (isinstance(name, str) and name in SEARCHERS):
        return name
    hint = did_you_mean(str(name), SEARCHERS)
    problems.add(f"{EXTENSION}.searcher", f"unknown searcher {name!r}{hint}")
    return None


def _scheduler(block: Any, problems: Problems) -> SchedulerSettings | None:
    from tuning.scheduling import parse_scheduler

    return None if block is None else parse_scheduler(block, problems)
