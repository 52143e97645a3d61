"""Ray: starting it or connecting to it, shipping our code, and asking what it has."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ResourceError
from model.wording import plural
from tuning.authentication import check_authentication, has_token
from tuning.local_ray import here, private_options
from tuning.nodes import leaving
from tuning.shipping import package

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
    # Else Ray Tune would restart preempted trials itself: from their beginning, unknown to us.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
}
_ANSWER_SECONDS = 10.0
#: Made here, for the Ray that a search starts.
_own_tokens: set[str] = set()
#: By this Ray tells the driver of a job what it was sent with.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
#: An autoscaler may know no limit.
MOST_AT_ONCE = 1000


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
        _own_tokens.add(os.environ["RAY_AUTH_TOKEN"])
    elif address is not None and os.environ.get("RAY_AUTH_TOKEN") in _own_tokens:
        raise ResourceError(
            f"--address {address}: this process has used a Ray of its own before, and Ray keeps "
            "its token until the process ends; start a new one (in a notebook: restart the kernel)."
        )
    if address is not None and has_token():  # Ray sends it of itself only where the address is auto
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():  # a notebook's or a test's cluster: use it, and leave it as it is
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, **private_options()}
    else:
        _check_answers(address)
        if (warning := check_authentication(address)) is not None:
            print(f"warning: {warning}", file=sys.stderr)
        options["address"] = address
    try:
        with here() if address is None else _shipping(options):
            ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(_refusal(address, error)) from None
    try:
        with _silence():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what Ray says of its own processes off the terminal, where the live view is.

    `log_to_driver` is about what workers print; messages like "(raylet) A worker died ..." have
    no option. What they mean for a trial the search says itself; Ray's logs have all of them.
    """
    from ray._private import worker

    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


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
    if address.startswith(("http://", "https://")):
        raise ResourceError(
            f"--address {address}: is a dashboard's, for 'python -m tuning submit' and the like; "
            "the cluster itself is 'auto' on one of its machines, or HOST:6379."
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


@contextmanager
def _shipping(options: dict[str, Any]) -> Iterator[None]:
    """Lets `ray.init` send our code to the workers, without data, experiments or secrets.

    It is their working directory. Without one, Ray would have them import from the driver's current
    directory first: from whatever lies there on their own machine.
    """
    environment: dict[str, Any] = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
    options["runtime_env"] = environment
    if _job_has_working_directory():  # with the same code; Ray takes no second one
        yield
        return
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "code.zip"
        file.write_bytes(package({}))
        environment["working_dir"] = str(file)
        yield


def _job_has_working_directory() -> bool:
    """Whether we are the driver of a job of Ray's that was sent with one."""
    job = json.loads(os.environ.get(JOB_VARIABLE, "{}"))
    return "working_dir" in (job.get("runtime_env") or {})


def fitting(
    resources: Resources, more: Growth | None, without: Collection[str] = frozenset()
) -> int:
    """How many trials the cluster can run at once, with all the nodes that may be added to it.

    Nodes that are about to leave it do not count. Ray Tune asks for the place of every trial that
    is out, which makes the autoscaler add nodes.

    Args:
        resources: Of one trial.
        more: What may be added, see `tuning.preflight.node_types.growth`; None for nothing.
        without: Ids of nodes that do not count.

    Raises:
        ResourceError: where one trial alone is more than any node has, said at once instead of
            waiting for ever.
    """
    import ray

    from tuning.preflight.node_types import HEAD

    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in without]
    gone = leaving()
    nodes = [node["Resources"] for node in alive if node["NodeID"] not in gone]
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
            f"{'; '.join(map(_has, nodes)) or 'nothing'}{_but_for(len(alive) - len(nodes))})"
            f"{_nor_added(more)}; "
            "lower --cpus-per-trial or --gpus-per-trial."
        )
    return min(count, MOST_AT_ONCE)


def _has(node: Mapping[str, float]) -> str:
    return ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _but_for(leaving: int) -> str:
    return f", but for {plural(leaving, 'node')} about to leave" if leaving else ""


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
