"""Whole searches with their experiment on an object store, and what goes wrong on the way."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from analysis import Results
from analysis.promotion.registry import promote
from model.checkpoint import read_checkpoint
from tests.security.planted import found_in
from tests.tuning.ray_support import (
    check_resumed,
    command,
    finish,
    wait_for_reports,
    write_sweep,
)
from tests.tuning.storage.object_store import CREDENTIALS
from tuning.experiment import Experiment
from tuning.launch import is_complete
from tuning.storage.place import place
from tuning.storage.working_copy import copy_of

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
TRIALS = 3
NAME = "search"


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path, iterations=60)


@pytest.fixture
def ray_directory(tmp_path_factory, monkeypatch):
    """Short enough for Ray's sockets, and of this test alone."""
    directory = Path("/tmp") / f"s3-{os.getpid()}"
    directory.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def check_whole(results, remote):
    """Every trial's curve is right, and its best weights, and nothing else, are there."""
    assert is_complete(results.experiment)
    assert results.trials["state"].tolist() == ["finished"] * TRIALS
    results.experiment.data()
    check_resumed(results)
    for _, trial in results.trials.iterrows():
        best = read_checkpoint(place(trial["weights"]))
        assert best["metrics"]["val_loss"] == trial["val_loss"]
    kept = {
        p.key.partition("/trials/")[2] for p, info in (remote / "trials").walk() if info.is_file
    }
    kept = {name for name in kept if not name.endswith(("/attempt", "/"))}
    assert kept == {f"{trial:04d}/best.pt" for trial in range(TRIALS)}


