"""Experiment directories: made whole or not at all, found by name, written by one at a time."""

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from model.errors import ExperimentError, PreparedDataError, StorageError
from model.evaluation import unigram_loss
from tuning import environment
from tuning.__main__ import main
from tuning.coordinator import Coordinator, Objective
from tuning.environment import differences, git_commit, machine, versions
from tuning.experiment import FORMAT, MANIFEST, Experiment, list_experiments
from tuning.journal import Journal
from tuning.scheduling import make_scheduler
from tuning.searchers import Outcome, PastTrial, make_searcher
from tuning.starting.starting_points import StartingPoints
from tuning.status import Status, status
from tuning.sweeps.sweep_file import parse_sweep

FORK = multiprocessing.get_context("fork")
SWEEP = {
    "method": "random",
    "metric": {"name": "val_loss", "goal": "minimize"},
    "parameters": {"clip": {"min": 0.0, "max": 9.0}},
    "tags": ["a"],
}


@pytest.fixture
def create(tmp_path, tiny_data):
    def build(name="first", storage=tmp_path / "runs", sweep=SWEEP, **values):
        settings = {"seed": 3, "trials": 2, "settings": {"max_failures": 1}, "command": ["x", "y"]}
        return Experiment.create(
            storage, name, parse_sweep(sweep, "s.yaml"), tiny_data, **(settings | values)
        )

    return build


def coordinator_of(experiment):
    sweep = experiment.sweep()
    return Coordinator(
        make_searcher(sweep, experiment.manifest["seed"]),
        make_scheduler(sweep),
        Journal(experiment.journal),
        experiment.objectives,
        trials=experiment.manifest["trials"],
        max_failures=1,
    )


def hold_lock(experiment, taken):
    """Runs in another process: takes the lock and never gives it back by itself."""
    file = experiment.lock()
    taken.set()
    time.sleep(60)
    file.close()


@pytest.fixture
def other_driver():
    """Lets another process take the lock; returns the process."""
    processes = []

    def start(experiment):
        taken = FORK.Event()
        processes.append(FORK.Process(target=hold_lock, args=(experiment, taken)))
        processes[-1].start()
        assert taken.wait(60)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


