"""The AWS cluster file: right by Ray's own schema and code, and saying what it is meant to say."""

import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.files import (
    AWS,
    COMMANDS,
    PLACEHOLDER,
    ROOT,
    START,
    ec2_problems,
    secrets_in,
    unpinned,
)
from tests.tuning.metadata_server import MetadataServer

TEXT = AWS.read_text(encoding="utf-8")
WORKERS = ("gpu-spot", "gpu-on-demand")


# Ray's schema


def test_ray_accepts_it(prepared):
    validate_config(prepared)


def misspelled(config):
    config["setup_comands"] = config.pop("setup_commands")


def an_unknown_head(config):
    config["head_node_type"] = "chief"


def more_workers_than_allowed(config):
    config["available_node_types"]["gpu-spot"]["min_workers"] = 5


def a_cpu_in_words(config):
    config["available_node_types"]["head"]["resources"] = {"CPU": "none"}


def one_command_without_a_list(config):
    config["worker_start_ray_commands"] = "ray start"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (misspelled, "setup_comands"),
        (an_unknown_head, "`head_node_type` must be one of"),
        (more_workers_than_allowed, "`max_workers` is smaller"),
        (a_cpu_in_words, "'none' is not of type 'integer'"),
        (one_command_without_a_list, "'ray start' is not of type 'array'"),
    ],
)
def test_ray_refuses_a_broken_copy(raw, damage, problem):
    damage(raw)
    with pytest.raises(Exception, match=problem):
        validate_config(prepare_config(raw))


def test_aws_accepts_the_machines(prepared):
    assert not ec2_problems(prepared)
    prepared["available_node_types"]["gpu-spot"]["node_config"]["InstanceTyp"] = "g4dn.xlarge"
    assert "InstanceTyp" in ec2_problems(prepared)[0]


# What was decided


def test_the_head_runs_no_trials(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_come_and_go(prepared):
    assert set(WORKERS) == set(prepared["available_node_types"]) - {"head"}
    for name in WORKERS:
        worker = prepared["available_node_types"][name]
        assert worker["min_workers"] == 0
        assert worker["max_workers"] == prepared["max_workers"] > 0
    assert prepared["idle_timeout_minutes"] > 0


def test_workers_differ_in_the_market_alone(prepared):
    spot, on_demand = (prepared["available_node_types"][name]["node_config"] for name in WORKERS)
    assert spot == on_demand | {"InstanceMarketOptions": {"MarketType": "spot"}}


def test_every_node_installs_what_requirements_pin(raw, prepared):
    mounted = [remote for remote, here in raw["file_mounts"].items() if here == "requirements.txt"]
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert f"pip install -r {mounted[0]} " in "\n".join(prepared[commands])


def test_every_package_installed_is_pinned_as_ours(prepared):
    commands = "\n".join(command for key in COMMANDS for command in prepared[key])
    assert "ray[default]==" in commands
    assert unpinned(commands) == []
    assert unpinned("pip install --upgrade 'ray[default]==2.59.0' other") == [
        "ray[default]==2.59.0",
        "other",
    ]


def test_nothing_comes_from_rays_defaults(raw, prepared):
    for key in (*COMMANDS, *START):
        for command in prepared[key]:
            assert command in raw.get(key, []) or command in raw["setup_commands"]


def test_no_development_version_of_ray():
    for sign in ("nightly", ".whl", "wheels", "latest/ray", "pip install -u", "--upgrade"):
        assert sign not in TEXT.lower()


def test_workers_listen_for_the_notice_of_their_end(raw, prepared, worker_home):
    """The agent by its own command, with the files that are copied for it and nothing else."""
    mounts = {remote: here for remote, here in raw["file_mounts"].items() if "preemption" in remote}
    ours = {f"tuning/preemption/{path.name}" for path in (ROOT / "tuning/preemption").glob("*.py")}
    assert set(mounts.values()) == ours - {"tuning/preemption/__init__.py"}

    _, _, agent, _ = prepared["worker_start_ray_commands"]
    assert not any("preemption" in command for command in prepared["head_start_ray_commands"])
    with MetadataServer() as server:
        server.is_on_demand()
        environment = worker_home | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint}
        waiting = ["bash", "-c", f"{agent}\nwait"]
        subprocess.run(waiting, env=environment, check=True, timeout=60)
    said = (Path(worker_home["HOME"]) / "watch-preemption.log").read_text()
    assert said.endswith("an on-demand machine: it is not taken back, there is nothing to watch\n")


@pytest.mark.parametrize("key", START)
def test_ray_starts_with_the_token_and_without_usage_statistics(prepared, key):
    start = prepared[key][-1]
    settings, command = start.split("ray start")
    assert "RAY_AUTH_MODE=token" in settings
    assert "RAY_USAGE_STATS_ENABLED=0" in settings
    assert "token" not in command


def test_the_token_is_shipped_and_only_its_owner_reads_it(prepared):
    assert prepared["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in prepared["setup_commands"][0]


def test_the_dashboard_listens_on_loopback_only(prepared):
    assert "--dashboard-host=127.0.0.1" in prepared["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in TEXT


def test_two_placeholders_are_to_be_replaced_and_said_so(raw):
    assert yaml.safe_dump(raw).count(f"ami-{PLACEHOLDER}") == len(raw["available_node_types"])
    values = [line for line in TEXT.splitlines() if "#" not in line]
    assert sum(PLACEHOLDER in line for line in values) == 2
    assert TEXT.count(f"# {PLACEHOLDER}:") == 2


def test_no_secrets():
    assert secrets_in(TEXT) == []
    assert secrets_in("export RAY_AUTH_TOKEN=1 # " + "0123456789abcdef" * 2) == [
        "0123456789abcdef" * 2,
        "RAY_AUTH_TOKEN=",
    ]


# The commands


@pytest.mark.parametrize("key", ["initialization_commands", *COMMANDS, *START])
def test_commands_are_valid_shell(prepared, key):
    for command in prepared[key]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_shell_settings_can_be_written_twice(raw, tmp_path):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "-c", raw["setup_commands"][-1]], env=environment, check=True)
    assert (tmp_path / ".bashrc").read_text() == ". ~/.dialogue-tune.sh\n"

    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("ACTIVE=yes\n")
    names = "$RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED $RAY_grpc_keepalive_timeout_ms $ACTIVE"
    shown = f"source ~/.bashrc; echo {names}"
    result = subprocess.run(
        ["bash", "-c", shown], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout == "token 0 60000 yes\n"
