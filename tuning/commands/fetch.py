"""`fetch`: an experiment from a cluster's storage, through Ray's dashboard."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.cli import natural
from model.wording import plural
from tuning.commands.common import Subcommands
from tuning.commands.job_options import add_address, connect

if TYPE_CHECKING:
    from tuning.jobs.client import Client


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    fetch = commands.add_parser(
        "fetch",
        help="fetch an experiment from a cluster",
        description="Fetches an experiment from a cluster's storage: manifest, journal, study and "
        "the best weights. May be repeated while the search runs.",
    )
    fetch.add_argument("name", help="the experiment's name")
    add_address(fetch)
    fetch.add_argument(
        "--out", type=Path, default=Path("runs"), help="directory of experiments (%(default)s)"
    )
    fetch.add_argument(
        "--storage",
        help="where it lies on the cluster; default where it was submitted to, else /mnt/runs",
    )
    fetch.add_argument(
        "--top", type=natural, default=1, help="weights of so many trials (%(default)s)"
    )
    fetch.add_argument(
        "--with-data",
        action="store_true",
        help="the prepared data set too, which promoting a model needs",
    )
    fetch.set_defaults(run=_fetch)


def _fetch(arguments: argparse.Namespace) -> int:
    from tuning.jobs.fetching import fetch
    from tuning.jobs.submission import DEFAULT_STORAGE, check_place

    check_place(arguments.name, arguments.storage or DEFAULT_STORAGE)
    client = connect(arguments.address)
    began = time.monotonic()
    words = [f"--top={arguments.top}"] + ["--with-data"] * arguments.with_data
    with _progress() as show:
        fetched = fetch(
            client,
            arguments.name,
            storage=arguments.storage or _storage(client, arguments.name),
            words=words,
            out=arguments.out,
            progress=show,
        )
    out = "" if arguments.out == Path("runs") else f" --storage {arguments.out}"
    print(
        f"fetched: {fetched.path} ({plural(fetched.files, 'file')}, "
        f"{fetched.bytes / 2**20:.1f} MB, {time.monotonic() - began:.0f} s)\n"
        f"results: python -m analysis results {arguments.name}{out}"
    )
    return 0


def _storage(client: Client, name: str) -> str:
    """Where the newest job of an experiment has it."""
    from tuning.jobs.submission import DEFAULT_STORAGE

    known = [job.storage for job in client.jobs() if job.experiment == name and job.verb != "fetch"]
    return known[-1] if known else DEFAULT_STORAGE


@contextmanager
def _progress() -> Iterator[Callable[[int, int], object]]:
    """Shows how much has come, on a terminal."""
    from tqdm import tqdm

    with tqdm(
        desc="fetching", unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False
    ) as bar:

        def show(received: int, total: int) -> None:
            bar.total = total
            bar.update(received - bar.n)

        yield show
