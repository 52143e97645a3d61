"""What the AWS cluster file offers in its comments: S3 instead of NFS, and Docker."""

import re

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.files import AWS, MACHINE, PLACEHOLDER, ec2_problems, uncommented

TEXT = AWS.read_text(encoding="utf-8")
GIB = 1024**3


# Storage


def test_by_nfs_every_node_mounts_what_the_search_is_told(raw, prepared):
    mount = prepared["initialization_commands"][-1]  # for every type of node, outside a container
    assert f"{raw['provider']['region']}.amazonaws.com:/ /mnt/runs" in mount
    assert "--storage /mnt/runs" in TEXT
    types = prepared["available_node_types"].values()
    assert not any("initialization_commands" in node for node in types)


def test_for_s3_every_node_has_a_profile_and_mounts_nothing():
    changed = yaml.safe_load(uncommented(TEXT, "IamInstanceProfile"))
    del changed["initialization_commands"]
    config = prepare_config(changed)
    validate_config(config)
    assert "/mnt/runs" not in str(config)
    assert f"fs-{PLACEHOLDER}" not in str(config)
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"]
        for name, node in config["available_node_types"].items()
    }
    assert profiles == {
        "head": "dialogue-tune-head",
        "gpu-spot": "dialogue-tune-worker",
        "gpu-on-demand": "dialogue-tune-worker",
    }
    assert not ec2_problems(config)


def test_ray_keeps_the_heads_profile():
    from ray.autoscaler._private.aws.config import _configure_iam_role

    config = prepare_config(yaml.safe_load(uncommented(TEXT, "IamInstanceProfile")))
    before = yaml.safe_dump(config)
    _configure_iam_role(config)  # would ask AWS for a profile where there is none
    assert yaml.safe_dump(config) == before


# Docker


@pytest.fixture
def docker():
    return prepare_config(yaml.safe_load(uncommented(TEXT, "docker:")))


def test_with_docker_ray_accepts_it(docker, prepared):
    validate_config(docker)
    assert docker["docker"]["image"].endswith("/dialogue-tune:0.1.0")
    assert {**docker, "docker": {}} == {**prepared, "docker": {}}


@pytest.mark.parametrize("head", [True, False])
def test_a_container_has_the_shared_memory_that_ray_takes(docker, head, monkeypatch):
    """What Ray itself would run on the machine, of which only the SSH is replaced."""
    from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
    from ray.autoscaler._private.command_runner import DockerCommandRunner

    ran = []
    runner = DockerCommandRunner.__new__(DockerCommandRunner)
    runner.docker_config, runner.docker_cmd = docker["docker"], "docker"
    runner.container_name, runner.home_dir = "dialogue-tune", None
    runner.initialized = False

    class Machine:
        cluster_name, ssh_user = "dialogue-tune", "ubuntu"

        def run(self, command, **options):
            ran.append(command)
            return b'["HOME=/home/ray"]' if "Config.Env" in command else b""

    runner.ssh_command_runner = Machine()
    monkeypatch.setattr(runner, "_check_container_status", lambda: False)
    monkeypatch.setattr(runner, "_check_docker_installed", lambda: None)
    monkeypatch.setattr(runner, "_configure_runtime", lambda options: options)
    runner.run_init(as_head=head, file_mounts=docker["file_mounts"], sync_run_yet=True)

    command = next(command for command in ran if "docker run" in command)
    size = int(re.search(r"--shm-size=(\d+)g ", command)[1]) * GIB
    assert command.count("--shm-size") == 1
    memory = max(mib for _, _, mib in MACHINE.values()) * 1024**2
    assert memory * DEFAULT_OBJECT_STORE_MEMORY_PROPORTION < size <= memory / 2
    assert "--volume /mnt/runs:/mnt/runs" in command
    assert ("--gpus all" in command) is not head
    assert "/home/ray/.ray/auth_token" in command
