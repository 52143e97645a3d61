"""Ray's autoscalers on our cluster file, with a cloud that refuses what it is told to refuse."""

import copy
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import (
    NodeProviderAvailabilityTracker,
)
from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from tests.deploy.files import MACHINE

TRIAL = {"CPU": 1.0, "GPU": 0.5}


def described(instance_type: str) -> dict:
    """An instance type as EC2 describes it, as far as Ray reads that."""
    cpus, gpus, mib = MACHINE[instance_type]
    facts = {
        "InstanceType": instance_type,
        "VCpuInfo": {"DefaultVCpus": cpus},
        "MemoryInfo": {"SizeInMiB": mib},
    }
    if gpus:
        facts["GpuInfo"] = {"Gpus": [{"Name": "T4", "Manufacturer": "NVIDIA", "Count": gpus}]}
    return facts


def with_resources(config: dict, monkeypatch) -> dict:
    """The cluster file with what each machine has, as Ray fills it in, but without asking AWS."""
    monkeypatch.setattr(
        "ray.autoscaler._private.aws.node_provider.list_ec2_instances",
        lambda region, credentials: [described(name) for name in MACHINE],
    )
    return AWSNodeProvider.fillout_available_node_types_resources(config)


class Nodes(NodeProvider):
    """The nodes that run: identifier to type."""

    def __init__(self):
        self.nodes = {"head": "head"}

    def node_tags(self, node_id):
        kind = "head" if node_id == "head" else "worker"
        return {TAG_RAY_NODE_KIND: kind, TAG_RAY_USER_NODE_TYPE: self.nodes[node_id]}

    def internal_ip(self, node_id):
        return node_id


class Ec2:
    """EC2, as far as Ray asks it for machines.

    Attributes:
        refuses: Whether it has spot machines.
        asked: The market of every request, in order.
    """

    def __init__(self):
        self.refuses = False
        self.asked = []

    def create_instances(self, **request):
        from botocore.exceptions import ClientError

        spot = "InstanceMarketOptions" in request
        self.asked.append("spot" if spot else "on demand")
        if spot and self.refuses:
            code = "InsufficientInstanceCapacity"
            raise ClientError({"Error": {"Code": code, "Message": "none left"}}, "RunInstances")
        names = [f"i-{len(self.asked)}-{number}" for number in range(request["MaxCount"])]
        pending = {"state": {"Name": "pending"}, "state_reason": None}
        return [SimpleNamespace(id=name, instance_id=name, **pending) for name in names]


class FirstAutoscaler:
    """Ray's first autoscaler: its choice of types, and its launching by its AWS provider."""

    def __init__(self, config: dict):
        self.config = copy.deepcopy(config)
        self.ec2 = Ec2()
        self.now = time.time()
        self.nodes = Nodes()
        for node in self.config["available_node_types"].values():
            node["node_config"]["SubnetIds"] = ["subnet-a", "subnet-b"]
        self.scheduler = ResourceDemandScheduler(
            self.nodes,
            self.config["available_node_types"],
            self.config["max_workers"],
            self.config["head_node_type"],
            self.config["upscaling_speed"],
        )
        self.tracker = NodeProviderAvailabilityTracker(timer=lambda: self.now)
        aws = AWSNodeProvider.__new__(AWSNodeProvider)
        aws.cluster_name, aws.provider_config = "test", {}
        aws.cache_stopped_nodes, aws.ec2_fail_fast = False, self.ec2
        self.launcher = BaseNodeLauncher(
            aws, MagicMock(), MagicMock(), self.tracker, prom_metrics=MagicMock()
        )

    def step(self, waiting: int, *, free: bool = False) -> dict[str, int]:
        """One round: chooses for the trials that wait, and launches.

        Args:
            waiting: How many trials wait.
            free: Whether the workers that run have nothing to do.

        Returns:
            How many workers of each type it wanted.
        """
        types = self.config["available_node_types"]
        unused = {node: types[kind]["resources"] if free else {} for node, kind in self.running()}
        wanted, _ = self.scheduler.get_nodes_to_launch(
            list(self.nodes.nodes),
            {},
            [TRIAL] * waiting,
            unused,
            [],
            {},
            [],
            self.tracker.summary(),
        )
        for node_type, count in wanted.items():
            for node in self.launcher.launch_node(self.config, count, node_type) or {}:
                self.nodes.nodes[node] = node_type
        return wanted

    def running(self) -> list[tuple[str, str]]:
        """The workers that run, each with its type."""
        return [(node, kind) for node, kind in self.nodes.nodes.items() if kind != "head"]


def asked_by_second_autoscaler(config: dict, rounds: int) -> list[str]:
    """The types that Ray's second autoscaler asks for, one after the other, all being refused."""
    from ray.autoscaler.v2.instance_manager import instance_manager, instance_storage, storage
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.instance_manager.node_provider import CloudInstance, LaunchNodeError
    from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
        CloudResourceMonitor,
    )
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler as Scheduler
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated import autoscaler_pb2 as messages
    from ray.core.generated.instance_manager_pb2 import Instance, NodeKind

    monitor = CloudResourceMonitor()
    instances = instance_storage.InstanceStorage("test", storage.InMemoryStorage())
    manager = instance_manager.InstanceManager(instances, [monitor])
    head = CloudInstance("head", "head", NodeKind.HEAD, True)
    node = messages.NodeState(
        node_id=b"h" * 28,
        instance_id="head",
        ray_node_type_name="head",
        status=messages.NodeStatus.RUNNING,
        total_resources={"node:__internal_head__": 1},
    )
    waiting = messages.ResourceRequestByCount(request=ResourceRequestUtil.make(TRIAL), count=2)
    state = messages.ClusterResourceState(
        cluster_resource_state_version=1, node_states=[node], pending_resource_requests=[waiting]
    )
    asked, errors = [], []
    for _ in range(rounds):
        Reconciler.reconcile(
            manager,
            Scheduler(MagicMock()),
            MagicMock(),
            monitor,
            state,
            {"head": head},
            AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True),
            cloud_provider_errors=errors,
        )
        requested = instances.get_instances(status_filter={Instance.REQUESTED})[0].values()
        asked += [instance.instance_type for instance in requested]
        errors = [
            LaunchNodeError(one.instance_type, 1, one.launch_request_id, time.time_ns())
            for one in requested
        ]
    return asked
