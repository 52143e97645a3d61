"""The options of `run` and `resume`, taken by `submit` as they are, and given to the cluster again.

`submit` has every option that `run` has, also those that it will get: they are read from its
parser. Values are kept as they were written, once they are known to be right.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

from tuning.commands import resume, run

#: What a cluster is told otherwise than the one who submits: where it is, and files sent along.
_OWN = ("help", "file", "address", "storage", "name", "try_first")


def parser_of(command: Any, name: str) -> argparse.ArgumentParser:
    """The parser of one command alone."""
    commands = argparse.ArgumentParser(prog="python -m tuning").add_subparsers()
    command.register(commands)
    parser: argparse.ArgumentParser = commands.choices[name]
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `run`, but for those that are ours to say."""
    for action in _actions(parser_of(run, "run")):
        if action.dest in ("help", "file", "address", "storage"):
            continue
        action.type = _as_written(action.type)
        parser._add_action(action)


def run_options(arguments: argparse.Namespace) -> list[str]:
    """What was given of the options of `run`, but for name, place, and what it tries first."""
    return [
        word
        for action in _actions(parser_of(run, "run"))
        if action.dest not in _OWN
        for word in _words(action, getattr(arguments, action.dest))
    ]


def resume_options(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """What was given of the options of `resume`; and the options that only `run` has."""
    known = {action.dest for action in _actions(parser_of(resume, "resume"))}
    words: list[str] = []
    others: list[str] = []
    for action in _actions(parser_of(run, "run")):
        given = _words(action, getattr(arguments, action.dest, action.default))
        if action.dest in ("help", "address", "storage") or not given:
            continue
        if action.dest in known:
            words += given
        else:
            others.append(action.option_strings[-1] if action.option_strings else "FILE")
    return words, others


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments: argparse has no public list of a parser's arguments."""
    yield from parser._actions


def _words(action: argparse.Action, value: Any) -> list[str]:
    """How a value is written on a command line; nothing where it was not given."""
    if value == action.default:
        return []
    if not action.option_strings:
        return [str(value)]
    option = action.option_strings[-1]
    if action.nargs == 0:
        return [option]
    values = value if isinstance(value, list) else [value]
    return [f"{option}={each}" for each in values]  # "=": a value may begin with a dash


def _as_written(convert: Any) -> Callable[[str], str]:
    """Checks a value as its option does, and keeps the text."""

    @functools.wraps(convert or str)
    def kept(text: str) -> str:
        if convert is not None:
            convert(text)
        return text

    return kept
