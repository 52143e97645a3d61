"""Tries the most demanding configuration on one GPU of each kind, before trials share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuning.cluster import Resources
from tuning.nodes import answers, on_node
from tuning.preflight.checks import Node
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.gpu_packing import Measured, Packing, judge
from tuning.preflight.gpu_probe import SECONDS
from tuning.preflight.gpu_probe import measure as measure_there

#: How long a GPU may take to be ours: trials of the driver before us may still be ending there.
PLACE_SECONDS = 60.0
#: Ray names the model of a node's GPUs in a resource, and a cluster file the node's group.
_MODEL, _GROUP = "accelerator_type:", "ray.io/node-group"
_NOT_TRIED = "whether the trials fit on a GPU is not tried, and one that does not will fail."

#: Measures a configuration on data, with what a trial is to hold of a GPU; runs on the node.
Measure = Callable[[dict[str, Any], np.ndarray, float], Measured]


class Prober:
    """A process that holds what a trial holds of a GPU; an actor of Ray."""

    def ready(self) -> bool:
        """Answers once the GPU is there."""
        return True

    def measure(
        self, measure: Measure, configuration: dict[str, Any], data: np.ndarray, gpus: float
    ) -> Measured:
        """Runs it."""
        return measure(configuration, data, gpus)


def try_packing(
    resources: Resources,
    nodes: Sequence[Node],
    demand: Demand,
    *,
    measure: Measure = measure_there,
    place_seconds: float = PLACE_SECONDS,
    seconds: float = 2 * SECONDS + 30,
) -> Packing:
    """Finds out how many trials can share a GPU.

    Args:
        resources: Of one trial.
        nodes: That may run trials; of each kind that has GPUs one is tried.
        demand: The most demanding configuration, and its data.
        measure: What is run there.
        place_seconds: How long Ray may take to give us a GPU on each.
        seconds: How long measuring may take.
    """
    import ray

    chosen = {
        node: on_node(node.id, Prober, num_gpus=resources.gpus).remote()
        for node in _one_of_each_kind(nodes)
    }
    if not chosen:
        return Packing(resources.gpus, notes=[f"no node with a GPU is there yet; {_NOT_TRIED}"])
    try:
        ready = answers({n: p.ready.remote() for n, p in chosen.items()}, place_seconds)
        late = [node for node, answer in ready.items() if answer is None]
        busy = _busy(late, resources.gpus)
        data = ray.put(np.frombuffer(demand.data.as_bytes(), dtype=np.uint8))
        work = (measure, demand.configuration, data, resources.gpus)
        asked = {n: p.measure.remote(*work) for n, p in chosen.items() if n not in late}
        measured = answers(asked, seconds) | {n: None for n in late if n not in busy}
    finally:
        for prober in chosen.values():
            ray.kill(prober)
    found = {node.name: _measured(answer) for node, answer in measured.items()}
    packing = judge(resources.gpus, found, str(demand))
    packing.notes += [f"{node.name}: others hold its GPUs; {_NOT_TRIED}" for node in busy]
    return packing


def _measured(answer: Any) -> Measured:
    """What was measured, or why nothing was."""
    if isinstance(answer, Measured):
        return answer
    if answer is None:
        return Measured(problem="no answer comes; restart Ray there, or end it")
    return Measured(problem=_line_of(answer))


def _line_of(error: Exception) -> str:
    """What an error of Ray says in one line: what our code raised, or what became of it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return " ".join(f"{type(cause).__name__}: {cause}".split()).removesuffix(".")
    return str(error).strip().splitlines()[0].removesuffix(".")


def _one_of_each_kind(nodes: Sequence[Node]) -> list[Node]:
    """Of the nodes with GPUs, one for each model, group and number; the idlest."""
    import ray

    known = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    idle = _idle_gpus()
    kinds: dict[Any, Node] = {}
    for node in sorted(nodes, key=lambda each: -idle.get(each.id, 0.0)):
        if node.gpus > 0 and node.id in known:
            facts = known[node.id]
            models = sorted(name for name in facts["Resources"] if name.startswith(_MODEL))
            kinds.setdefault((*models, facts["Labels"].get(_GROUP), node.gpus), node)
    return sorted(kinds.values(), key=lambda each: each.name)


def _idle_gpus() -> dict[str, float]:
    """GPUs that nobody holds, by the id of their node."""
    import ray

    there = ray._private.state.available_resources_per_node()
    return {node: float(each.get("GPU", 0.0)) for node, each in there.items()}


def _busy(late: Sequence[Node], gpus: float) -> set[Node]:
    """Nodes that gave us no GPU because others hold them, not because they hang."""
    idle = _idle_gpus() if late else {}
    return {node for node in late if idle.get(node.id, 0.0) < gpus}
