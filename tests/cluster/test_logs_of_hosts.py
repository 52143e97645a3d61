"""`python -m tuning logs --address`: from the host where the worker ran, and of a lost one."""

import json
import sys

import pytest

from tests.cluster.hosts import ROOT, Hosts
from tests.tuning.ray_support import finish, sweep_mapping, write_corpus
from tuning.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]


def tuning(hosts, *words):
    """What a command prints on the head, output and errors, and its exit status."""
    process = hosts.run(0, [sys.executable, "-m", "tuning", *words], cwd=ROOT)
    said = finish(process)
    return said, process.returncode


@pytest.mark.long
def test_the_log_comes_from_the_host_that_has_it(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(
        json.dumps(sweep_mapping(write_corpus(tmp_path), iterations=600, report_every=100))
    )
    options = ("--storage", tmp_path / "runs")
    with Hosts(2) as hosts:
        hosts.start_head()
        hosts.start_workers()
        cluster = (*options, "--address", hosts.address)
        said, status = tuning(
            hosts, "run", file, "--trials", 2, "--name", "one", "--wandb", "disabled", *cluster
        )
        assert status == 0, said
        rows = read_journal(tmp_path / "runs" / "one" / "journal").rows
        place = next(row.worker for row in rows if row.trial == 0 and row.worker).partition(":")[0]
        host = next(each for each in (1, 2) if hosts.ip(each) == place)

        # The namespaces share their files: only a task on the host knows its --temp-dir.
        said, status = tuning(hosts, "logs", "one", 0, *options)
        assert status == 1, said
        assert f"it ran on {place}. To read it on the nodes of a cluster" in said
        said, status = tuning(hosts, "logs", "one", 0, *cluster)
        assert status == 0, said
        assert f"attempt 1 on {place}:" in said
        assert f"\nnode {place}: {hosts.temporary(host)}/session_" in said
        assert said.count("/worker-") == 2
        assert ".out\n(nothing)" in said

        hosts.kill(host)
        hosts.wait_alive([0, 3 - host], 60)
        said, status = tuning(hosts, "logs", "one", 0, *cluster)
        assert status == 1, said
        assert f"attempt 1 on {place}:" in said
        assert f"node {place}: has left the cluster (" in said
