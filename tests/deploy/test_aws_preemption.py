"""A spot machine that AWS takes back: what the autoscaler does with it, and our commands there."""

import subprocess

import pytest

from tests.deploy.autoscaling import with_resources
from tests.deploy.launching import Launcher, Machines
from tests.tuning.metadata_server import MetadataServer

MACHINE = {"CPU": 4.0, "GPU": 1.0}
TRIAL = {"CPU": 1.0, "GPU": 0.5}
CHECK = "tuning.preemption --check"


@pytest.fixture
def launcher(prepared, tmp_path, monkeypatch):
    """With one worker, on which trials ran: it is drained, and free therefore."""
    config = with_resources(prepared, monkeypatch)
    launcher = Launcher(config, tmp_path / "key", monkeypatch, Machines())
    launcher.report("10.0.0.1", free={"CPU": 0.0}, waiting=[TRIAL])
    launcher.settle()
    assert launcher.workers() == ["10.0.0.2"]
    launcher.report("10.0.0.2", free=MACHINE, waiting=[TRIAL])
    launcher.shells.ran.clear()
    return launcher


def starts(launcher):
    return [command for command in launcher.shells.ran if "ray start" in command]


def test_while_it_is_left_nothing_else_is_started(launcher):
    """Ray's autoscaler counts what is free on a node that is drained, as docs/cluster.md says."""
    launcher.settle()
    assert launcher.workers() == ["10.0.0.2"]
    assert starts(launcher) == []


def test_once_it_has_been_left_another_machine_takes_its_place(launcher):
    launcher.shells.refused = ("10.0.0.2", CHECK)
    launcher.silence("10.0.0.2")
    launcher.settle()
    assert launcher.provider.ended == ["10.0.0.2"]
    assert launcher.workers() == ["10.0.0.3"]
    assert len(starts(launcher)) == 1  # on the new one


def test_where_nothing_refuses_it_ray_starts_there_again(launcher):
    """Why the check is needed; and what becomes of a machine where Ray alone has ended."""
    launcher.silence("10.0.0.2")
    launcher.settle()
    assert launcher.workers() == ["10.0.0.2"]
    assert len(starts(launcher)) == 1
    assert any(CHECK in command for command in launcher.shells.ran)


# The check by its own command


@pytest.fixture
def check(prepared, worker_home):
    stop, command, *_ = prepared["worker_start_ray_commands"]
    assert stop == "ray stop"

    def run(endpoint):
        environment = worker_home | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint}
        return subprocess.run(
            ["bash", "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_a_machine_that_is_taken_back_starts_nothing(check):
    with MetadataServer() as server:
        server.give_notice(60)
        answer = check(server.endpoint)
    assert answer.returncode == 1
    assert "the cloud is about to terminate the machine in " in answer.stderr
    assert answer.stderr.endswith(" s: start nothing here\n")


@pytest.mark.parametrize("kind", ["spot", "on-demand", "broken"])
def test_any_other_machine_starts(check, kind):
    with MetadataServer() as server:
        if kind == "on-demand":
            server.is_on_demand()
        if kind == "broken":
            server.token_status = 500
        answer = check(server.endpoint)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_so_does_one_without_the_service(check):
    with MetadataServer() as server:
        gone = server.endpoint
    assert check(gone).returncode == 0
