"""Trying the packing on clusters: kinds of nodes, and GPUs that cannot be tried."""

import os
import time
import types

import pytest

from tests.tuning.marks import RAY_LEFTOVERS
from tests.tuning.ray_support import sweep_mapping
from tuning.cluster import Resources
from tuning.preflight.checks import Node
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.gpu_packing import Measured
from tuning.preflight.gpus import try_packing
from tuning.sweeps.sweep_file import parse_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    *RAY_LEFTOVERS,
]
GIB = 2**30


@pytest.fixture(scope="module")
def cluster():
    """A head without GPUs, two nodes with a large one and one with two small ones."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80_000_000}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False} | store,
    )
    ray.init(address=cluster.address, log_to_driver=False)
    for model, count in (("large", 1), ("large", 1), ("small", 2)):
        cluster.add_node(
            num_cpus=1, num_gpus=count, resources={f"accelerator_type:{model}": 1}, **store
        )
    cluster.wait_for_nodes()
    yield ray
    ray.shutdown()
    cluster.shutdown()


def nodes(ray) -> list[Node]:
    """The nodes, called by the model of their GPUs."""
    found = []
    for node in ray.nodes():
        models = [name for name in node["Resources"] if name.startswith("accelerator_type:")]
        name = models[0].partition(":")[2] if models else "head"
        found.append(Node(id=node["NodeID"], name=name, gpus=node["Resources"].get("GPU", 0)))
    assert sorted(node.name for node in found) == ["head", "large", "large", "small"]
    return found


@pytest.fixture
def demand(corpus, tiny_data):
    return Demand.of(parse_sweep(sweep_mapping(corpus, device="auto")).space, tiny_data)


def measure(configuration, data, gpus):
    """A trial takes 6.5 GiB, of which the small GPU has room for two."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    (resources,) = (n["Resources"] for n in ray.nodes() if n["NodeID"] == own)
    gib = 16 if "accelerator_type:small" in resources else 80
    return Measured(
        device=f"GPU of {gib} GiB", total=gib * GIB, free=gib * GIB, reserved=6 * GIB,
        context=GIB // 2,
    )  # fmt: skip


def test_one_node_of_each_kind_is_tried_and_the_smallest_decides(cluster, demand, tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()

    def noted(*arguments):
        (calls / str(os.getpid())).touch()
        return measure(*arguments)

    packing = try_packing(Resources(1, 0.25), nodes(cluster), demand, measure=noted)
    assert (packing.gpus, packing.problems) == (0.5, [])
    (note,) = packing.notes
    assert note.startswith("small: GPU of 16 GiB: the most demanding configuration takes 6.5 GiB")
    assert len(list(calls.iterdir())) == 2, "of the two large ones, one"
    large = [node for node in nodes(cluster) if node.name == "large"]
    assert try_packing(Resources(1, 0.25), large, demand, measure=measure).gpus == 0.25
    wait_for_gpus(cluster, 4)


def wait_for_gpus(ray, count):
    until = time.monotonic() + 60
    while ray.available_resources().get("GPU", 0) != count:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


def test_without_a_gpu_there_is_nothing_to_try(cluster, demand):
    head = [node for node in nodes(cluster) if node.name == "head"]
    packing = try_packing(Resources(1, 0.5), head, demand, measure=measure)
    assert (packing.gpus, packing.problems) == (0.5, [])
    assert packing.notes == [
        "no node with a GPU is there yet; whether the trials fit on a GPU is not tried, and one "
        "that does not will fail."
    ]


def small(ray) -> list[Node]:
    return [node for node in nodes(ray) if node.name == "small"]


def test_gpus_that_others_hold_are_not_tried(cluster, demand):
    both = cluster.remote(num_cpus=0, num_gpus=2, resources={"accelerator_type:small": 0.1})
    holder = both(types.SimpleNamespace).remote()
    wait_for_gpus(cluster, 2)
    try:
        packing = try_packing(
            Resources(1, 1), nodes(cluster), demand, measure=measure, place_seconds=20
        )
    finally:
        cluster.kill(holder)
    assert (packing.gpus, packing.problems) == (1, [])
    (note,) = packing.notes
    assert note.startswith("small: others hold its GPUs; whether the trials fit on a GPU is not")


def dies(*_):
    os._exit(1)


def raises(*_):
    raise ValueError("no such\nthing")


def hangs(*_):
    time.sleep(600)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (dies, "small: a GPU could not be tried: The actor died unexpectedly before finishing"),
        (raises, "small: a GPU could not be tried: ValueError: no such thing."),
        (hangs, "small: a GPU could not be tried: no answer comes; restart Ray there, or end it."),
    ],
)
def test_what_goes_wrong_is_said(cluster, demand, broken, said):
    began = time.monotonic()
    packing = try_packing(Resources(1, 1), small(cluster), demand, measure=broken, seconds=15)
    (problem,) = packing.problems
    assert problem.startswith(said)
    assert time.monotonic() - began < 90
