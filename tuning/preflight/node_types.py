"""The nodes that Ray's autoscaler may add, read where it reads them itself: on the head.

Neither of Ray's autoscalers publishes its types of nodes to the cluster. A cluster of ``ray up``
has them in a file, whose name is in the command line of the autoscaler's process; one of KubeRay
has them in the cluster's own resource, which the head may read from Kubernetes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Ray gives every head this resource.
HEAD = "node:__internal_head__"
_SECONDS = 15.0
_OPTION = "--autoscaling-config="
_ADDRESS = "--gcs-address="


@dataclass(frozen=True)
class NodeType:
    """A type of node that the autoscaler may add.

    Attributes:
        name: As the cluster's file calls it.
        resources: What a node has, by Ray's names; empty where only the node itself will tell.
        most: How many there may be.
    """

    name: str
    resources: dict[str, float]
    most: int


@dataclass(frozen=True)
class Growth:
    """What the autoscaler may bring a cluster to, beside its head.

    Attributes:
        types: Every type of worker.
        most: How many workers there may be, over all types.
        problem: Why that is not known, where there is an autoscaler.
    """

    types: tuple[NodeType, ...] = ()
    most: int = 0
    problem: str | None = None

    def room(self, fits: Callable[[Mapping[str, float]], int]) -> int:
        """How many trials the workers would hold, if all came that may.

        Args:
            fits: How many trials a node with these resources holds.
        """
        left, count = self.most, 0
        for each in sorted(self.types, key=lambda t: fits(t.resources), reverse=True):
            nodes = min(each.most, left)
            left -= nodes
            count += nodes * fits(each.resources)
        return count


def growth() -> Growth | None:
    """What may be added to the cluster that we are connected to; None without an autoscaler."""
    import ray

    context = ray.get_runtime_context()
    nodes = [node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    if not nodes:
        return None
    head, address = nodes[0]["NodeID"], context.gcs_address
    if head == context.get_node_id():
        return read_growth(address)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(head, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(read_growth)
    reference = task.remote(address)
    try:
        found: Growth | None = ray.get(reference, timeout=_SECONDS)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return Growth(problem=f"the head did not say within {_SECONDS:g} s")
    except ray.exceptions.RayError as error:
        return Growth(problem=f"the head could not be asked: {str(error).splitlines()[-1]}")
    return found


def read_growth(address: str) -> Growth | None:
    """Reads it on the head of the cluster with an address."""
    try:
        file = _file_of(address)
        config = _from_file(file) if file is not None else _from_kubernetes()
        return None if config is None else _parse(config)
    except Exception as error:  # a file or an answer of others, in whatever state
        return Growth(problem=" ".join(f"{type(error).__name__}: {error}".split()))


def _file_of(address: str) -> Path | None:
    """The file that the autoscaler of a cluster was started with, from its command line."""
    port = address.rpartition(":")[2]  # a host has several names, but one cluster a port
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # processes end, and some are others'
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            gcs = [word for word in words if word.startswith(_ADDRESS)]
            files = [word.removeprefix(_OPTION) for word in words if word.startswith(_OPTION)]
            if gcs and files and gcs[-1].rpartition(":")[2] == port:
                return Path(files[-1]).expanduser()
    return None


def _from_file(file: Path) -> dict[str, Any]:
    import yaml

    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return config


def _from_kubernetes() -> dict[str, Any] | None:
    """The configuration of KubeRay's autoscaler; None outside of it, or where it is off."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return None
    import requests  # Ray's own client of Kubernetes has it too
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    account = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    namespace = os.environ.get("RAY_CLUSTER_NAMESPACE") or account.read_text(encoding="utf-8")
    try:
        cluster = KubernetesHttpApiClient(namespace.strip()).get(f"rayclusters/{name}")
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code == requests.codes.forbidden:
            return None  # KubeRay lets the head read it where there is an autoscaler
        raise
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return None
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)
    return config


def _parse(config: Mapping[str, Any]) -> Growth:
    """Reads what both autoscalers read, with their defaults."""
    most, head = int(config["max_workers"]), config["head_node_type"]
    types = []
    for name, each in config["available_node_types"].items():
        limit = each.get("max_workers", 0 if name == head else most)
        if limit > 0:
            resources = {n: float(v) for n, v in (each.get("resources") or {}).items()}
            types.append(NodeType(name, resources, min(int(limit), most)))
    return Growth(tuple(types), most)
