"""The script that makes the instance profiles: what it asks AWS for, by AWS's own description."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.deploy.files import AWS, DEPLOY

Call = tuple[str, dict[str, str]]
ARN = "arn:aws:iam::123456789012:role/dialogue-tune-worker"
#: Says how it was called, one JSON list a line. It knows nothing yet unless KNOWN is set, which
#: also says whether the profiles have their roles.
FAKE = """#!%s -ES
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "Role.Arn" in sys.argv:
    print("%s")
elif "--query" in sys.argv:
    assert sys.argv[2] == "get-instance-profile"
    assert sys.argv[sys.argv.index("--query") + 1] == "InstanceProfile.Roles[].RoleName"
    print(sys.argv[4] if os.environ.get("KNOWN") == "with roles" else "")
elif sys.argv[2].startswith("get-") and not os.environ.get("KNOWN"):
    sys.exit(254)
"""


@pytest.fixture
def run(tmp_path) -> Callable[..., list[Call]]:
    """Runs the script; gives the operations that it asked for, each with its parameters."""
    tool = tmp_path / "aws"
    tool.write_text(FAKE % (sys.executable, ARN))
    tool.chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments: str, **environment: str) -> list[Call]:
        environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
        script = DEPLOY / "aws-profiles.sh"
        subprocess.run([script, *arguments], env=os.environ | environment, check=True)
        return [operation(*json.loads(line)) for line in calls.read_text().splitlines()]

    return run


def operation(service: str, command: str, *options: str) -> Call:
    """A command of the AWS command line as the operation and parameters that it stands for."""
    assert service == "iam"
    names = [pascal(option.removeprefix("--")) for option in options[::2]]
    return pascal(command), dict(zip(names, options[1::2], strict=True))


def pascal(words: str) -> str:
    return words.title().replace("-", "")


def allowed(calls: list[Call], role: str) -> dict[str, set[str]]:
    """What a role may do: resource to actions."""
    rights: dict[str, set[str]] = {}
    for name, given in calls:
        if name == "PutRolePolicy" and given["RoleName"] == role:
            for statement in json.loads(given["PolicyDocument"])["Statement"]:
                assert statement["Effect"] == "Allow"
                actions = statement["Action"]
                rights.setdefault(statement["Resource"], set()).update(
                    [actions] if isinstance(actions, str) else actions
                )
    return rights


BUCKET = {
    "arn:aws:s3:::ours": {"s3:ListBucket", "s3:GetBucketLocation"},
    "arn:aws:s3:::ours/*": {
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    },
}


def test_aws_knows_every_operation_and_parameter(run):
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    iam = get_session().get_service_model("iam")
    calls = run("ours")
    assert len(calls) == 17
    for name, given in calls:
        asked = {key: value for key, value in given.items() if key not in ("Query", "Output")}
        report = ParamValidator().validate(asked, iam.operation_model(name).input_shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_a_worker_may_use_the_bucket_and_nothing_else(run):
    calls = run("ours")
    assert allowed(calls, "dialogue-tune-worker") == BUCKET
    attached = [given["RoleName"] for name, given in calls if name == "AttachRolePolicy"]
    assert attached == ["dialogue-tune-head"]


def test_the_head_may_also_hand_the_workers_their_profile(run):
    calls = run("ours")
    assert allowed(calls, "dialogue-tune-head") == BUCKET | {ARN: {"iam:PassRole"}}


def test_only_machines_take_the_roles_on(run):
    roles = [given for name, given in run("ours") if name == "CreateRole"]
    assert len(roles) == 2
    for role in roles:
        (statement,) = json.loads(role["AssumeRolePolicyDocument"])["Statement"]
        assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}


def test_what_is_there_is_left(run):
    names = [name for name, _ in run("ours", KNOWN="with roles")]
    assert not [name for name in names if name.startswith(("Create", "Add"))]
    assert names.count("PutRolePolicy") == 3


def test_a_profile_without_a_role_gets_it(run):
    """As an earlier run leaves it that ended right after it had made the profile."""
    calls = run("ours", KNOWN="without roles")
    assert not [name for name, _ in calls if name.startswith("Create")]
    added = [given for name, given in calls if name == "AddRoleToInstanceProfile"]
    assert [given["InstanceProfileName"] for given in added] == [
        "dialogue-tune-worker",
        "dialogue-tune-head",
    ]
    assert all(given["RoleName"] == given["InstanceProfileName"] for given in added)


def test_its_profiles_are_those_of_the_cluster_file(run):
    made = {
        given["InstanceProfileName"]
        for name, given in run("ours")
        if name.startswith("Create")
        if "InstanceProfileName" in given
    }
    text = AWS.read_text(encoding="utf-8")
    assert made == set(re.findall(r"# IamInstanceProfile: {Name: ([\w-]+)}", text))


def test_without_a_bucket_it_says_so():
    script = DEPLOY / "aws-profiles.sh"
    result = subprocess.run([script], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "the name of the bucket, without s3://" in result.stderr