class TestCreate:
    def test_the_manifest_says_what_was_asked_for(self, create, tiny_data, tmp_path):
        experiment = create()
        manifest = json.loads((tmp_path / "runs" / "first" / MANIFEST).read_text())
        assert manifest == experiment.manifest
        created = manifest.pop("created")
        assert created.endswith("+00:00")
        commit = manifest.pop("commit")
        assert commit is None or len(commit.removesuffix("+changes")) == 40
        assert re.fullmatch("[0-9a-f]{8}", manifest.pop("id"))
        assert manifest == {
            "format": FORMAT,
            "name": "first",
            "sweep_file": "s.yaml",
            "sweep": SWEEP,
            "seed": 3,
            "trials": 2,
            "objectives": [{"name": "val_loss", "goal": "minimize"}],
            "settings": {"max_failures": 1},
            "data": {
                "fingerprint": tiny_data.fingerprint,
                "settings": tiny_data.settings,
                "counts": tiny_data.counts,
                "unigram_val_loss": unigram_loss(tiny_data),
            },
            "command": ["x", "y"],
            "versions": versions(),
            "machine": machine(),
        }

    def test_versions(self):
        assert {"python", "torch", "ray", "optuna"} <= set(versions())
        assert all(isinstance(version, str) for version in versions().values())

    def test_no_commit_without_git(self, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        assert git_commit() is None

    def test_the_commit_of_a_checkout_comes_before_a_file_of_another_time(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "tuning").mkdir()
        (tmp_path / "COMMIT").write_text("of-the-file\n")
        monkeypatch.setattr(environment, "__file__", str(tmp_path / "tuning" / "environment.py"))
        assert git_commit() == "of-the-file"
        git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
        commit = git_commit()
        assert commit is not None and len(commit) == 40

    def test_what_differs_from_an_environment_is_said(self):
        then = {"commit": "a" * 40, "versions": {"torch": "1", "ray": "2"}}  # no machine: older
        now = {
            "commit": None,
            "versions": {"torch": "1", "wandb": "3"},
            "machine": {"cores": 2},
        }
        assert differences(then, now) == [
            f"commit: was {'a' * 40}, is not known",
            "ray: was 2, is not known",
            "wandb: was not known, is 3",
            "cores: was not known, is 2",
        ]
        assert differences(now, now) == []

    def test_a_target_is_in_the_objective(self, create):
        metric = {"metric": {"name": "val_loss", "goal": "minimize", "target": 2.5}}
        experiment = create(sweep=SWEEP | metric)
        assert experiment.manifest["objectives"] == [
            {"name": "val_loss", "goal": "minimize", "target": 2.5}
        ]
        assert experiment.objective == Objective("val_loss", "minimize", 2.5)

    def test_what_it_begins_with_is_read_back(self, create, tmp_path):
        starting = StartingPoints(
            tried=({"clip": 1.5},),
            past=(PastTrial({"clip": 2.0}, Outcome("stopped", 3.0, 8), ((4, 3.5), (8, 3.0))),),
        )
        (tmp_path / "runs" / "first").mkdir(parents=True)
        (tmp_path / "runs" / "first" / "try.json").write_text("of a driver that died")
        experiment = create(starting=starting)
        assert Experiment.open(experiment.path).starting_points() == starting
        assert create("second").starting_points() == StartingPoints()
        assert not (tmp_path / "runs" / "second" / "try.json").exists()
        (experiment.path / "try.json").write_text('{"format": 1}')
        with pytest.raises(ExperimentError, match="first/try.json: cannot be read: 'configurat"):
            experiment.starting_points()

    def test_is_read_back(self, create, tiny_data):
        experiment = create()
        again = Experiment.open(experiment.path)
        assert again == experiment
        assert again.name == "first"
        assert again.objective == Objective("val_loss", "minimize")
        assert again.data().fingerprint == tiny_data.fingerprint
        assert again.sweep().space.searched == experiment.sweep().space.searched
        assert sorted(p.name for p in experiment.path.iterdir()) == ["data.safetensors", MANIFEST]

    def test_a_taken_name_is_refused_and_left_alone(self, create):
        experiment = create()
        before = {p: p.read_bytes() for p in experiment.path.iterdir()}
        with pytest.raises(
            ExperimentError, match="exists already; choose another --name, or .* resume first"
        ):
            create(seed=9)
        assert {p: p.read_bytes() for p in experiment.path.iterdir()} == before

    @pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "-x", "é", "a" * 201])
    def test_a_name_that_cannot_be_one(self, create, name, tmp_path):
        with pytest.raises(ExperimentError, match="cannot name an experiment; use letters, digits"):
            create(name)
        assert list(tmp_path.iterdir()) == []

    def test_latest_is_no_name(self, create):
        with pytest.raises(ExperimentError, match="'latest': .*it means the newest one"):
            create("latest")

    def test_foreign_files_are_not_taken_over(self, create, tmp_path):
        """An old journal would be replayed into the new search."""
        journal = tmp_path / "runs" / "first" / "journal"
        journal.mkdir(parents=True)
        with pytest.raises(ExperimentError, match="holds files, but is no experiment; remove it"):
            create()
        assert list((tmp_path / "runs" / "first").iterdir()) == [journal]

    def test_what_a_killed_driver_left_is_no_obstacle(self, create, tmp_path):
        """It wrote the data but not the manifest."""
        (tmp_path / "runs" / "first").mkdir(parents=True)
        (tmp_path / "runs" / "first" / "data.safetensors").write_bytes(b"half")
        assert create().data().examples

    @pytest.mark.parametrize("call", [1, 2])
    def test_a_full_disk_leaves_nothing(self, create, tmp_path, monkeypatch, call):
        """At the data, and at the manifest."""
        calls, replace = [], os.replace

        def full(*arguments):
            calls.append(arguments)
            if len(calls) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(StorageError, match="no space is left on the device; free some"):
                create()
        assert list((tmp_path / "runs").iterdir()) == []
        assert create().name == "first"

    @pytest.mark.parametrize("storage", ["/proc/runs", "/dev/null/runs"])
    def test_a_storage_that_cannot_be_written(self, create, storage):
        with pytest.raises(StorageError, match=f"{storage}/first: cannot be written: "):
            create(storage=Path(storage))


