"""The image of the Kubernetes cluster, and the script in it that a job runs."""

import os
import re
import subprocess

import pytest

from tests.deploy.files import KUBERNETES, ROOT, load, secrets_in, unpinned

JOB = KUBERNETES / "ray-job.yaml"
DOCKERFILE = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")


# The image


def test_the_image_installs_what_requirements_pin():
    assert "pip install --no-cache-dir -r requirements.txt 'ray[default]==" in DOCKERFILE
    assert unpinned(DOCKERFILE) == []
    assert secrets_in(DOCKERFILE) == []


def test_the_build_sees_what_it_copies_and_nothing_else():
    copied = re.findall(r"^COPY --chown=1000:1000 (\S+) ", DOCKERFILE, re.MULTILINE)
    assert all((ROOT / path).exists() for path in copied)
    ignore = (KUBERNETES / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if not line.startswith("#")]
    assert rules[0] == "*"
    assert [rule[1:] for rule in rules if rule.startswith("!")] == copied
    assert "**/.env*" in rules


# search.sh


@pytest.fixture
def search(tmp_path):
    """Runs the job's entrypoint with a Python that only says how it was called."""
    tools, storage = tmp_path / "bin", tmp_path / "runs"
    tools.mkdir()
    python = tools / "python"
    python.write_text('#!/bin/sh\necho "$PWD:" "$@"\n')
    python.chmod(0o755)
    _, *words = load(JOB)["spec"]["entrypoint"].split()

    def run() -> str:
        environment = os.environ | {"PATH": f"{tools}:/usr/bin:/bin", "STORAGE": str(storage)}
        script = KUBERNETES / "search.sh"
        return subprocess.run(
            [script, *words], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    return run, storage


def test_the_entrypoint_is_plain_words_for_a_script_of_the_image():
    entrypoint = load(JOB)["spec"]["entrypoint"]
    assert re.fullmatch(r"[\w./ -]+", entrypoint)  # nothing that a shell on the way would take
    script, _, sweep, *_ = entrypoint.split()
    assert script == "/opt/dialogue-tune/deploy/kubernetes/search.sh"
    assert "WORKDIR /opt/dialogue-tune\n" in DOCKERFILE
    assert os.access(KUBERNETES / "search.sh", os.X_OK)
    assert (ROOT / sweep).is_file()


def test_a_job_starts_its_search(search):
    run, storage = search
    assert run() == (
        f"{ROOT}: -m tuning run configs/demo.yaml --name demo --storage {storage} "
        "--address auto --gpus-per-trial 0.5"
    )


def begin(storage):
    (storage / "demo").mkdir(parents=True)
    (storage / "demo" / "experiment.json").write_text("{}")


def test_a_job_that_was_ended_before_its_search_began_starts_it(search):
    run, storage = search
    (storage / "demo").mkdir(parents=True)
    assert "-m tuning run" in run()


def test_a_job_that_starts_again_goes_on_with_it(search):
    run, storage = search
    begin(storage)
    assert run() == f"{ROOT}: -m tuning resume demo --storage {storage} --address auto"


@pytest.mark.parametrize("again", [False, True])
def test_our_command_line_knows_what_it_is_told(search, again):
    from tuning.__main__ import _parser

    run, storage = search
    if again:
        begin(storage)
    words = run().split()[3:]
    arguments = _parser().parse_args(words)
    assert arguments.address == "auto"
    assert str(arguments.storage) == str(storage)
