"""Nodes that the cloud takes back in the middle of a search, with real processes."""

import os
import socket
import subprocess
import sys
import time

import pytest
import yaml

from model.errors import ResourceError
from tests.tuning.metadata_server import MetadataServer
from tests.tuning.ray_support import (
    ROOT,
    check_best_weights,
    check_resumed,
    command,
    finish,
    sweep_mapping,
    wait_for_reports,
    write_corpus,
)
from tuning.cluster import Resources, connected, fitting
from tuning.journal import read_journal
from tuning.journal.row import PREEMPTED
from tuning.nodes import leaving, on_node
from tuning.preflight.needs import Needs
from tuning.preflight.preflight import preflight

#: No token: a Ray on this machine, which the test ends.
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
TRIALS = 2


@pytest.fixture
def cluster(monkeypatch):
    """A head without trials."""
    for name, value in OPEN.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    with socket.socket() as free:  # where its usual one is taken, Ray leaves a socket open
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


class Agent:
    """``python -m tuning watch-preemption`` for a node, as a process; its words in a file."""

    def __init__(self, cluster, node, server, directory, *options):
        self.file = directory / "agent.log"
        with self.file.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tuning", "watch-preemption"),
                    *("--address", cluster.address, "--node-id", node.node_id, *options),
                ],
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint},
            )

    def wait_for(self, text, seconds=60):
        until = time.monotonic() + seconds
        while text not in self.file.read_text():
            assert time.monotonic() < until, self.file.read_text()
            assert self.process.poll() in (None, 0), self.file.read_text()
            time.sleep(0.1)


def rows_of(path, kind):
    return [row for row in read_journal(path / "journal").rows if row.kind == kind]


def wait_until(what, true, process, seconds=120):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what}: not in {seconds} s"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def alive(cluster):
    """The nodes that the cluster takes for alive."""
    from ray._raylet import GcsClient
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    nodes = GcsClient(address=cluster.address).get_all_node_info(timeout=10).values()
    return {node.node_id.hex() for node in nodes if node.state == GcsNodeInfo.ALIVE}


def worker_on(node):
    """The processes of a node's raylet."""
    (raylet,) = node.all_processes["raylet"]
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(raylet.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(pid) for pid in listed.stdout.split()}


def pid_of(row):
    return int(row.worker.rsplit(":", 1)[1])


def start(cluster, tmp_path, **fields):
    """A search of two trials that writes no checkpoint by itself, given up at one failure."""
    sweep = sweep_mapping(write_corpus(tmp_path), checkpoint_every=10_000, **fields)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return command(
        *("run", tmp_path / "sweep.yaml", "--name", "one", "--storage", tmp_path / "runs"),
        *(
            "--trials",
            TRIALS,
            "--wandb",
            "disabled",
            "--max-failures",
            1,
            "--address",
            cluster.address,
        ),
        env=OPEN,
    )


