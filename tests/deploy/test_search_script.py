"""The script that a job on Kubernetes runs, with a directory and with S3."""

import os
import re
import subprocess
import sys

import pytest

from model.files import atomic_write
from tests.deploy.files import KUBERNETES, ROOT, load
from tuning.storage.place import place

SCRIPT = KUBERNETES / "search.sh"
ENTRYPOINT = load(KUBERNETES / "ray-job.yaml")["spec"]["entrypoint"]


@pytest.fixture(params=["directory", "s3"])
def storage(request, tmp_path):
    """As $STORAGE has it."""
    if request.param == "directory":
        return str(tmp_path / "runs")
    return f"s3://{request.getfixturevalue('bucket')}/runs"


@pytest.fixture
def search(tmp_path):
    """Runs the job's entrypoint with a Python that looks, but only says how it would search."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\n[ "$2" = tuning.storage ] && exec {sys.executable} "$@"\necho "$PWD:" "$@"\n'
    )
    python.chmod(0o755)

    def run(storage, **more) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "STORAGE": storage} | more
        return subprocess.run(
            [SCRIPT, *ENTRYPOINT.split()[1:]],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def begin(storage):
    atomic_write(place(storage) / "demo" / "experiment.json", b"{}")


def test_the_entrypoint_is_plain_words_for_a_script_of_the_image():
    assert re.fullmatch(r"[\w./ -]+", ENTRYPOINT)  # nothing that a shell on the way would take
    script, _, sweep, *_ = ENTRYPOINT.split()
    assert script == "/opt/dialogue-tune/deploy/kubernetes/search.sh"
    dockerfile = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")
    assert "WORKDIR /opt/dialogue-tune\n" in dockerfile
    assert os.access(SCRIPT, os.X_OK)
    assert (ROOT / sweep).is_file()


def test_a_job_starts_its_search(search, storage):
    assert search(storage).stdout == (
        f"{ROOT}: -m tuning run configs/demo.yaml --name demo --storage {storage} "
        "--address auto --gpus-per-trial 0.5\n"
    )


def test_a_job_that_was_ended_before_its_search_began_starts_it(search, storage):
    atomic_write(place(storage) / "demo" / "data.safetensors", b"")
    assert "-m tuning run" in search(storage).stdout


def test_a_job_that_starts_again_goes_on_with_it(search, storage):
    begin(storage)
    assert search(storage).stdout == (
        f"{ROOT}: -m tuning resume demo --storage {storage} --address auto\n"
    )


def test_without_a_word_the_experiments_lie_in_the_volume(search):
    assert "--storage /mnt/runs --address auto" in search("").stdout


@pytest.mark.parametrize("again", [False, True])
def test_our_command_line_knows_what_it_is_told(search, storage, again):
    from tuning.__main__ import _parser

    if again:
        begin(storage)
    arguments = _parser().parse_args(search(storage).stdout.split()[3:])
    assert arguments.address == "auto"
    assert str(arguments.storage) == storage


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(search, bucket):
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "DIALOGUE_TUNE_STORAGE_PATIENCE": "0"}
    ended = search(f"s3://{bucket}/runs", **away)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"error: s3://{bucket}/runs/demo/experiment.json: cannot be read: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_uri_that_cannot_be_one_is_said(search):
    ended = search("s3://KEY:hunter2@bucket/runs")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "must not hold a user or a password" in ended.stderr
    assert "hunter2" not in ended.stderr
