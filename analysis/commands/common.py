"""What the commands share: the experiment they read, what they show of it, and how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.output import FORMATS, format_of, frame_bytes, frame_table, frame_text, plain
from model.cli import positive
from model.files import atomic_write, storage_errors

__all__ = ["add_experiment", "add_model", "frame_table", "plain", "Subcommands"]

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subcommands = argparse._SubParsersAction


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name an experiment."""
    parser.add_argument("experiment", help="the experiment's name or directory, or 'latest'")
    parser.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name a model."""
    parser.add_argument("model", help="model directory, NAME, NAME@alias or NAME:VERSION")
    parser.add_argument("--registry", default="registry", help="directory (%(default)s)")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose rows and columns; `selection` reads them."""
    group = parser.add_argument_group("selection")
    group.add_argument(
        "--where",
        metavar="CONDITION",
        help="only rows of which it is true: \"val_loss < 4 and optimizer == 'sgd'\"",
    )
    group.add_argument(
        "--state", type=_names, metavar="STATES", help="only trials like finished,stopped"
    )
    group.add_argument("--sort", metavar="COLUMN", help="the smallest first")
    group.add_argument("--descending", action="store_true", help="with --sort: the largest first")
    group.add_argument("--columns", type=_names, metavar="NAMES", help="these columns, a,b,c")
    group.add_argument("--top", type=positive, metavar="N", help="only so many rows")


def selection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_selection` was given, as the keywords of `Results.select`."""
    names = ("where", "state", "sort", "descending", "columns", "top")
    return {name: getattr(arguments, name) for name in names}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say in which form a frame is given; `output_format`, `give`."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format", choices=list(FORMATS), help="default: what --out ends in, or a table"
    )
    group.add_argument("--out", type=Path, metavar="FILE", help="write it here instead of printing")


def output_format(arguments: argparse.Namespace) -> str:
    """The format that was asked for.

    Raises:
        ConfigurationError: where it is unknown, or cannot be printed.
    """
    return format_of(arguments.format, arguments.out)


def give(frame: pd.DataFrame, arguments: argparse.Namespace) -> None:
    """Prints a frame, or writes it to the file that was asked for."""
    name = output_format(arguments)
    if arguments.out:
        write(arguments.out, frame, name)
    else:
        print(frame_text(frame, name).rstrip("\n"))


def write(file: Path, frame: pd.DataFrame, name: str) -> None:
    """Writes a frame to a file, whole or not at all, and says so."""
    with storage_errors(file):
        atomic_write(file, frame_bytes(frame, name))
    print(f"wrote {file}")


def note(problems: Iterable[str]) -> None:
    """Says on stderr what is damaged or missing."""
    for problem in problems:
        print(f"note: {problem}", file=sys.stderr)
