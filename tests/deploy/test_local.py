"""The cluster file for machines of one's own: Ray's schema and code, and the same as on AWS."""

import subprocess
from unittest.mock import MagicMock

import pytest
from click import ClickException
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.files import (
    AWS,
    COMMANDS,
    LOCAL,
    PLACEHOLDER,
    START,
    load,
    prepared,
    secrets_in,
    unpinned,
)

TEXT = LOCAL.read_text(encoding="utf-8")
TYPE = "local.cluster.node"  # Ray's name for all machines of such a cluster


@pytest.fixture
def config():
    return prepared(LOCAL)


def test_ray_accepts_it(config):
    validate_config(config)


def without_a_head(config):
    del config["provider"]["head_ip"]


def with_types(config):
    config["available_node_types"] = {"gpu": {"resources": {}, "node_config": {}}}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (without_a_head, "Please supply a `head_ip` and list of `worker_ips`"),
        (with_types, "available_node_types is not supported for on-premise clusters"),
    ],
)
def test_ray_refuses_a_broken_copy(damage, problem, capsys):
    config = load(LOCAL)
    damage(config)
    with pytest.raises(ClickException):
        prepare_config(config)
    assert problem in "".join(capsys.readouterr())


def test_every_machine_that_is_listed_is_started_and_kept(config):
    machines = len(load(LOCAL)["provider"]["worker_ips"])
    assert machines == 2
    assert config["available_node_types"][TYPE]["min_workers"] == machines
    assert config["max_workers"] == machines


def test_rays_autoscaler_starts_all_of_them(config, tmp_path):
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest

    key = tmp_path / "key"  # Ray reads it, to see whether it changed
    key.write_text("")
    config["auth"]["ssh_private_key"] = str(key)
    autoscaling = AutoscalingConfig(config, skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=autoscaling.get_node_type_configs(),
        max_num_nodes=autoscaling.get_max_num_nodes(),
    )
    launched = ResourceDemandScheduler(MagicMock()).schedule(request).to_launch
    assert [(one.instance_type, one.count) for one in launched] == [(TYPE, 2)]


def test_the_head_runs_no_trials(config):
    command = config["head_start_ray_commands"][-1]
    assert "--num-cpus=0 --num-gpus=0" in command
    assert "--num" not in config["worker_start_ray_commands"][-1]


def test_the_commands_start_ray_as_on_aws(config):
    ours = {key: load(AWS)[key] for key in START}
    workers = [one for one in ours["worker_start_ray_commands"] if "preemption" not in one]
    assert config["worker_start_ray_commands"] == workers
    head = config["head_start_ray_commands"][-1].replace(" --num-cpus=0 --num-gpus=0", "")
    fallback = " RAY_enable_autoscaler_v2=0 RAY_AUTOSCALER_UTILIZATION_SCORER=spot_first.score"
    assert head == ours["head_start_ray_commands"][-1].replace(fallback, "")
    assert "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0;" in head


def test_the_same_is_left_out_when_the_project_is_copied():
    assert load(LOCAL)["rsync_exclude"] == load(AWS)["rsync_exclude"]


def test_the_token_is_shipped_and_only_its_owner_reads_it(config):
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


def test_every_package_installed_is_pinned_as_ours(config):
    commands = "\n".join(command for key in COMMANDS for command in config[key])
    assert "-r ~/dialogue-tune/requirements.txt 'ray[default]==" in commands
    assert "requirements.txt" in config["file_mounts"]["~/dialogue-tune/requirements.txt"]
    assert unpinned(commands) == []


def test_every_placeholder_is_said_to_be_one():
    lines = TEXT.splitlines()
    values = [line for line in lines if PLACEHOLDER in line and not line.lstrip().startswith("#")]
    assert len(values) == 4
    assert TEXT.count(f"# {PLACEHOLDER}:") == 2  # the machines; the user and the key


def test_no_secrets():
    assert secrets_in(TEXT) == []


@pytest.mark.parametrize("key", [*COMMANDS, *START])
def test_commands_are_valid_shell(config, key):
    for command in config[key]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_a_machine_without_the_shared_directory_is_refused(config):
    command = config["setup_commands"][0].replace("/mnt/runs", "/mnt/nowhere-at-all")
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "/mnt/nowhere-at-all is not mounted, or not ours to write, on " in result.stderr


def test_a_machine_with_it_is_taken(config):
    command = config["setup_commands"][0].replace("/mnt/runs", "/dev/shm")
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def test_the_shell_settings_can_be_written_twice(config, tmp_path):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "-c", config["setup_commands"][-1]], env=environment, check=True)
    assert (tmp_path / ".bashrc").read_text() == ". ~/.dialogue-tune.sh\n"
    (tmp_path / "dialogue-tune/.venv/bin").mkdir(parents=True)
    (tmp_path / "dialogue-tune/.venv/bin/activate").write_text("ACTIVE=yes\n")
    shown = "source ~/.bashrc; echo $RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED $ACTIVE"
    result = subprocess.run(
        ["bash", "-c", shown], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout == "token 0 yes\n"
