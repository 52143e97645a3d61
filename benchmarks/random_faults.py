"""What the benchmarks share that lose processes and hosts at random: options, seed, directory."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.cli import positive
from model.errors import BenchmarkError


def add_options(parser: argparse.ArgumentParser, *, trials: int) -> None:
    """Adds the options that `seed_and_directory` reads, and those of its caller.

    Args:
        parser: Of the benchmark.
        trials: Of each search, where nobody says otherwise.
    """
    parser.add_argument("--seed", type=int, help="of moments and victims (drawn, and said)")
    parser.add_argument("--trials", type=positive, default=trials, help="a search (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what happened here")


def say(text: str) -> None:
    """Prints at once: whoever waits for hours wants to see it."""
    print(text, flush=True)


@contextmanager
def seed_and_directory(arguments: argparse.Namespace) -> Iterator[tuple[int, Path]]:
    """A seed, which is said, and an empty directory, which goes unless it is to be kept.

    Raises:
        BenchmarkError: with the seed, where a check of the block fails.
    """
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    say(f"seed {seed}")
    try:
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True)
            yield seed, arguments.keep
            return
        with tempfile.TemporaryDirectory() as directory:
            yield seed, Path(directory)
    except AssertionError as error:
        raise BenchmarkError(f"seed {seed}: {error}") from error
