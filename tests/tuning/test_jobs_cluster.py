"""Jobs on a real cluster of one machine, with Ray's dashboard and a token."""

import json
import re
import secrets

import pytest

from analysis import Results
from tests.tuning.jobs_support import Head
from tests.tuning.ray_support import (
    check_best_weights,
    check_resumed,
    sweep_mapping,
    write_corpus,
)
from tuning.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
SECRETS = {
    "WANDB_API_KEY": f"planted-{secrets.token_hex(8)}",
    "AWS_SECRET_ACCESS_KEY": f"planted-{secrets.token_hex(8)}",
}
IN_PROJECT = f"planted-{secrets.token_hex(8)}"
LIST_JOBS = """
import sys
from ray.job_submission import JobSubmissionClient
print([repr(job) for job in JobSubmissionClient(sys.argv[1]).list_jobs()])
"""

#: Where a worker has our code from, seen from a driver that is no job.
WHERE_FROM = """
import sys
import ray
from tuning.cluster import connected
with connected(sys.argv[1]):
    @ray.remote
    def imported():
        import tuning
        return tuning.__file__
    print(ray.get(imported.remote()))
"""
ASK_FOR_A_JOB = """
import sys
from model.errors import DialogueTuneError
from tuning.jobs.client import Client
try:
    Client(sys.argv[1]).job("gone")
except DialogueTuneError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def head():
    pytest.importorskip("aiohttp", reason="jobs need ray[default]")
    head = Head()
    head.laptop = SECRETS
    for name in (".env", "model/.env", "data/corpus.txt", "runs/one/secret.py"):
        (head.project / name).parent.mkdir(parents=True, exist_ok=True)
        (head.project / name).write_text(f"KEY={IN_PROJECT}\n")
    try:
        head.wait()
        yield head
    finally:
        head.close()


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory):
    """A sweep over a corpus that only this machine has."""
    directory = tmp_path_factory.mktemp("laptop")
    file = directory / "tiny.yaml"
    file.write_text(json.dumps(sweep_mapping(write_corpus(directory), report_every=8)))
    return file


def options(head, sweep_file):
    return ["--storage", head.runs, "--data", sweep_file.with_name("tiny.txt")]


def test_workers_import_what_they_are_sent_not_what_lies_where_the_driver_is(head):
    """A machine that has another checkout there would train another's code."""
    said, _ = head.start("-c", WHERE_FROM, head.cluster).communicate(timeout=120)
    place = re.escape(f"{head.place}/ray/session_")
    assert re.search(rf"^{place}\S+/working_dir_files/\S+/tuning/__init__\.py$", said, re.M), said


def test_a_job_that_the_head_does_not_know(head):
    said, _ = head.start("-c", ASK_FOR_A_JOB, head.address).communicate(timeout=120)
    assert re.search(r"^ExperimentError the cluster at \S+ knows no job gone\. A head", said, re.M)


def test_a_search_outlives_the_laptop_and_comes_home(head, sweep_file, tmp_path):
    words = ["submit", sweep_file, "--trials", 2, "--name", "one", *options(head, sweep_file)]
    laptop = head.start("-m", "tuning", *words, "--address", head.address)
    said = ""
    while "one: 2 trials, 2 at a time" not in said:
        line = laptop.stdout.readline()
        assert line, said
        said += line
    laptop.kill()
    laptop.communicate()
    fetch = ["fetch", "one", "--out", tmp_path, "--top", 2, "--with-data"]
    said, statuses = head.run(["status", "one", "--follow"], fetch, ["status"])
    assert statuses == [0, 0, 0], said
    assert said.count("one: 2 trials, 2 at a time") == 1  # shown from its beginning
    assert ": SUCCEEDED\nfetch the results: python -m tuning fetch one" in said
    assert "-fetch-" not in said  # what only carried files is forgotten
    results = Results.open(tmp_path / "one")
    assert results.trials["state"].tolist() == ["finished"] * 2
    check_resumed(results)
    check_best_weights(results)
    assert (
        results.experiment.data().fingerprint == results.experiment.manifest["data"]["fingerprint"]
    )


def test_nothing_secret_is_left_on_the_cluster(head):
    """Neither in what it lists, nor in any file: packages, logs, manifests, W&B's files."""
    listed, _ = head.start("-c", LIST_JOBS, head.address).communicate(timeout=120)
    assert "tuning run submitted/tiny.yaml" in listed
    planted = [*SECRETS.values(), IN_PROJECT]
    assert not [secret for secret in planted if secret in listed]
    token = head.token.read_text()
    searched = 0
    for directory in (head.place / "ray", head.runs):
        for file in directory.rglob("*"):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                searched += 1
                assert not [s for s in [*planted, token] if s.encode() in content], file
    assert searched > 100
    for file in (head.place / "ray").glob("session_*/logs/job-driver-*-fetch-*.log"):
        assert b"dt-data" not in file.read_bytes()  # nor weights


@pytest.mark.long
def test_a_stopped_search_is_gone_on_with(head, sweep_file, tmp_path):
    words = ["submit", sweep_file, "--trials", 2, "--name", "two", *options(head, sweep_file)]
    words += ["--set", "iterations=150", "--set", "report_every=10", "--wandb", "disabled"]
    said, statuses = head.run(
        [*words, "--no-follow"],
        ["wait", head.runs / "two" / "journal"],
        ["stop", "two"],
        ["stop", "two"],
        ["status", "two"],
    )
    assert statuses == [0, 0, 0, 0], said
    assert said.count("stopping job two-run-") == 1
    assert "stopped; everything is kept in" in said  # the driver's own last words
    rows = read_journal(head.runs / "two" / "journal").rows
    assert rows[-1].kind == "ended" and not rows[-1].completes
    fetch = ["fetch", "two", "--out", tmp_path, "--top", 2, "--with-data"]
    said, statuses = head.run(["submit", "--resume", "two"], fetch)
    assert statuses == [0, 0], said
    assert "two: 2 trials, 2 known, 2 at a time" in said
    results = Results.open(tmp_path / "two")
    check_resumed(results)
    check_best_weights(results)


def test_nobody_comes_in_without_the_token(head):
    assert head.asked(None) == 401
    assert head.asked("x" * 64) == 403
    words = ["-m", "tuning", "status", "--address", head.address]
    without = head.start(*words, RAY_AUTH_TOKEN_PATH=None, RAY_AUTH_MODE=None)
    wrong = head.start(*words, RAY_AUTH_TOKEN="x" * 64)
    said = [process.communicate(timeout=120)[0] for process in (without, wrong)]
    assert [without.returncode, wrong.returncode] == [2, 2]
    assert "the cluster asks for its token, and there is none here. It lies on the head" in said[0]
    assert "the cluster has another token than this machine. It lies on the head in" in said[1]