class TestOpen:
    @pytest.fixture
    def storage(self, create, tmp_path):
        for i, name in enumerate(("demo-1", "demo-2", "other")):
            path = create(name).path
            os.utime(path / MANIFEST, ns=(0, i * 10**9))
        (tmp_path / "runs" / "no-experiment").mkdir()
        (tmp_path / "runs" / "file").write_text("")
        return tmp_path / "runs"

    def test_by_name_directory_or_latest(self, storage, monkeypatch):
        assert Experiment.open("demo-1", storage).name == "demo-1"
        assert Experiment.open(storage / "demo-2").name == "demo-2"
        assert Experiment.open("latest", storage).name == "other"
        os.utime(storage / "demo-1" / MANIFEST, ns=(0, 10**10))
        assert Experiment.open("latest", str(storage)).name == "demo-1"
        monkeypatch.chdir(storage.parent)
        assert Experiment.open("demo-1").path == storage / "demo-1"  # runs, by default
        monkeypatch.chdir(storage)
        assert Experiment.open("demo-2").path == storage / "demo-2"  # a directory right here

    def test_list(self, storage):
        assert [p.name for p in list_experiments(storage)] == ["demo-1", "demo-2", "other"]
        assert list_experiments(storage / "none") == []

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("demo-3", r"demo-3: unknown experiment, did you mean 'demo-[12]'\?"),
            ("zzz", r"zzz: unknown experiment; valid: demo-1, demo-2, other\."),
            ("no-experiment", "no-experiment: unknown experiment"),
            ("file", "file: unknown experiment"),
            ("a" * 300, "unknown experiment; valid"),
            ("a\x00b", "unknown experiment; valid"),
            ("", "unknown experiment; valid"),
        ],
    )
    def test_unknown(self, storage, monkeypatch, name, text):
        monkeypatch.chdir(storage.parent)
        with pytest.raises(ExperimentError, match=text):
            Experiment.open(name, storage)

    def test_unknown_where_there_are_none(self, tmp_path):
        for name in ("latest", "x"):
            with pytest.raises(
                ExperimentError, match=f"{name}: unknown experiment. There are none in .*; start"
            ):
                Experiment.open(name, tmp_path / "runs")

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (json.dumps({"format": FORMAT + 1}), "has format 2, written by a newer version"),
            (json.dumps({"name": "x"}), "has no format number; it is not one of this project"),
            ("[]", "has no format number"),
            ("{", "cannot be read"),
            ("", "cannot be read"),
            (b"\xff", "cannot be read"),
        ],
    )
    def test_a_manifest_of_another_kind(self, storage, content, text):
        content = content if isinstance(content, bytes) else content.encode()
        (storage / "demo-1" / MANIFEST).write_bytes(content)
        with pytest.raises(ExperimentError, match=f"demo-1/{MANIFEST}: {text}"):
            Experiment.open("demo-1", storage)

    def test_damaged_data(self, storage):
        file = storage / "demo-1" / "data.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(PreparedDataError, match=r"demo-1/data.safetensors: "):
            Experiment.open("demo-1", storage).data()
        file.unlink()
        with pytest.raises(PreparedDataError, match="cannot be read: no such file"):
            Experiment.open("demo-1", storage).data()

    def test_other_data(self, storage, tiny_data):
        manifest = json.loads((storage / "demo-1" / MANIFEST).read_text())
        manifest["data"]["fingerprint"] = "0" * 64
        (storage / "demo-1" / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ExperimentError, match="is not the data that the experiment began with"):
            Experiment.open("demo-1", storage).data()


