"""The head of a cluster goes away in the middle of a search, and is started anew."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks import lost_hosts
from tests.cluster.hosts import Hosts
from tests.tuning.ray_support import ROOT, finish, wait_for_reports

TRIALS = 4
#: ``python -m tuning`` on the node of an address. Ray lets a driver join a node of its machine, and
#: where there are several, the head: hosts in namespaces share their machine's processes.
_ON_NODE = """
import functools, sys, ray
ray.init = functools.partial(ray.init, _node_ip_address=sys.argv.pop(1))
from model.cli import run_main
from tuning.__main__ import main
sys.exit(run_main(main))
"""
#: Seconds after which Ray's processes end without a head; by default 60. We come before.
RAYS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "40"}


@pytest.fixture
def directory(tmp_path):
    """With a sweep, and the search in peace."""
    sweep = lost_hosts.write_search(tmp_path, iterations=300, report_every=20)
    lost_hosts._run_in_peace(tmp_path, sweep, TRIALS)
    return tmp_path


def tuning(hosts, host, directory, *arguments):
    where = ("--storage", directory / "runs", "--address", hosts.address)
    command = ["-c", _ON_NODE, hosts.ip(host), *arguments]
    return hosts.run(host, [sys.executable, *command, *where], cwd=ROOT)


def start(hosts, host, directory):
    """The search with its driver on a host, once it has finished a trial."""
    asked = ("--trials", TRIALS, "--seed", lost_hosts._SEARCH_SEED, "--wandb", "disabled")
    search = tuning(
        hosts, host, directory, "run", directory / "sweep.yaml", "--name", "one", *asked
    )
    wait_for_reports(directory / "runs" / "one", 20, search)
    return search


def start_again(hosts):
    """The head and both workers, of which nothing is left."""
    for host in range(3):
        hosts.kill(host)
    hosts.start_head()
    hosts.start_workers()


def finish_and_check(hosts, directory):
    resumed = tuning(hosts, 0, directory, "resume", "one")
    output = finish(resumed, 200)
    assert resumed.returncode == 0, output
    lost_hosts.check_search(directory / "runs" / "one", directory / "runs" / "quiet", TRIALS)


def gcs(hosts):
    """The process of the head that Ray calls GCS."""
    (found,) = [
        pid
        for pid in hosts.processes(0)
        if b"/gcs_server\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_the_heads_service_dies_and_a_driver_beside_it_ends(directory):
    with Hosts(2, RAYS) as hosts:
        hosts.start_head()
        hosts.start_workers()
        search = start(hosts, 0, directory)
        began = time.monotonic()
        os.kill(gcs(hosts), signal.SIGKILL)
        output = finish(search, 60)
        seconds = time.monotonic() - began
        assert search.returncode == 2, output
        assert 28 < seconds < 45, output
        path = directory / "runs" / "one"
        assert "the cluster's head does not answer; waiting for another" in output
        assert "error: the cluster's head has not answered for 3" in output
        assert f"error: everything is kept in {path}; with a head again, go on: " in output
        assert "Traceback" not in output
        start_again(hosts)
        finish_and_check(hosts, directory)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.long
def test_the_head_is_started_anew_and_a_driver_elsewhere_ends(directory):
    with Hosts(2, RAYS) as hosts:
        hosts.start_head()
        hosts.start_workers()
        search = start(hosts, 1, directory)
        hosts.kill(0)
        # Ray would see the workers' processes, and take them for those of a head that runs.
        (hosts.temporary(0) / "ray_current_cluster").unlink()
        hosts.start_head()
        began = time.monotonic()
        output = finish(search, 60)
        assert time.monotonic() - began < 45, output
        assert search.returncode == 2, output
        assert "error: the cluster's head was started anew, and does not know" in output
        assert "error: everything is kept in" in output
        assert "Traceback" not in output
        start_again(hosts)
        finish_and_check(hosts, directory)
