"""Asking the nodes of the Ray cluster that we are connected to, one by one and all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

K = TypeVar("K")


def name_of(node: Mapping[str, Any]) -> str:
    """What a node of `ray.nodes` is called, else its address."""
    return str(node["NodeName"] or node["NodeManagerAddress"])


def leaving() -> frozenset[str]:
    """Ids of the nodes that Ray places nothing new on: they are about to leave the cluster.

    Their cloud takes them back (see ``tuning.preemption``), or the autoscaler needs them no more.
    """
    from ray._private.state import state  # nothing public tells

    return frozenset(state.get_draining_nodes())


def on_node(node: str, work: Any, **options: Any) -> Any:
    """A function or a class as a task or an actor of Ray's for one node, and no other.

    Args:
        node: Ray's id of the node.
        work: It may import our packages, which `tuning.cluster.connected` ships.
        options: Of `ray.remote`; without any it takes none of what trials hold there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(**{"num_cpus": 0, "scheduling_strategy": there, **options})(work)


def answers(asked: Mapping[K, Any], wait: float) -> dict[K, Any]:
    """What each of several gives, or the error of Ray's it ends with; None for no answer in time.

    Args:
        asked: References to results.
        wait: Seconds that all together may take.
    """
    import ray

    references = list(asked.values())
    came, _ = ray.wait(references, num_returns=len(references), timeout=wait) if asked else ([], [])
    found: dict[K, Any] = dict.fromkeys(asked)
    for key, reference in asked.items():
        if reference in came:
            try:
                found[key] = ray.get(reference)
            except ray.exceptions.RayError as error:
                found[key] = error
    return found


def ask(asked: Mapping[K, Any], wait: float) -> dict[K, Any]:
    """The same of tasks; those that do not answer are ended."""
    import ray

    found = answers(asked, wait)
    for key, answer in found.items():
        if answer is None:
            ray.cancel(asked[key], force=True)
    return found


def last_line(error: Exception) -> str:
    """What an error of Ray's says in the end, which is what our code raised."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
