"""Nodes that are lost, fall silent or join in the middle of a search: real processes of Ray."""

import os
import signal
import time
from contextlib import suppress

import pytest
import yaml

from analysis import Results
from benchmarks.interruption_checks import check_search
from tests.tuning.preflight_support import Machines, other_versions
from tests.tuning.ray_support import (
    command,
    finish,
    sweep_mapping,
    wait_for_reports,
    write_corpus,
)
from tests.tuning.test_preflight import checked
from tuning.journal import read_journal
from tuning.journal.row import CONNECTION_LOST, NODE_LOST

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]
#: So long that a worker of a new node is there before the one at work is free: Ray Tune lets
#: whoever is free first take the trial that waits.
LONGER = 1200


@pytest.fixture
def machines(tmp_path_factory):
    """A head without places for trials, and a node with one."""
    with Machines(tmp_path_factory.mktemp("n")) as started:
        started.head(cpus=0)
        started.start("alpha")
        started.wait()
        yield started


@pytest.fixture
def search(machines, tmp_path):
    """Starts a search, or resumes it."""
    mapping = sweep_mapping(write_corpus(tmp_path), hidden_size=64, iterations=400, report_every=20)
    sweep_file = tmp_path / "sweep.yaml"
    sweep_file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    where = ("--storage", tmp_path / "runs", "--address", machines.address)

    def begin(trials, iterations=400):
        asked = ("--name", "x", "--trials", trials, "--wandb", "disabled")
        asked += ("--set", f"iterations={iterations}")
        return command("run", sweep_file, *asked, *where, env=machines.environment())

    begin.resume = lambda: command("resume", "x", *where, env=machines.environment())
    begin.path = tmp_path / "runs" / "x"
    return begin


def rows_of(path, kind="report"):
    return [row for row in read_journal(path / "journal").rows if row.kind == kind]


def process_of(row):
    return int(row.worker.rpartition(":")[2])


def kill(machines, name):
    """Every process of a node."""
    for pid in machines.processes(f"PREFLIGHT_NODE={name}"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_checkpoint_torn_as_its_node_dies_is_passed_over_elsewhere(machines, search):
    """The trial goes on from the one before, on another node, and says so in the results."""
    machines.start("beta")
    machines.wait()
    process = search(3)
    wait_for_reports(search.path, 1, process)
    files = search.path / "trials"

    def on_alpha():
        pids = machines.processes("PREFLIGHT_NODE=alpha")
        return {row.trial for row in rows_of(search.path) if process_of(row) in pids}

    def checkpoints():
        return sorted(path for t in on_alpha() for path in files.glob(f"{t:04d}/checkpoint-*.pt"))

    until(lambda: len(checkpoints()) == 2, process)
    (trial,) = on_alpha()
    kill(machines, "alpha")
    older, newest = checkpoints_of(files, trial)
    os.truncate(newest, newest.stat().st_size // 2)
    said = finish(process, 300)
    assert process.returncode == 0, said
    check_search(search.path, 3)
    (failed,) = rows_of(search.path, "failed")
    assert failed.trial == trial
    # Ray may hear of the closed connection before it knows that the node is dead.
    assert failed.reason in (NODE_LOST, CONNECTION_LOST)
    first = next(r for r in rows_of(search.path) if r.trial == trial and r.attempt == 2)
    assert first.iteration == int(older.stem.partition("-")[2])
    assert first.reason == (f"{newest}: is damaged: its contents do not match their digest."), (
        "the note is in the results"
    )
    assert f"trial {trial}: {first.reason}" in said, "and in the live view"
    standing = Results.open(search.path).history
    assert standing[standing["trial"] == trial]["iteration"].tolist() == list(range(20, 401, 20))


def checkpoints_of(files, trial):
    """The older one and the newest, of a trial whose process is dead."""
    return sorted(files.glob(f"{trial:04d}/checkpoint-*.pt"))


@pytest.mark.long
def test_a_node_that_joins_is_used_and_one_that_leaves_is_not_waited_for(machines, search):
    process = search(4, iterations=LONGER)
    wait_for_reports(search.path, 2, process)
    machines.start("beta")
    machines.wait()
    betas = machines.processes("PREFLIGHT_NODE=beta")
    until(
        lambda: any(
            process_of(row) in machines.processes("PREFLIGHT_NODE=beta")
            for row in rows_of(search.path)
        ),
        process,
    )
    kill(machines, "beta")
    said = finish(process, 300)
    assert process.returncode == 0, said
    assert betas and "4 trials, 1 at a time" in said
    assert "trials trained at once: 2 from now on, 1 before" in said
    assert "trials trained at once: 1 from now on, 2 before" in said
    check_search(search.path, 4)
    assert waiting_at_most(search.path) <= 2, "nothing is proposed long before it can run"


def waiting_at_most(path):
    """How many trials were proposed and had not reported yet, at the most."""
    waiting, most = set(), 0
    for row in read_journal(path / "journal").rows:
        if row.kind == "proposed":
            waiting.add(row.trial)
        elif row.kind == "report":
            waiting.discard(row.trial)
        most = max(most, len(waiting))
    return most


@pytest.mark.long
def test_a_node_with_other_versions_that_joins_ends_the_search_in_words(machines, search, tmp_path):
    process = search(4, iterations=LONGER)
    wait_for_reports(search.path, 2, process)
    machines.start("beta", environment=other_versions(tmp_path / "versions"))
    said = finish(process, 300)
    assert process.returncode == 2, said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        "error: node beta, which joined the cluster later: has Python 3.10.13, but the driver has "
    )
    assert "has Ray 2.59.0, but" in error and "has torch 9.9.9, but" in error
    assert error.endswith("; install the same everywhere, or end Ray there.")
    assert rows_of(search.path, "failed") == [], "it is no fault of the trial"
    kill(machines, "beta")
    process = search.resume()
    said = finish(process, 300)
    assert process.returncode == 0, said
    check_search(search.path, 4)


@pytest.mark.long
def test_a_search_is_resumed_while_a_node_is_being_lost(machines, search, tmp_path):
    """It is silent, and Ray has not given it up yet."""
    machines.start("beta")
    machines.wait()
    process = search(4)
    wait_for_reports(search.path, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    machines.stop_answering("beta")
    process = search.resume()
    said = finish(process, 400)
    assert process.returncode == 0, said
    assert (
        "note: node beta: does not answer within 30 s; the search begins without it, and Ray gives "
        "it up in about a minute, unless it comes back." in said
    )
    assert "1 at a time" in said, "its place does not count"
    check_search(search.path, 4)


def test_where_no_other_node_has_room_a_silent_one_stays_a_problem(machines, tmp_path):
    machines.stop_answering("alpha")
    said = checked(machines, tmp_path, wait=5)
    assert said["problems"] == [
        "node alpha: does not answer within 5 s; restart Ray there, or end it."
    ]
