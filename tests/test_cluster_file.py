"""The AWS cluster file: right by Ray's own schema, and saying what it is meant to say."""

import copy
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "cluster.yaml"
COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
START = ("head_start_ray_commands", "worker_start_ray_commands")
PLACEHOLDER = "REPLACE-ME"


@pytest.fixture
def raw():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


@pytest.fixture
def prepared(raw):
    """The file as Ray uses it: its defaults filled in."""
    return prepare_config(copy.deepcopy(raw))


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w-]+)(?:\[[\w,]+\])?==(\S+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


# Ray's schema


def test_ray_accepts_it(prepared):
    validate_config(prepared)


def misspelled(config):
    config["setup_comands"] = config.pop("setup_commands")


def an_unknown_head(config):
    config["head_node_type"] = "chief"


def more_workers_than_allowed(config):
    config["available_node_types"]["gpu"]["min_workers"] = 5


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
    """Checks names and types of what is sent to EC2, which Ray's schema leaves open."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    run_instances = get_session().get_service_model("ec2").operation_model("RunInstances")
    for name, node in prepared["available_node_types"].items():
        request = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
        report = ParamValidator().validate(request, run_instances.input_shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


# What was decided


def test_the_head_runs_no_trials(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_instances_that_come_and_go(prepared):
    worker = prepared["available_node_types"]["gpu"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["min_workers"] == 0
    assert 0 < worker["max_workers"] <= prepared["max_workers"]
    assert prepared["idle_timeout_minutes"] > 0


def test_every_node_installs_what_requirements_pin(raw, prepared):
    mounted = [remote for remote, here in raw["file_mounts"].items() if here == "requirements.txt"]
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert f"pip install -r {mounted[0]} " in "\n".join(prepared[commands])


def test_every_package_installed_is_pinned_as_ours(prepared):
    ours = pins("requirements.txt") | pins("requirements-dev.txt")
    for command in {command for key in COMMANDS for command in prepared[key]}:
        for arguments in re.findall(r"pip install (.*)", command):
            packages = re.sub(r"-r \S+", "", arguments).replace("'", "").split()
            for package in packages:
                name, _, version = package.partition("==")
                assert version == ours[name.split("[")[0]], package


def test_nothing_comes_from_rays_defaults(raw, prepared):
    for key in (*COMMANDS, *START):
        for command in prepared[key]:
            assert command in raw.get(key, []) or command in raw["setup_commands"]


def test_no_development_version_of_ray():
    text = FILE.read_text(encoding="utf-8").lower()
    for sign in ("nightly", ".whl", "wheels", "latest/ray", "pip install -u", "--upgrade"):
        assert sign not in text


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
    assert "0.0.0.0" not in FILE.read_text(encoding="utf-8")


def test_experiments_lie_on_storage_that_every_node_mounts(raw, prepared):
    mount = next(command for command in prepared["setup_commands"] if "mount -t nfs4" in command)
    assert f"{raw['provider']['region']}.amazonaws.com:/ /mnt/runs" in mount
    assert "--storage /mnt/runs" in FILE.read_text(encoding="utf-8")


def test_two_placeholders_are_to_be_replaced_and_said_so(raw):
    assert yaml.safe_dump(raw).count(f"ami-{PLACEHOLDER}") == len(raw["available_node_types"])
    values = [line for line in FILE.read_text(encoding="utf-8").splitlines() if "#" not in line]
    assert sum(PLACEHOLDER in line for line in values) == 2
    assert f"# {PLACEHOLDER}:" in FILE.read_text(encoding="utf-8")


def test_no_secrets():
    text = FILE.read_text(encoding="utf-8")
    for sign in (r"\b(AKIA|ASIA)[A-Z0-9]{12}", r"\b[0-9a-fA-F]{32,}\b", "BEGIN [A-Z ]*KEY"):
        assert not re.search(sign, text)
    for key in ("aws_credentials", "secret_access_key", "RAY_AUTH_TOKEN=", "WANDB_API_KEY"):
        assert key not in text


# The commands


@pytest.mark.parametrize("key", [*COMMANDS, *START])
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
    shown = "source ~/.bashrc; echo $RAY_AUTH_MODE $RAY_USAGE_STATS_ENABLED $ACTIVE"
    result = subprocess.run(
        ["bash", "-c", shown], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout == "token 0 yes\n"
