"""What Ray is told: that a node of the cluster, the one on this machine, is to be drained."""

from __future__ import annotations

import socket
import time
from typing import Any

from tuning.preemption.metadata import Notice

_ANSWER_SECONDS = 10.0


class RayError(Exception):
    """The node is not found in the cluster, or Ray does not do what it is asked."""


class Cluster:
    """The Ray cluster that this machine is part of.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for the one that was started here last.
        node: Ray's id of the node, where several are on this machine.
    """

    def __init__(self, address: str = "auto", node: str | None = None) -> None:
        self.address, self._node = address, node
        self._client: Any = None

    def own_node(self) -> str:
        """The id of this machine's node.

        Raises:
            RayError: where Ray does not answer or has no such node, or more than one.
        """
        alive = self._alive()
        if self._node is not None:
            if self._node not in alive:
                raise RayError(f"node {self._node} is not alive in the cluster")
            return self._node
        ours = [node for node, address in alive.items() if _is_ours(address)]
        if len(ours) == 1:
            return ours[0]
        several = f"{len(ours)} nodes are on this machine: say --node-id"
        raise RayError(several if ours else "no node of the cluster has an address of this machine")

    def is_alive(self, node: str) -> bool:
        """Whether a node is in the cluster; so it counts where Ray does not answer."""
        try:
            return node in self._alive()
        except RayError:
            return True

    def drain(self, node: str, notice: Notice) -> None:
        """Lets Ray place nothing new on a node; Ray counts its end as a preemption from then on.

        Raises:
            RayError: where it does not.
        """
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((time.time() + notice.seconds) * 1000)  # Ray wants a time of day
        accepted, why = self._call(
            "drain_node", node, DRAIN_NODE_REASON_PREEMPTION, notice.what, deadline
        )
        if not accepted:
            raise RayError(f"Ray does not drain the node: {why}")

    def _alive(self) -> dict[str, str]:
        """The address of every node that is alive, by its id."""
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        nodes = self._call("get_all_node_info")
        return {
            node.node_id.hex(): node.node_manager_address
            for node in nodes.values()
            if node.state == GcsNodeInfo.ALIVE
        }

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            if self._client is None:
                from ray._private.services import canonicalize_bootstrap_address_or_die
                from ray._raylet import GcsClient  # type: ignore[attr-defined]

                address = canonicalize_bootstrap_address_or_die(self.address)
                self._client = GcsClient(address=address)
            return getattr(self._client, name)(*arguments, timeout=_ANSWER_SECONDS)
        except Exception as error:  # Ray's own kinds have no common base
            self._client = None
            raise RayError(f"Ray at {self.address} does not answer: {error}") from None


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine's: nobody else may listen at it."""
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
