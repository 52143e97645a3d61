"""Ray's first autoscaler as a whole, on machines that are made up: what it starts, and where."""

import copy
import subprocess
import time
from unittest.mock import MagicMock

from ray.autoscaler._private.autoscaler import StandardAutoscaler
from ray.autoscaler._private.constants import AUTOSCALER_HEARTBEAT_TIMEOUT_S
from ray.autoscaler._private.load_metrics import LoadMetrics
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

HEAD = "10.0.0.1"


class Machines(NodeProvider):
    """A cloud whose machines are their addresses; the head is there from the start.

    Attributes:
        running: Address to tags.
        ended: Those that were ended, in order.
    """

    def __init__(self, provider_config=None, cluster_name="test"):
        super().__init__(provider_config or {}, cluster_name)
        head = {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: "head"}
        self.running = {HEAD: head}
        self.ended = []
        self._made = 1

    def non_terminated_nodes(self, tag_filters):
        return [a for a, tags in self.running.items() if tag_filters.items() <= tags.items()]

    def node_tags(self, node_id):
        return self.running[node_id]

    def set_node_tags(self, node_id, tags):
        self.running[node_id] = self.running[node_id] | tags

    def internal_ip(self, node_id):
        return node_id

    external_ip = internal_ip

    def is_running(self, node_id):
        return node_id in self.running

    def is_terminated(self, node_id):
        return node_id not in self.running

    def create_node(self, node_config, tags, count):
        for _ in range(count):
            self._made += 1
            self.running[f"10.0.0.{self._made}"] = dict(tags)

    def terminate_node(self, node_id):
        del self.running[node_id]
        self.ended.append(node_id)


class Shells:
    """Runs nothing on the machines, and remembers it.

    Attributes:
        ran: Every command that ``ssh`` or ``rsync`` was to run, by its last word.
        refused: A machine where a command with a certain word fails: ``(address, word)``.
    """

    def __init__(self):
        self.ran = []
        self.refused = None

    def check_call(self, words, *more, **options):
        self.ran.append(words[-1])
        if self.refused is not None:
            address, word = self.refused
            if word in words[-1] and any(each.endswith(f"@{address}") for each in words):
                raise subprocess.CalledProcessError(1, words)

    call = check_call

    def check_output(self, words, *more, **options):
        self.check_call(words)
        return b""


class Launcher:
    """The autoscaler and what it knows of the cluster.

    Args:
        config: A cluster file, prepared.
        provider: Machines, if they are not those of the file.
        key: A file to log in with.
    """

    def __init__(self, config, key, monkeypatch, provider=None):
        config = copy.deepcopy(config) | {"file_mounts": {}}
        key.write_text("")
        config["auth"]["ssh_private_key"] = str(key)
        if provider is not None:
            # As the launcher's file on the head has it, where the AWS file is of Ray's own kind.
            monkeypatch.setattr(
                "ray.autoscaler._private.autoscaler._get_node_provider", lambda *_: provider
            )
        self.shells, self.load = Shells(), LoadMetrics()
        self.autoscaler = StandardAutoscaler(
            lambda: copy.deepcopy(config),
            self.load,
            MagicMock(),
            "test",
            process_runner=self.shells,
            update_interval_s=0,
            max_failures=0,
        )
        self.provider = self.autoscaler.provider

    def report(self, address, *, free, waiting=()):
        """A node says what it has free, and the cluster what it waits for."""
        self.load.update(address, address.encode(), free, free, 0.0, list(waiting))

    def silence(self, address):
        """Nothing was heard of a node for longer than the autoscaler bears."""
        self.load.last_heartbeat_time_by_ip[address] -= AUTOSCALER_HEARTBEAT_TIMEOUT_S + 1

    def settle(self, rounds=6):
        """Lets it decide some times, each time until what it began has been done."""
        for _ in range(rounds):
            self.autoscaler.update()
            until = time.monotonic() + 30
            while self.autoscaler.pending_launches.value or any(
                updater.is_alive() for updater in self.autoscaler.updaters.values()
            ):
                assert time.monotonic() < until, "the autoscaler does not come to an end"
                time.sleep(0.01)

    def workers(self):
        """The machines that it holds, but for the head."""
        return self.provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"})
