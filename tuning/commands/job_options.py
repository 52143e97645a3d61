"""What the commands about jobs on a cluster share: which cluster, and speaking to it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuning.jobs.client import Client


def add_address(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which cluster; `connect` takes it."""
    parser.add_argument(
        "--address",
        required=True,
        metavar="URL",
        help="of the cluster's dashboard, http://HOST:8265; through SSH http://127.0.0.1:8265",
    )


def connect(address: str) -> Client:
    """Speaks to a cluster.

    Raises:
        ResourceError: where nobody answers, or the token is missing or wrong.
    """
    from tuning.jobs.client import Client, sends_token_openly

    if sends_token_openly(address):
        print(
            f"note: what goes to {address} is not encrypted, the token included; through SSH it "
            "is: ray dashboard cluster.yaml, and --address http://127.0.0.1:8265",
            file=sys.stderr,
        )
    return Client(address)