class TestLock:
    def test_another_process_is_kept_out_and_told_who_has_it(self, create, other_driver):
        experiment = create()
        assert not experiment.is_running()
        process = other_driver(experiment)
        assert experiment.is_running()
        with pytest.raises(ExperimentError, match=rf"is being run by .*, process {process.pid}\."):
            experiment.lock()

    def test_it_is_free_again_after_a_death(self, create, other_driver):
        experiment = create()
        process = other_driver(experiment)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not experiment.is_running()
        with experiment.lock():
            assert experiment.is_running()
            with pytest.raises(ExperimentError, match=f"process {os.getpid()}"):
                experiment.lock()
        assert not experiment.is_running()

    def test_whoever_looks_is_not_taken_for_a_driver(self, create, monkeypatch):
        """`tuning list` holds a shared lock for an instant, perhaps just when a driver begins."""
        import fcntl

        experiment = create()
        experiment.lock().close()
        with (experiment.path / ".lock").open() as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            timer = threading.Timer(0.15, fcntl.flock, (looking, fcntl.LOCK_UN))
            timer.start()
            experiment.lock().close()
            timer.join()

    def test_a_file_system_without_locks_is_said(self, create, monkeypatch):
        def unsupported(*arguments):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        experiment = create()
        monkeypatch.setattr("fcntl.flock", unsupported)
        with pytest.raises(StorageError, match="first: cannot be locked: .*; choose another --sto"):
            experiment.lock()
        assert not experiment.is_running()


class TestStatus:
    def test_before_the_first_trial(self, create):
        experiment = create()
        assert status(experiment) == Status(
            name="first",
            state="interrupted",
            trials="0/2",
            best=None,
            created=experiment.manifest["created"],
        )

    def test_from_start_to_end(self, create, other_driver):
        experiment = create()
        coordinator = coordinator_of(experiment)
        coordinator.session("session", "0 trials known")
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 3.0})
        coordinator.report(0, 2, {"val_loss": 2.0})
        coordinator.report(0, 3, {"val_loss": 2.5}, state="finished")
        coordinator.next_assignment()
        assert (status(experiment).state, status(experiment).trials) == ("interrupted", "1/2")
        process = other_driver(experiment)
        assert (status(experiment).state, status(experiment).best) == ("running", 2.0)
        process.kill()
        process.join()
        coordinator.session("ended", "interrupted")
        assert status(experiment).state == "interrupted"
        coordinator.failed(1, "ValueError")
        coordinator.session("ended", "complete")
        assert (status(experiment).state, status(experiment).trials) == ("complete", "2/2")

    def test_an_extension_is_asked_for_too(self, create):
        experiment = create(trials=1)
        coordinator = coordinator_of(experiment)
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 3.0}, state="finished")
        coordinator.end_session()
        assert (status(experiment).state, status(experiment).trials) == ("complete", "1/1")
        coordinator.extend(2)
        assert (status(experiment).state, status(experiment).trials) == ("interrupted", "1/3")

    def test_the_target_completes_a_search(self, create):
        metric = {"metric": {"name": "val_loss", "goal": "minimize", "target": 2.5}}
        experiment = create(sweep=SWEEP | metric, trials=9)
        coordinator = coordinator_of(experiment)
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 2.5})
        coordinator.end_session()
        assert (status(experiment).state, status(experiment).trials) == ("complete", "1/9")

    def test_a_goal_to_maximise(self, create):
        metric = {"metric": {"name": "val_token_accuracy", "goal": "maximize"}}
        experiment = create(sweep=SWEEP | metric, trials=None)
        coordinator = coordinator_of(experiment)
        coordinator.next_assignment()
        for i, value in enumerate((0.25, 0.5, 0.375), start=1):
            coordinator.report(0, i, {"val_token_accuracy": value})
        assert (status(experiment).best, status(experiment).trials) == (0.5, "0/1")


class TestListCommand:
    def test_one_line_for_each(self, create, tmp_path, capsys):
        create("demo-1")
        experiment = create("demo-2")
        coordinator = coordinator_of(experiment)
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 2.5})
        assert main(["list", "--storage", str(tmp_path / "runs")]) == 0
        head, _, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert head == ["name", "state", "trials", "best", "created"]
        assert [line[:4] for line in lines] == [
            ["demo-1", "interrupted", "0/2", "-"],
            ["demo-2", "interrupted", "0/2", "2.5"],
        ]

    def test_none(self, tmp_path, capsys):
        assert main(["list", "--storage", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "no experiments yet; start one with 'python -m tuning run'" in out
