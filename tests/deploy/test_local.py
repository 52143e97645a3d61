"""The cluster file for machines of one's own: Ray's schema and code, and the same as on AWS."""

import re
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
from tests.deploy.launching import Launcher
from tests.deploy.opening import check_opens
from tests.tuning.storage.object_store import CREDENTIALS

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


@pytest.fixture
def launcher(config, tmp_path, monkeypatch):
    """Ray's first autoscaler on the head, with machines that do what they are told."""
    provider = "ray.autoscaler._private.local.node_provider"
    monkeypatch.setattr(f"{provider}.get_lock_path", lambda name: str(tmp_path / "lock"))
    monkeypatch.setattr(f"{provider}.get_state_path", lambda name: str(tmp_path / "state"))
    addresses = {"head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    return Launcher(
        config | {"provider": config["provider"] | addresses}, tmp_path / "key", monkeypatch
    )


#: Ray's provider of such machines leaves the closing of its file to the interpreter.
LEFT_OPEN = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@LEFT_OPEN
def test_rays_first_autoscaler_starts_all_of_them(launcher):
    launcher.settle()
    assert launcher.workers() == ["10.0.0.2", "10.0.0.3"]
    started = [command for command in launcher.shells.ran if "ray start --address=" in command]
    assert len(started) == 2
    assert "10.0.0.1" in launcher.provider.non_terminated_nodes({})


@LEFT_OPEN
def test_it_tries_once_to_take_a_lost_machine_back(launcher):
    """And never again, once that has failed: the file's top says what does it then."""
    launcher.settle()
    launcher.shells.refused = ("10.0.0.3", "ray start")
    launcher.shells.ran.clear()
    launcher.silence("10.0.0.3")
    launcher.settle()
    assert sum("ray start" in command for command in launcher.shells.ran) == 1
    launcher.shells.refused = None
    launcher.settle()
    assert sum("ray start" in command for command in launcher.shells.ran) == 1


def test_the_command_that_takes_it_back_is_the_launchers():
    text = re.sub(r" *\\\n# +", " ", TEXT)
    (by_hand,) = re.findall(r"^#   ssh USER@WORKER '(.*)'$", text, re.MULTILINE)
    theirs = load(LOCAL)["worker_start_ray_commands"][-1].replace("$RAY_HEAD_IP", "HEAD")
    settings = " export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0;"  # the file has them too
    assert by_hand == theirs.replace(settings, "")
    assert "export RAY_AUTH_MODE=token" in load(LOCAL)["setup_commands"][-1]


def test_rays_second_autoscaler_would_start_one_too_few(config, tmp_path):
    """Once this fails, the file can do without the setting for the first one."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.schema import AutoscalerInstance
    from ray.core.generated import autoscaler_pb2 as messages
    from ray.core.generated.instance_manager_pb2 import Instance, NodeKind

    key = tmp_path / "key"  # Ray reads it, to see whether it changed
    key.write_text("")
    config["auth"]["ssh_private_key"] = str(key)
    autoscaling = AutoscalingConfig(config, skip_content_hash=True)
    running = Instance(
        instance_id="head", instance_type=TYPE, status=Instance.RAY_RUNNING, node_kind=NodeKind.HEAD
    )
    ray_node = messages.NodeState(ray_node_type_name=TYPE, status=messages.NodeStatus.RUNNING)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=autoscaling.get_node_type_configs(),
        max_num_nodes=autoscaling.get_max_num_nodes(),
        current_instances=[
            AutoscalerInstance(im_instance=running, ray_node=ray_node, cloud_instance_id="head")
        ],
    )
    launched = ResourceDemandScheduler(MagicMock()).schedule(request).to_launch
    assert [(one.instance_type, one.count) for one in launched] == [(TYPE, 1)]


def test_the_head_starts_the_first_one(config):
    settings = config["head_start_ray_commands"][-1].split("ray start")[0]
    settings = settings.split(".dialogue-tune.sh;")[1]
    # "ray up" puts RAY_enable_autoscaler_v2=1 before the command: the later word counts.
    shown = f"export RAY_enable_autoscaler_v2=1; {settings} echo $RAY_enable_autoscaler_v2"
    answer = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert answer.stdout == "0\n"


def test_the_head_runs_no_trials(config):
    command = config["head_start_ray_commands"][-1]
    assert "--num-cpus=0 --num-gpus=0" in command
    assert "--num" not in config["worker_start_ray_commands"][-1]


def test_the_commands_start_ray_as_on_aws(config):
    ours = {key: load(AWS)[key] for key in START}
    workers = [one for one in ours["worker_start_ray_commands"] if "preemption" not in one]
    assert config["worker_start_ray_commands"] == workers
    head = config["head_start_ray_commands"][-1].replace(" --num-cpus=0 --num-gpus=0", "")
    fallback = " RAY_AUTOSCALER_UTILIZATION_SCORER=spot_first.score"
    assert head == ours["head_start_ray_commands"][-1].replace(fallback, "")
    assert "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_enable_autoscaler_v2=0;" in head


def test_the_same_is_left_out_when_the_project_is_copied():
    for rules in ("rsync_exclude", "rsync_filter"):
        assert load(LOCAL)[rules] == load(AWS)[rules]


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


# S3 instead of the directory


def test_with_s3_ray_accepts_it_and_asks_for_no_directory():
    config = load(LOCAL)
    assert "mountpoint -q /mnt/runs" in config["setup_commands"].pop(0)
    validate_config(prepare_config(config))
    assert "/mnt/runs" not in str(config)


def test_a_key_at_home_opens_a_bucket_of_ones_own_server(bucket, store, tmp_path):
    """As the comment has it: the server in the URI, and the key in ``~/.aws/credentials``."""
    (uri,) = re.findall(r"--storage '(s3://BUCKET\S+)'", TEXT)
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    file.write_text("\n".join(["[default]", *(f"{n.lower()}={CREDENTIALS[n]}" for n in names)]))
    server = store.url.removeprefix("http://")
    ours = uri.replace("BUCKET", bucket).replace("HOST:9000", server)
    check_opens(ours, {"HOME": str(tmp_path)})
    assert ".aws" in load(LOCAL)["rsync_exclude"]
