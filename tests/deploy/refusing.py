"""A cloud that has no spot machines; its others are processes on this one."""

import os

from ray.autoscaler._private.fake_multi_node import node_provider
from ray.autoscaler.node_launch_exception import NodeLaunchException

# Ray's fake nodes look for the head at a fixed port, where another cluster may be.
node_provider.build_address = lambda host, port: os.environ["REFUSING_HEAD"]


class NoSpot(node_provider.FakeMultiNodeProvider):
    """Ray's provider of fake nodes, which refuses every type on the spot market."""

    def create_node_with_resources_and_labels(self, config, tags, count, resources, labels):
        if tags["ray-user-node-type"].endswith("-spot"):
            raise NodeLaunchException("InsufficientInstanceCapacity", "none left", None)
        return super().create_node_with_resources_and_labels(config, tags, count, resources, labels)
