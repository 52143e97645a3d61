"""Jobs on a real cluster of one machine, with Ray's dashboard and a token."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from analysis import Results
from tests.tuning.ray_support import (
    ROOT,
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
#: Runs commands one after the other in one process, for importing Ray takes seconds. What is no
#: command is a journal to wait for.
COMMANDS = """
import json, sys, time
from pathlib import Path
from model.cli import run_main
from tuning.__main__ import main
from tuning.journal import read_journal
for words in json.loads(sys.argv[1]):
    if words[0] != "wait":
        print("status", run_main(main, words), flush=True)
        continue
    journal, until = Path(words[1]), time.monotonic() + 120
    while not journal.is_dir() or sum(r.kind == "report" for r in read_journal(journal).rows) < 2:
        assert time.monotonic() < until, "no report came"
        time.sleep(0.05)
"""
LIST_JOBS = """
import sys
from ray.job_submission import JobSubmissionClient
print([repr(job) for job in JobSubmissionClient(sys.argv[1]).list_jobs()])
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Head:
    """A cluster of one machine, with everything it writes in one directory."""

    def __init__(self):
        # Short: the paths of Ray's sockets may have 107 bytes.
        self.place = Path(tempfile.mkdtemp(prefix="dtj", dir="/tmp"))
        self.runs = self.place / "runs"
        self.runs.mkdir()
        self.token = self.place / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.mark = f"DIALOGUE_TUNE_TEST_HEAD={secrets.token_hex(8)}"
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.project = self.place / "project"
        for package in ("model", "tuning"):
            shutil.copytree(
                ROOT / package,
                self.project / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        for name in (".env", "model/.env", "data/corpus.txt", "runs/one/secret.py"):
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(f"KEY={IN_PROJECT}\n")
        command = ["start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
        command += [f"--port={free_port()}", f"--temp-dir={self.place / 'ray'}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        command += [f"--ray-client-server-port={free_port()}", "--node-ip-address=127.0.0.1"]
        command += [f"--object-store-memory={100 * 2**20}"]
        name, value = self.mark.split("=")
        with (self.place / "head.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.place,
                env=self.environment() | {name: value},
            )

    def environment(self):
        """Ours, but for what is about Ray; Python is found by its name, as on a cluster."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "WANDB_"))}
        return outer | {
            "PATH": f"{Path(sys.executable).parent}:{outer['PATH']}",
            "HOME": str(self.place),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def wait(self):
        until = time.monotonic() + 120
        while True:
            with suppress(urllib.error.URLError, ConnectionError):
                if self.asked(self.token.read_text()) == 200:
                    return
            assert self.process.poll() is None and time.monotonic() < until, (
                self.place / "head.log"
            ).read_text()
            time.sleep(0.5)

    def asked(self, token):
        """The HTTP status that listing the jobs has, with a token or without."""
        request = urllib.request.Request(f"{self.address}/api/jobs/")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            # No proxy of the machine's is asked.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=20) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def start(self, *arguments, **environment):
        """Starts Python with some arguments, as on a laptop."""
        laptop = self.environment() | SECRETS | {"PYTHONUNBUFFERED": "1"} | environment
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.project,
            env={k: v for k, v in laptop.items() if v is not None},
        )

    def run(self, *commands):
        """Runs commands; returns what they printed and their exit statuses."""
        words = [
            [*map(str, words), *([] if words[0] == "wait" else ["--address", self.address])]
            for words in commands
        ]
        process = self.start("-c", COMMANDS, json.dumps(words))
        said, _ = process.communicate(timeout=300)
        lines = said.splitlines()
        assert process.returncode == 0, said
        return said, [int(line[7:]) for line in lines if line.startswith("status ")]

    def close(self):
        """Ends every process that this head has started, whatever became of it."""
        until = time.monotonic() + 30
        while pids := [*self.processes()]:
            assert time.monotonic() < until, f"processes {pids} do not end"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
        shutil.rmtree(self.place, ignore_errors=True)

    def processes(self):
        """They have inherited our mark; those that have ended have no environment."""
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                    yield int(directory.name)


@pytest.fixture(scope="module")
def head():
    pytest.importorskip("aiohttp", reason="jobs need ray[default]")
    head = Head()
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
