"""Ray: starting it or connecting to it, shipping our code, and asking what it has."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ResourceError

#: Set before Ray is imported: it reads them then.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_ANSWER_SECONDS = 10.0
_ROOT = Path(__file__).resolve().parents[1]
#: What the workers of a cluster need; everything else of the checkout stays here.
_SHIPPED = ("model", "tuning")


@dataclass(frozen=True)
class Resources:
    """What one trial holds while it runs.

    Attributes:
        cpus: CPU cores, a whole number or a fraction.
        gpus: GPUs, a whole number or a fraction below 1, which shares one GPU.

    Raises:
        ResourceError: where no trial could hold that.
    """

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.cpus <= 0 and self.gpus <= 0:
            raise ResourceError("--cpus-per-trial must be greater than 0 where a trial has no GPU.")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ResourceError(
                f"--gpus-per-trial must be a whole number or a fraction below 1, "
                f"but got {self.gpus:g}."
            )

    def request(self) -> dict[str, float]:
        """As Ray's resource names."""
        return {"CPU": self.cpus, "GPU": self.gpus}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a Ray cluster, or starts one on this machine, for the time of a block.

    Args:
        address: Of an existing cluster (``auto`` or ``host:port``); None starts Ray here, and ends
            it afterwards.

    Raises:
        ResourceError: where no cluster answers at the address.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # A token of this process alone: other users of the machine cannot use our cluster, and
        # Ray does not write one into the home directory. (Ray reads the mode when imported.)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    if ray.is_initialized():  # a notebook's or a test's cluster: use it, and leave it as it is
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Nobody else can reach a cluster that listens on the loopback address alone.
        options |= {"address": "local", "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1"}
    else:
        _check_answers(address)
        options |= {"address": address, "runtime_env": runtime_environment()}
    try:
        with _importable() if address is None else nullcontext():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(_refusal(address, error)) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _importable() -> Iterator[None]:
    """Lets the processes of a Ray that is started here import our packages where they lie.

    Shipping them, as to a cluster, would let Ray start every worker anew, seconds later.
    """
    name, before = "PYTHONPATH", os.environ.get("PYTHONPATH")
    os.environ[name] = os.pathsep.join([str(_ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _refusal(address: str | None, error: Exception) -> str:
    if address is not None:
        return f"--address {address}: no Ray cluster answers: {error}"
    advice = ""
    if "AF_UNIX path" in str(error):
        advice = " The directory for temporary files has too long a name; set RAY_TMPDIR=/tmp."
    return f"Ray does not start on this machine: {error}{advice}"


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes, and then end the process."""
    if address.startswith("ray://"):
        raise ResourceError(
            f"--address {address}: the Ray client cannot run a search; use the address of the "
            "cluster itself (HOST:6379) on one of its machines."
        )
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():  # "auto": Ray looks for a cluster on this machine
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"--address {address}: no Ray cluster answers there: {error}. Start one with "
            "'ray start --head', or leave --address out to use this machine alone."
        ) from None


def runtime_environment() -> dict[str, Any]:
    """Ships our packages to the workers, without data, experiments or secrets."""
    return {
        "py_modules": [str(_ROOT / package) for package in _SHIPPED],
        "excludes": ["__pycache__"],
        "env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"},
    }


def fitting(resources: Resources) -> int:
    """How many trials the cluster can run at once.

    Raises:
        ResourceError: where one trial alone is more than any node has, said at once instead of
            waiting for ever.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {name: amount for name, amount in resources.request().items() if amount > 0}
    count = sum(min(_times(node, name, n) for name, n in wanted.items()) for node in nodes)
    if count == 0:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        has = "; ".join(
            ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU")) for node in nodes
        )
        raise ResourceError(
            f"a trial asks for {asked}, but no node has that much (the nodes have: {has}); "
            "lower --cpus-per-trial or --gpus-per-trial."
        )
    return count


def _times(node: dict[str, float], name: str, amount: float) -> int:
    """How often an amount of a resource fits on a node; a fraction of a GPU lies on one GPU."""
    there = node.get(name, 0.0)
    if name == "GPU" and amount < 1:
        return int(there) * int(1 / amount)
    return int(there / amount)