def check(path):
    from analysis import Results

    results = Results.open(path)
    states, reasons = list(results.trials["state"]), list(results.trials["reason"])
    assert states == ["finished"] * TRIALS, reasons
    check_resumed(results)
    check_best_weights(results)
    return results


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_trials_leave_a_node_at_its_notice_and_go_on_elsewhere(cluster, tmp_path):
    taken, kept = add_node(cluster), add_node(cluster)
    path = tmp_path / "runs" / "one"
    with MetadataServer() as server:
        agent = Agent(cluster, taken, server, tmp_path)
        search = start(cluster, tmp_path, iterations=2000, report_every=50)
        wait_for_reports(path, 6, search)
        agent.wait_for("waiting for a notice of its end")
        there = {pid_of(row) for row in rows_of(path, "report")} & worker_on(taken)
        assert len(there) == 1
        server.give_notice(60)
        wait_until("the trial left", lambda: rows_of(path, "failed"), search)
        assert agent.process.wait(60) == 0
        # Without trials it leaves the cluster by itself; the machine is ended only then.
        wait_until("the node left", lambda: taken.node_id not in alive(cluster), search, 60)
        cluster.remove_node(taken, allow_graceful=False)
    output = finish(search, 300)
    assert search.returncode == 0, output
    results = check(path)

    (failed,) = rows_of(path, "failed")
    assert (failed.reason, failed.state, failed.attempt) == (PREEMPTED, "running", 1)
    ours = [row for row in rows_of(path, "report") if row.trial == failed.trial]
    last = max(row.iteration for row in ours if row.attempt == 1)
    first = next(row for row in ours if row.attempt == 2)
    assert first.iteration == last == failed.iteration  # its checkpoint, and nothing before it
    later = [row for row in rows_of(path, "report") if row.seq > failed.seq]
    assert not {pid_of(row) for row in later} & there
    assert f"trial {failed.trial}: {PREEMPTED}; it goes on elsewhere" in output
    shown = results.trials.loc[failed.trial]
    assert (shown["attempts"], shown["reason"]) == (2, PREEMPTED)
    assert kept.node_id


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_drained_node_that_dies_before_its_next_report_is_no_failure(cluster, tmp_path):
    """As where Ray itself is told to end: it drains the node, and no agent has left a mark.

    Ray Tune would start such a trial again on its own, from its beginning.
    """
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    taken, _ = add_node(cluster), add_node(cluster)
    path = tmp_path / "runs" / "one"
    search = start(cluster, tmp_path, iterations=1000, report_every=50)
    wait_for_reports(path, 6, search)
    there = {pid_of(row) for row in rows_of(path, "report")} & worker_on(taken)
    until = int((time.time() + 60) * 1000)
    GcsClient(address=cluster.address).drain_node(
        taken.node_id, DRAIN_NODE_REASON_PREEMPTION, "SIGTERM", until
    )
    cluster.remove_node(taken, allow_graceful=False)
    output = finish(search, 300)
    assert search.returncode == 0, output
    check(path)

    (failed,) = rows_of(path, "failed")
    assert (failed.reason, failed.state, failed.attempt) == (PREEMPTED, "running", 1)
    (trial,) = {row.trial for row in rows_of(path, "report") if pid_of(row) in there}
    assert failed.trial == trial
    (restarted,) = rows_of(path, "restarted")
    assert (restarted.trial, restarted.attempt) == (trial, 2)


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_is_about_to_leave_is_no_room_for_trials(cluster, tmp_path):
    """It stays as long as something runs there; nothing new would be placed on it."""
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    def drain(node):
        until = int((time.time() + 60) * 1000)
        client = GcsClient(address=cluster.address)
        assert client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "on purpose", until)[0]

    def busy(node):
        """Something runs there, so that it stays."""
        begun = tmp_path / node

        def work():
            begun.touch()
            time.sleep(60)

        reference = on_node(node, work, num_cpus=0.5).remote()
        until = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        return reference

    taken, kept = (add_node(cluster).node_id for _ in range(2))
    one, notes = Resources(1, 0), []
    with connected(cluster.address):
        references = [busy(node) for node in (taken, kept)]
        assert (fitting(one, None), leaving()) == (2, frozenset())
        drain(taken)
        assert taken in alive(cluster)
        assert (fitting(one, None), leaving()) == (1, {taken})
        room = preflight(one, tmp_path, cluster.address, Needs(data=10**6), say=notes.append)
        assert room.trials == 1
        assert len(notes) == 1 and notes[0].startswith("node ")
        assert notes[0].endswith(": is about to leave the cluster; the search begins without it.")
        drain(kept)
        with pytest.raises(ResourceError) as raised:
            fitting(one, None)
        assert str(raised.value) == (
            "a trial asks for 1 CPU, but no node has that much (the nodes have: 0 CPU, 0 GPU, but "
            "for 2 nodes about to leave); lower --cpus-per-trial or --gpus-per-trial."
        )
        for reference in references:
            ray.cancel(reference, force=True)
