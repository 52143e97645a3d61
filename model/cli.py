"""What the command lines of all packages share: options from fields, and errors without traces."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from model.config import DEFAULTS, RULES, SECTIONS
from model.errors import DialogueTuneError
from model.validation import Problems, rules_of

#: Exit statuses: bad input or an environment that cannot do it; interrupted by Ctrl-C.
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a command line; our own errors are printed without a traceback.

    Returns:
        The exit status: what `main` returns, 2 for a `DialogueTuneError`, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # print what this terminal cannot show
    try:
        status = main(argv)
        sys.stdout.flush()
        return status
    except DialogueTuneError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left, `head` say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}, but got {text!r}"
        )
    return value


def add_field_options(parser: argparse.ArgumentParser, sections: Iterable[str]) -> None:
    """Adds an option ``--field-name`` for every field of these configuration sections."""
    for section in sections:
        group = parser.add_argument_group(f"{section} configuration")
        for name, rule in rules_of(SECTIONS[section]).items():
            if name == "corpus":
                continue  # a positional argument or an option of its own
            choices = f" ({', '.join(rule.choices)})" if rule.choices else ""
            group.add_argument(
                f"--{name.replace('_', '-')}",
                dest=f"field_{name}",
                metavar=rule.kind.__name__.upper(),
                help=f"{rule.help}{choices}; default {DEFAULTS[name]}".replace("%", "%%"),
            )


def fields_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields given through `add_field_options`, parsed and checked.

    Raises:
        ConfigurationError: naming every option whose value is invalid.
    """
    problems = Problems("command line")
    values: dict[str, Any] = {}
    for key, text in vars(arguments).items():
        name = key.removeprefix("field_")
        if name == key or text is None:
            continue
        try:
            values[name] = RULES[name].parse(text)
            problem = RULES[name].problem_with(values[name])
        except ValueError as error:
            problem = str(error)
        if problem:
            problems.add(f"--{name.replace('_', '-')}", problem)
    problems.raise_if_any()
    return values


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """Columns aligned for a terminal: text to the left, numbers to the right."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(t[i]) for t in [list(headers), *texts]) for i in range(len(headers))]
    right = [
        all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(headers))
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if r else cell.ljust(width)
            for cell, width, r in zip(cells, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(headers), line(["-" * w for w in widths]), *map(line, texts)])


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is the value that differs from itself
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
