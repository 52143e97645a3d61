"""The files of a deployment as the tests read them, and what all kinds of them are to keep to."""

import copy
import re
from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
AWS = ROOT / "cluster.yaml"
LOCAL = DEPLOY / "cluster-local.yaml"

PLACEHOLDER = "REPLACE-ME"
COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
START = ("head_start_ray_commands", "worker_start_ray_commands")
MACHINE = {  # CPUs, GPUs and MiB of memory, as AWS describes its instance types
    "m5.xlarge": (4, 0, 16384),
    "g4dn.xlarge": (4, 1, 16384),
}


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_all(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def prepared(path: Path) -> dict:
    """A cluster file as Ray uses it: its defaults filled in."""
    return prepare_config(copy.deepcopy(load(path)))


def pins() -> dict[str, str]:
    """The version of every package that our requirements pin."""
    lines = [
        line
        for file in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
    ]
    found = (re.match(r"([\w-]+)(?:\[[\w,]+\])?==(\S+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def unpinned(commands: str) -> list[str]:
    """What the ``pip install`` commands of a text install otherwise than our requirements do."""
    ours = pins()
    wrong = []
    for arguments in re.findall(r"pip install (.*)", commands):
        cleaned = re.sub(r"-r \S+|--[\w-]+", "", arguments).replace("'", "")
        for package in cleaned.split():
            name, _, version = package.partition("==")
            if version != ours.get(name.split("[")[0]):
                wrong.append(package)
    return wrong


def secrets_in(text: str) -> list[str]:
    """What looks like a secret in a text: keys, tokens, and settings that hold one."""
    signs = (
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12}\w*",
        r"\b[0-9a-fA-F]{32,}\b",
        r"BEGIN [A-Z ]*KEY",
        r"aws_credentials|secret_access_key|WANDB_API_KEY",
        r"RAY_AUTH_TOKEN[=\"':]",
        r"stringData|kind: Secret",
    )
    return [match[0] for sign in signs for match in re.finditer(sign, text)]


def ec2_problems(config):
    """What EC2 would not understand: names and types, which Ray's schema leaves open."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    run_instances = get_session().get_service_model("ec2").operation_model("RunInstances")
    reports = [
        ParamValidator().validate(
            {"MinCount": 1, "MaxCount": 1, **node["node_config"]}, run_instances.input_shape
        )
        for node in config["available_node_types"].values()
    ]
    return [report.generate_report() for report in reports if report.has_errors()]


def uncommented(text: str, *starts: str) -> str:
    """A file with some of its commented lines taken in, and of a block all lines below the first.

    Args:
        text: Of the file.
        starts: What the line, or the first line of the block, says after ``# ``.
    """
    lines, depth = [], None
    for line in text.splitlines():
        match = re.match(r"( *)# ( *)(.*)", line)
        if match and match[3].startswith(starts):
            depth = len(match[2])
        elif not match or (depth is not None and len(match[2]) <= depth):
            depth = None
        lines.append(match[1] + match[2] + match[3] if match and depth is not None else line)
    return "\n".join(lines) + "\n"
