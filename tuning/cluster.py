"""Ray: starting it or connecting to it, shipping our code, and asking what it has."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ResourceError
from tuning.authentication import check_authentication, has_token

if TYPE_CHECKING:
    from tuning.preflight.node_types import Growth

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
#: An autoscaler may know no limit.
_MOST_AT_ONCE = 1000
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
    if address is not None and has_token():  # Ray sends it of itself only where the address is auto
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():  # a notebook's or a test's cluster: use it, and leave it as it is
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    else:
        _check_answers(address)
        if (warning := check_authentication(address)) is not None:
            print(f"warning: {warning}", file=sys.stderr)
        options |= {"address": address, "runtime_env": runtime_environment()}
    try:
        with _here() if address is None else nullcontext():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(_refusal(address, error)) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _here() -> Iterator[None]:
    """What a Ray that is started on this machine needs: our code, and nobody else."""
    with _importable(), _on_loopback():
        yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Lets a Ray that is started here listen on the loopback address alone.

    Ray replaces 127.0.0.1 in its own option by the address that other machines know, and listens
    on all of them, but for where it has no clusters: that is what it is told here.
    """
    from ray._private import ray_constants

    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    variable = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if variable is None:
            del os.environ[name]
        else:
            os.environ[name] = variable


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


def fitting(resources: Resources, more: Growth | None) -> int:
    """How many trials the cluster can run at once, with all the nodes that may be added to it.

    Ray Tune asks for the place of every trial that is out, which makes the autoscaler add nodes.

    Args:
        resources: Of one trial.
        more: What may be added, see `tuning.preflight.node_types.growth`; None for nothing.

    Raises:
        ResourceError: where one trial alone is more than any node has, said at once instead of
            waiting for ever.
    """
    import ray

    from tuning.preflight.node_types import HEAD

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {name: amount for name, amount in resources.request().items() if amount > 0}

    def fits(node: Mapping[str, float]) -> int:
        return min(_times(node, name, amount) for name, amount in wanted.items())

    count = sum(map(fits, nodes))
    if more is not None:  # the workers that are there are among those that may be
        heads = sum(fits(node) for node in nodes if HEAD in node)
        count = max(count, heads + more.room(fits))
    if count == 0:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        raise ResourceError(
            f"a trial asks for {asked}, but no node has that much (the nodes have: "
            f"{'; '.join(map(_has, nodes))}){_nor_added(more)}; "
            "lower --cpus-per-trial or --gpus-per-trial."
        )
    return min(count, _MOST_AT_ONCE)


def _has(node: Mapping[str, float]) -> str:
    return ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _nor_added(more: Growth | None) -> str:
    if more is None or not more.types:
        return ""
    types = [f"{t.name}: {_has(t.resources) if t.resources else 'not known'}" for t in more.types]
    return f", nor has any type that the autoscaler may add ({'; '.join(types)})"


def _times(node: Mapping[str, float], name: str, amount: float) -> int:
    """How often an amount of a resource fits on a node; a fraction of a GPU lies on one GPU."""
    there = node.get(name, 0.0)
    if name == "GPU" and amount < 1:
        return int(there) * int(1 / amount)
    return int(there / amount)