def test_a_hanging_store_a_killed_driver_and_its_machine_lost(
    remote, store, monkeypatch, tmp_path, ray_directory
):
    sweep = write_sweep(tmp_path, iterations=900, report_every=30)  # it takes a while
    options = ("--storage", remote, "--concurrency", 2, "--wandb", "disabled")
    search = command("run", sweep, "--name", NAME, "--trials", TRIALS, *options)
    copy = copy_of(remote / NAME)
    wait_for_reports(copy, 4, search)
    with store.hanging():
        time.sleep(6)
    wait_for_reports(copy, 20, search)
    time.sleep(3)  # until what is there has been sent
    os.kill(search.pid, signal.SIGKILL)
    finish(search)
    assert Results.open(NAME, str(remote)).running  # as far as can be told: it did not say goodbye
    shutil.move(tmp_path / "cache", tmp_path / "lost")

    monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "another-machine"))
    before = Results.open(NAME, str(remote))
    assert len(before.history) >= 8
    resumed = command("resume", NAME, *options)
    output = finish(resumed, 240)
    assert resumed.returncode == 0, output
    assert "ran this search; is it alive? 45 s" in output
    assert f"results: python -m analysis results {NAME} --storage {remote}" in output
    results = Results.open(f"{remote}/{NAME}")
    check_whole(results, remote / NAME)
    assert not results.running
    assert results.problems == []

    written = [p for d in (tmp_path, ray_directory) for p in d.rglob("*") if p.is_file()]
    contents = [(p.read_bytes(), str(p)) for p in written]
    contents += [
        (store.client().get_object(Bucket=remote.key.split("/")[0], Key=name)["Body"].read(), name)
        for name in store.names(remote.key.split("/")[0])
    ]
    secret = {"key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
    assert len(contents) > 20
    assert [line for content, where in contents for line in found_in(content, where, secret)] == []


@pytest.mark.long
def test_away_for_too_long_ends_cleanly_and_resume_finishes(
    remote, sweep, store, monkeypatch, ray_directory
):
    options = ("--storage", remote, "--concurrency", 1, "--wandb", "disabled")
    monkeypatch.setenv("DIALOGUE_TUNE_STORAGE_PATIENCE", "3")
    search = command("run", sweep, "--name", NAME, "--trials", TRIALS, *options)
    copy = copy_of(remote / NAME)
    wait_for_reports(copy, 4, search)
    with store.hanging():
        output = finish(search, 200)
    assert search.returncode == 2, output
    assert f"{remote}/{NAME}" in output.partition("error: ")[2]
    assert "it was tried again for" in output
    monkeypatch.delenv("DIALOGUE_TUNE_STORAGE_PATIENCE")
    resumed = command("resume", NAME, *options)
    output = finish(resumed, 240)
    assert resumed.returncode == 0, output
    assert "is it alive" not in output  # it was this machine's own
    check_whole(Results.open(NAME, str(remote)), remote / NAME)


def test_wrong_credentials_and_buckets_are_said_before_anything_begins(
    remote, sweep, ray_directory, bucket
):
    missing = command("run", sweep, "--storage", "s3://no-such-bucket/runs", "--wandb", "disabled")
    output = finish(missing)
    assert missing.returncode == 2
    assert "s3://no-such-bucket/runs: cannot be written by the driver: " in output
    assert "NO_SUCH_BUCKET" in output
    secret = command("run", sweep, "--storage", f"s3://a:hunter2@{bucket}/runs")
    output = finish(secret)
    assert secret.returncode == 2
    assert "must not hold a user or a password" in output
    assert "hunter2" not in output
    assert list(remote.iterdir()) == []


@pytest.mark.long
def test_ctrl_c_while_the_store_is_away(remote, store, tmp_path, ray_directory):
    """It ends though nothing can be sent, and says how to go on."""
    sweep = write_sweep(tmp_path, iterations=300, report_every=30)
    options = ("--storage", remote, "--concurrency", 2, "--wandb", "disabled")
    search = command("run", sweep, "--name", NAME, "--trials", TRIALS, *options)
    copy = copy_of(remote / NAME)
    wait_for_reports(copy, 2, search)
    with store.hanging():
        time.sleep(3)
        began = time.monotonic()
        search.send_signal(signal.SIGINT)
        output = finish(search, 200)
    assert time.monotonic() - began < 90, "the storage's patience is 300 s"
    assert search.returncode == 2, output
    assert "stopping, everything is kept" in output
    first, *others = [line for line in output.splitlines() if line.startswith("error: ")]
    assert first.startswith(f"error: {remote}/{NAME}: cannot be ")
    assert others == [
        f"error: what was not sent is kept on this machine, in {copy}; go on here: "
        f"python -m tuning resume {remote}/{NAME}"
    ]
    words = others[0].partition("python -m tuning ")[2].split()
    resumed = command(*words, "--concurrency", 2, "--wandb", "disabled")
    output = finish(resumed, 240)
    assert resumed.returncode == 0, output
    assert "is it alive" not in output
    check_whole(Results.open(NAME, str(remote)), remote / NAME)


@pytest.mark.long
def test_list_promote_and_repeat(remote, sweep, tmp_path, monkeypatch, ray_directory):
    options = ("--storage", remote, "--concurrency", 2, "--wandb", "disabled")
    first = command("run", sweep, "--name", NAME, "--trials", TRIALS, *options)
    assert first.wait(200) == 0, finish(first)
    finish(first)
    shutil.rmtree(tmp_path / "cache")  # as on a laptop that sees it for the first time
    listed = finish(command("list", "--storage", remote))
    assert NAME in listed and "complete" in listed and f"{TRIALS}/{TRIALS}" in listed
    taken = command("run", sweep, "--name", NAME, *options)
    assert f"{remote}/{NAME}: exists already; choose another --name" in finish(taken)
    assert taken.returncode == 2
    version = promote(Results.open("latest", str(remote)), "s3", registry=tmp_path / "registry")
    assert (version / "weights.pt").is_file()
    repeated = command("repeat", NAME, "--storage", remote, "--wandb", "disabled")
    output = finish(repeated, 200)
    assert repeated.returncode == 0, output
    again = Results.open(f"{NAME}-repeat", str(remote))
    columns = ["trial", "val_loss", "best_iteration"]
    once = Results.open(NAME, str(remote))
    assert again.trials[columns].equals(once.trials[columns])
    assert Experiment.open(NAME, str(remote)).place == remote / NAME
