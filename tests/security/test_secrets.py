"""Whole searches among planted secrets: none is in anything that they write, show or send."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from analysis import Results
from tests.security.planted import CommandLines, Planted, found_in, with_keeping
from tests.security.ray_head import RayHead
from tests.tuning import wandb_server
from tests.tuning.ray_support import ROOT, sweep_mapping, write_corpus

pytestmark = pytest.mark.ray

#: Variables of this process that would point elsewhere.
_OURS = ("RAY", "WANDB", "AWS", "PYTHON", "KEPT", "NETRC")


@pytest.fixture
def planted():
    """In a directory with a short name, as Ray's sockets need."""
    directory = Path(tempfile.mkdtemp(prefix="planted-", dir="/tmp"))
    yield Planted(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def environment(planted):
    outer = {name: v for name, v in os.environ.items() if not name.startswith(_OURS)}
    return with_keeping(outer | planted.environment, ROOT)


@pytest.fixture
def requests(monkeypatch):
    """What W&B's server is sent, but for the headers: there the key has its place."""
    bodies = []
    read = wandb_server._Handler._body

    def noted(self):
        bodies.append(read(self))
        return bodies[-1]

    monkeypatch.setattr(wandb_server._Handler, "_body", noted)
    return bodies


def write_sweep(planted):
    """A grid of two trials, of which one raises: there is no GPU."""
    mapping = sweep_mapping(write_corpus(planted.work), iterations=8) | {"method": "grid"}
    mapping["parameters"] |= {
        "learning_rate": {"value": 0.001},
        "clip": {"value": 25},
        "device": {"values": ["cpu", "cuda"]},
    }
    (planted.work / "sweep.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")


def run(planted, environment, *arguments):
    """Runs a command line among the secrets; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=planted.work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=240,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    return output


def search(planted, environment, *more):
    """A whole search, and what is made of it; returns everything that was printed."""
    write_sweep(planted)
    options = ("--name", "search", "--max-failures", 1, "--concurrency", 1, *more)
    output = run(planted, environment, "tuning", "run", "sweep.yaml", *options)
    output += run(planted, environment, "analysis", "results", "search", "--csv", "trials.csv")
    output += run(planted, environment, "analysis", "promote", "search", "--wandb", "offline")
    output += run(planted, environment, "analysis", "report", "search")
    results = Results.open("search", planted.work / "runs")
    assert list(results.trials["state"]) == ["finished", "failed"]
    assert "there is no GPU" in results.trials["reason"][1]
    return output


def check_nothing_found(planted, output, watched):
    """Neither in files nor in what was printed nor on command lines."""
    assert planted.found() == []
    assert found_in(output.encode(), "the output", planted.values) == []
    assert found_in(b"\n".join(watched.lines), "command lines", planted.values) == []


def check_all_was_read(planted):
    """The places where secrets were or might have been written are among those looked at."""
    names = {path.name for path in planted.directory.rglob("*")}
    expected = {"experiment.json", "compacted.parquet", "study.log", "best.pt", "report.html"}
    expected |= {"manifest.json", "aliases.json", "trials.csv", "debug-internal.log"}
    expected |= {"runtime_env_agent.log", "gcs_server.out", "raylet.out", "session_latest"}
    assert expected <= names
    assert any(name.endswith(".wandb") for name in names)
    kept = {path.name.split("-", 2)[2] for path in planted.kept.iterdir()}
    assert any(name.startswith("tuner.pkl") for name in kept), "Ray Tune's files were not kept"


@pytest.mark.slow
def test_a_search_on_this_machine_leaves_no_secret_anywhere(planted, environment, requests):
    with wandb_server.WandbServer() as server, CommandLines() as watched:
        environment |= {"WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false"}
        output = search(planted, environment, "--wandb", "online")
        assert server.keys == {planted.values["WANDB_API_KEY"]}, "the key is for the server"
        assert len(server.runs) == 2
    planted.note_tokens()
    assert any(name.startswith("token ") for name in planted.values), "Ray ran without a token"
    check_all_was_read(planted)
    check_nothing_found(planted, output, watched)
    assert requests
    assert found_in(b"\n".join(requests), "a request to W&B", planted.values) == []


@pytest.mark.slow
def test_a_search_on_a_cluster_tells_the_cluster_no_secret(planted, environment):
    environment |= planted.ray_token()
    with CommandLines() as watched, RayHead(planted.directory / "ray", environment) as head:
        output = search(planted, environment, "--wandb", "offline", "--address", head.address)
        listed = head.listed()
    check_all_was_read(planted)
    check_nothing_found(planted, output, watched)
    assert "RAY_CHDIR_TO_TRIAL_DIR" in listed, "the environment of the job was not listed"
    assert "PL_DISABLE_FORK" in listed, "the environment of the trials was not listed"
    assert found_in(listed.encode(), "what Ray lists", planted.values) == []
    packages = list((planted.directory / "ray").rglob("working_dir_files/*/tuning"))
    assert packages, "the code that the cluster was sent was not looked at"


def test_the_manifest_says_what_ran_and_nothing_of_the_environment(planted, environment):
    """What may be in it is written here, so that an addition is looked at."""
    from tuning.environment import environment as described

    assert set(described()) == {"commit", "versions", "machine"}
    assert set(described()["machine"]) == {"cores", "system"}
    assert found_in(json.dumps(described()).encode(), "manifest", planted.values) == []
