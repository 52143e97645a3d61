"""The command line with real processes: killed, interrupted, on a cluster that has not our code."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from analysis import Results
from tests.tuning.ray_support import (
    ROOT,
    check_resumed,
    command,
    finish,
    sweep_mapping,
    wait_for_reports,
    write_corpus,
)
from tuning.experiment import Experiment
from tuning.launch import is_complete

pytestmark = pytest.mark.ray

TRIALS = 5


@pytest.fixture
def sweep_file(tmp_path):
    corpus = write_corpus(tmp_path)
    mapping = sweep_mapping(corpus, iterations=60, hidden_size=32)
    mapping["early_terminate"] = {"type": "hyperband", "min_iter": 5, "eta": 3}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return file


def kill_all_with(text):
    """Kills the processes with a text in their command line.

    `ray stop` would stop every Ray of this machine; ours alone has this directory.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if text in (process / "cmdline").read_text(errors="replace"):
                os.kill(int(process.name), signal.SIGKILL)


def run_arguments(sweep_file, name, *more):
    storage = sweep_file.parent / "runs"
    wandb = () if "--wandb" in more else ("--wandb", "disabled")
    arguments = ("--name", name, "--storage", storage, "--trials", TRIALS, "--concurrency", 1)
    return ("run", sweep_file, *arguments, *wandb, *more)


def summary(results):
    """What must not depend on interruptions."""
    columns = ["trial", "state", "val_loss", "best_iteration", "iteration", "learning_rate", "clip"]
    return results.trials[columns].to_dict("records")


@pytest.mark.chaos
def test_a_killed_driver_resumes_with_nothing_finished_run_again(sweep_file):
    storage = sweep_file.parent / "runs"
    quiet = command(*run_arguments(sweep_file, "quiet"))
    finish(quiet)
    killed = command(*run_arguments(sweep_file, "killed"))
    wait_for_reports(storage / "killed", 22, killed)
    os.kill(killed.pid, signal.SIGKILL)  # the driver alone; Ray has to notice
    finish(killed)
    experiment = Experiment.open("killed", storage)
    assert not is_complete(experiment)
    before = {row.trial for row in Results.open(experiment.path).rows if row.state in ("finished",)}
    assert before, "nothing had finished: kill later"

    resumed = command("resume", "killed", "--storage", storage)
    output = finish(resumed)
    assert resumed.returncode == 0, output
    results = Results.open(experiment.path)
    assert summary(results) == summary(Results.open(storage / "quiet"))
    check_resumed(results)
    started_again = {row.trial for row in results.rows if row.kind == "restarted"}
    assert not started_again & before


@pytest.mark.chaos
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.long),
    ],
)
def test_is_stopped_cleanly_and_says_how_to_go_on(sweep_file, number):
    storage = sweep_file.parent / "runs"
    process = command(*run_arguments(sweep_file, "search", "--wandb", "offline"))
    wait_for_reports(storage / "search", 3, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the whole group
    else:
        os.kill(process.pid, number)
    output = finish(process)
    assert process.returncode == 130, output
    assert "stopping, everything is kept; Ctrl-C again stops at once" in output
    assert "go on: python -m tuning resume search" in output
    assert "Traceback" not in output
    experiment = Experiment.open("search", storage)
    assert not experiment.is_running()
    states = Results.open(experiment.path).trials["state"]
    assert "interrupted" in set(states)

    resumed = command("resume", "search", "--storage", storage)
    output = finish(resumed)
    assert resumed.returncode == 0, output
    results = Results.open(experiment.path)
    assert set(results.trials["state"]) <= {"finished", "stopped"}
    assert len(results.trials) == TRIALS
    check_resumed(results)


@pytest.mark.chaos
def test_a_second_ctrl_c_keeps_everything_too(sweep_file):
    storage = sweep_file.parent / "runs"
    process = command(*run_arguments(sweep_file, "search"))
    wait_for_reports(storage / "search", 2, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    rows = Results.open("search", storage).rows
    assert rows, output


@pytest.mark.slow
def test_ray_may_have_been_imported_before(sweep_file):
    """As in most notebooks: Ray reads its authentication mode when it is imported."""
    code = (
        "import ray, tuning\n"
        "if __name__ == '__main__':\n"
        f"    tuning.run({str(sweep_file)!r}, trials=1, storage={str(sweep_file.parent)!r},\n"
        "               name='search', wandb='disabled')\n"
    )
    script = sweep_file.parent / "notebook.py"
    script.write_text(code, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment | {"PYTHONPATH": str(ROOT), "HOME": str(sweep_file.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert is_complete(Experiment.open("search", sweep_file.parent))


@pytest.mark.chaos
def test_two_drivers_cannot_run_one_experiment(sweep_file):
    storage = sweep_file.parent / "runs"
    first = command(*run_arguments(sweep_file, "search", "--set", "iterations=100000"))
    wait_for_reports(storage / "search", 1, first)
    second = command("resume", "search", "--storage", storage)
    output = finish(second)
    assert second.returncode == 2
    assert "is being run by" in output
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGINT)
    finish(first)
    assert first.returncode == 130


@pytest.mark.slow
def test_workers_without_our_code_get_it_from_the_driver(sweep_file, tmp_path):
    """A cluster started elsewhere, by an interpreter that cannot import the project."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY"))}
    clean |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    cannot = subprocess.run(
        [sys.executable, "-c", "import tuning"],
        cwd=elsewhere,
        env=clean,
        capture_output=True,
        check=False,
    )
    assert cannot.returncode != 0, "the project is installed here; the test would show nothing"
    ray = str(Path(sys.executable).with_name("ray"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = (ray, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}")
    options = ("--num-cpus=2", "--include-dashboard=false", f"--temp-dir=/tmp/ray-{port}")
    head = subprocess.Popen(
        [*start, *options, "--block"],
        cwd=elsewhere,
        env=clean,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process = command(
            *run_arguments(sweep_file, "search", "--address", f"127.0.0.1:{port}"),
            env={"RAY_AUTH_MODE": "disabled"},
        )
        output = finish(process)
        assert process.returncode == 0, output
        assert len(Results.open(sweep_file.parent / "runs" / "search").trials) == TRIALS
    finally:
        kill_all_with(f"/tmp/ray-{port}")
        head.wait(30)
        shutil.rmtree(f"/tmp/ray-{port}", ignore_errors=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["resume", "nothing"], "nothing: unknown experiment"),
        (["run", "{sweep}", "--set", "clipp=1"], "clipp: unknown key, did you mean 'clip'"),
        (["run", "{sweep}", "--set", "corpus=nowhere.tsv"], "nowhere.tsv"),
        (["run", "{sweep}", "--wandb", "online"], "--wandb: online: needs a key"),
        (["run", "{sweep}", "--storage", "/proc/x", "--wandb", "disabled"], "/proc/x"),
        (["run", "{sweep}", "--address", "127.0.0.1:1"], "no Ray cluster answers"),
    ],
)
def test_bad_input_is_one_line_and_status_2(sweep_file, tmp_path, arguments, message):
    arguments = [a.replace("{sweep}", str(sweep_file)) for a in arguments]
    home = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "RAY_AUTH_MODE": "disabled"}
    process = command(*arguments, cwd=tmp_path, env=home)
    output = finish(process)
    assert process.returncode == 2, output
    assert message in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("runs/*"))
