"""Saving beside training: order, supersession, and what faults at any moment leave behind."""

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch

from model.checkpoint import read_checkpoint, snapshot
from model.errors import StorageError
from model.training import Trainer
from tests.tuning.trainable_support import local_trainable
from tuning.coordinator import Objective
from tuning.trials.saving import TrialSaver
from tuning.trials.trial_files import TrialFiles

GOAL = Objective("val_loss", "minimize")


class SlowFiles:
    """Notes what is written, and takes its time where it is told to."""

    def __init__(self):
        self.written = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def _write(self, what):
        self.begun.set()
        assert self.go_on.wait(30)
        self.written.append(what)

    def save_best(self, contents):
        self._write(("best", contents["i"]))

    def save(self, contents):
        self._write(("checkpoint", contents["i"]))


@pytest.fixture
def slow():
    """A saver that is busy with the best weights of report 0 until it may go on."""
    files = SlowFiles()
    files.go_on.clear()
    saver = TrialSaver(files)
    saver.save_best({"i": 0})
    assert files.begun.wait(30)
    return saver, files


class TestSaver:
    def test_a_newer_snapshot_takes_the_place_of_one_not_begun(self, slow):
        saver, files = slow
        for i in (1, 2, 3):
            saver.save_checkpoint({"i": i})
        saver.save_best({"i": 3})
        files.go_on.set()
        saver.wait()
        assert files.written == [("best", 0), ("best", 3), ("checkpoint", 3)]

    def test_the_best_weights_come_before_a_checkpoint(self, slow):
        saver, files = slow
        saver.save_checkpoint({"i": 1})
        saver.save_best({"i": 2})
        files.go_on.set()
        saver.wait()
        assert files.written == [("best", 0), ("best", 2), ("checkpoint", 1)]

    def test_held_weights_are_written_once_at_the_end(self):
        files = SlowFiles()
        saver = TrialSaver(files)
        for i in range(5):
            saver.save_best({"i": i}, hold=True)
        assert files.written == []
        saver.wait(ended=True)
        assert files.written == [("best", 4)]

    def test_an_ended_trial_needs_no_checkpoint(self, slow):
        saver, files = slow
        saver.save_checkpoint({"i": 1})
        threading.Timer(0.05, files.go_on.set).start()
        saver.wait(ended=True)
        assert files.written == [("best", 0)]

    def test_training_does_not_wait(self, slow):
        saver, files = slow
        saver.save_best({"i": 1})
        saver.check()
        assert files.written == []
        files.go_on.set()
        saver.wait()
        assert saver.seconds > 0

    def test_an_error_names_the_file_and_is_raised_once(self, tmp_path):
        (tmp_path / "trials").write_text("not a directory")
        saver = TrialSaver(TrialFiles(tmp_path, 7))
        saver.save_best({"i": 0})
        with pytest.raises(StorageError, match=r"trials/0007: cannot be written: a part of the"):
            saver.wait()
        saver.check()
        (tmp_path / "trials").unlink()
        saver.save_best({"i": 1})
        saver.wait()
        assert read_checkpoint(tmp_path / "trials" / "0007" / "best.pt") == {"i": 1}


def test_a_snapshot_is_what_was_though_training_goes_on(tiny_data, tiny_config, tmp_path):
    trainer = Trainer(tiny_data, tiny_config())
    trainer.train_interval()
    trainer.save(tmp_path / "then.pt")
    taken = snapshot(trainer.state())
    trainer.train_interval()
    TrialFiles(tmp_path, 0).save(taken)
    then, kept = (
        read_checkpoint(file)
        for file in (tmp_path / "then.pt", tmp_path / "trials/0000/checkpoint-00000004.pt")
    )
    for part in ("weights", "optimizers"):
        torch.testing.assert_close(kept.pop(part), then.pop(part), rtol=0, atol=0)
    assert kept == then


# The trainable, in processes that are killed


CONFIG = {
    "hidden_size": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "batch_size": 8,
    "iterations": 24,
    "report_every": 2,
    "learning_rate": 0.02,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture
def start(tmp_path, tiny_data):
    """Starts the trainable, as Ray does in a worker, on a trial of an experiment."""
    local = local_trainable(tmp_path, tiny_data)

    def begin(trial=0, attempt=1, stops_at=frozenset(), reported=24, **fields):
        config = {"trial": trial, "attempt": attempt, "config": CONFIG | fields}
        config["reported"] = reported
        return local(config | {"stops_at": stops_at})

    return begin


@pytest.fixture
def slow_disk(monkeypatch):
    """Every flush takes longer than training up to a report does."""
    flush = os.fsync

    def slowly(descriptor):
        time.sleep(0.1)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", slowly)


@pytest.fixture
def broken(tmp_path):
    """Puts a file in the place of the trials' directory."""

    def break_it():
        for left in sorted((tmp_path / "trials").rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() else left.unlink()
        (tmp_path / "trials").rmdir()
        (tmp_path / "trials").write_text("")

    return break_it


def to_the_end(worker):
    """The reports of a trial."""
    reports = [worker.step()["report"]]
    while reports[-1].state == "running":
        reports.append(worker.step()["report"])
    return reports


def best_of(reports):
    return min(reports, key=lambda report: report.metrics["val_loss"])


def saved_best(tmp_path, trial=0):
    return read_checkpoint(TrialFiles(tmp_path, trial).best)


def test_the_weights_kept_are_those_of_the_best_report(start, tmp_path):
    best = best_of(to_the_end(start()))
    assert best.iteration < 24, "the last report is the best: the test would show little"
    kept = saved_best(tmp_path)
    assert (kept["iteration"], kept["best_val_loss"]) == (
        best.iteration,
        best.metrics["val_loss"],
    )


#: The flush at which each attempt is killed; a file has two, its own and its directory's.
KILLED_AT = [1, 2, 4, 3, 5, 8, 6, 7, 9, 2, 11]


@pytest.mark.parametrize("when", ["report", "improved", "end"])
def test_killed_at_any_write_it_ends_with_the_weights_of_its_best_report(
    start, tmp_path, slow_disk, monkeypatch, when
):
    """A disk slower than training, and SIGKILL in the middle of some flush of each attempt."""
    quiet = to_the_end(start(trial=1, checkpoint_when=when))
    journal = tmp_path / "reports"
    context = multiprocessing.get_context("fork")

    def attempt(number):
        flush, flushes = os.fsync, []

        def kill_or_flush(descriptor):
            flushes.append(descriptor)
            if [len(flushes)] == KILLED_AT[number - 1 : number]:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", kill_or_flush)
        worker = start(attempt=number, checkpoint_when=when)
        state = "running"
        while state == "running":
            report = worker.step()["report"]
            state = report.state
            with journal.open("a") as file:  # as the driver's: what was heard is kept
                file.write(json.dumps([report.iteration, report.metrics["val_loss"]]) + "\n")

    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        process = context.Process(target=attempt, args=(len(codes) + 1,))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
    assert codes[-1] == 0
    assert len(codes) > 2
    heard = [tuple(json.loads(line)) for line in journal.read_text().splitlines()]
    assert set(heard) == {(r.iteration, r.metrics["val_loss"]) for r in quiet}
    kept, expected = saved_best(tmp_path), saved_best(tmp_path, trial=1)
    assert kept["iteration"] == best_of(quiet).iteration
    torch.testing.assert_close(kept["weights"], expected["weights"], rtol=0, atol=0)


def test_where_it_may_be_stopped_the_best_weights_are_there_with_the_report(
    start, tmp_path, slow_disk
):
    worker = start(stops_at=frozenset({2, 5}))
    for number in range(1, 6):
        report = worker.step()["report"]
        best = TrialFiles(tmp_path, 0).best
        if number in (2, 5):
            assert read_checkpoint(best)["best_val_loss"] == report.metrics["best_val_loss"]
        elif number == 1:
            assert not best.exists(), "the disk is not slow: the test would show little"


def test_nothing_is_being_written_once_a_trial_has_ended(start, tmp_path, slow_disk):
    worker = start(iterations=8)
    to_the_end(worker)
    files = TrialFiles(tmp_path, 0)
    assert saved_best(tmp_path)["iteration"] <= 8
    files.remove_checkpoints()  # as the driver does when it hears of the end
    worker.reset_config({"trial": 1, "attempt": 1, "config": CONFIG, "stops_at": frozenset()})
    worker.step()
    assert [file.name for file in files.directory.iterdir()] == ["best.pt"]


def test_what_cannot_be_written_is_raised_at_the_next_report(start, tmp_path, broken):
    worker = start()
    worker.step()
    worker.saver.wait()
    broken()
    with pytest.raises(StorageError, match=r"trials/0000: cannot be written"):
        for _ in range(2):
            worker.step()
            time.sleep(0.3)


def test_a_new_trial_begins_with_what_the_last_one_could_not_write(start, tmp_path, broken):
    worker = start(checkpoint_when="end")
    worker.step()
    (tmp_path / "trials").write_text("")
    new = {"trial": 1, "attempt": 1, "config": CONFIG, "stops_at": frozenset()}
    assert worker.reset_config(new)
    with pytest.raises(StorageError, match=r"trials/0000: cannot be written"):
        worker.step()
    (tmp_path / "trials").unlink()
    assert worker.step()["report"].iteration == 2, "it is raised once"


def test_a_failing_step_leaves_the_best_weights(start, tmp_path, slow_disk, monkeypatch):
    worker = start(checkpoint_when="end")
    first = worker.step()["report"]

    def fail():
        raise MemoryError("on purpose")

    monkeypatch.setattr(worker.trainer, "train_interval", fail)
    with pytest.raises(MemoryError, match="on purpose"):
        worker.step()
    assert saved_best(tmp_path)["best_val_loss"] == first.metrics["val_loss"]


def test_the_end_of_the_process_waits_for_what_is_being_written(start, tmp_path, slow_disk):
    worker = start()
    worker.step()
    worker.stop()
    assert saved_best(tmp_path)["iteration"] == 2


def test_damaged_best_weights_are_said_and_written_anew(start, tmp_path):
    worker = start()
    for _ in range(3):
        worker.step()
    worker.stop()
    best = TrialFiles(tmp_path, 0).best
    best.write_bytes(best.read_bytes()[:-100])
    again = start(attempt=2)
    result = again.step()
    assert "best.pt: is damaged" in result["note"]
    reports = [result["report"], *to_the_end(again)]
    assert saved_best(tmp_path)["iteration"] == best_of(reports).iteration


class TestCheckpointWhen:
    def checkpoints(self, start, tmp_path, **fields):
        """The newest checkpoint after each report, its writing waited for."""
        worker, found = start(**fields), []
        reports = []
        for _ in range(8):
            reports.append(worker.step()["report"])
            worker.saver.wait()
            newest = TrialFiles(tmp_path, 0).checkpoints()[:1]
            found.append(int(newest[0].stem.split("-")[1]) if newest else None)
        return reports, found

    def test_report(self, start, tmp_path):
        """They are taken when the next step begins."""
        _, found = self.checkpoints(start, tmp_path, checkpoint_every=3)
        assert found == [None, None, None, 6, 6, 6, 12, 12]

    def test_improved(self, start, tmp_path):
        reports, found = self.checkpoints(start, tmp_path, checkpoint_when="improved")
        improved = [report.iteration for report in reports if report.improved]
        assert improved != [report.iteration for report in reports]
        assert set(found) - {None} == set(improved) - {16}

    def test_end(self, start, tmp_path):
        worker = start(checkpoint_when="end")
        for _ in range(11):
            worker.step()
        assert not list((tmp_path / "trials").rglob("*"))
        assert worker.step()["report"].state == "finished"
        assert [p.name for p in (tmp_path / "trials").rglob("*.pt")] == ["best.pt"]


def test_where_the_time_of_a_step_went(start):
    worker = start()
    first, second = (worker.step()["report"].metrics for _ in range(2))
    assert first["build_seconds"] > 0
    assert "build_seconds" not in second
    for metrics in (first, second):
        parts = ("build", "train", "eval", "save")
        known = sum(metrics.get(f"{part}_seconds", 0) for part in parts)
        assert 0.5 * metrics["step_seconds"] < known <= metrics["step_seconds"]
        assert metrics["write_seconds"] >= 0
    worker.step()
    worker.stop()
    repeated = start(attempt=2).step()["report"]
    assert repeated.iteration == second["iteration"], "the checkpoint of report 2"
    assert {"build_seconds", "step_seconds"} <= set(repeated.metrics)
    assert not {"train_seconds", "eval_seconds"} & set(repeated.metrics), "of another attempt"
    assert repeated.metrics["val_loss"] == second["val_loss"]


def test_reports_that_the_driver_has_lost_are_made_again_in_order(start, tmp_path):
    """Its machine is gone, and with it the rows that were not yet on the object store."""
    quiet = to_the_end(start(trial=1))
    killed = start()
    for _ in range(4):
        killed.step()
    killed.cleanup()  # the newest checkpoint is that of the third report
    resumed = start(attempt=2, reported=2)
    heard = to_the_end(resumed)
    assert [report.iteration for report in heard] == list(range(4, 26, 2))
    assert [r.metrics["val_loss"] for r in heard] == [r.metrics["val_loss"] for r in quiet[1:]]
    assert saved_best(tmp_path)["iteration"] == best_of(quiet).iteration
    for spent in ("train_seconds", "eval_seconds"):  # by another attempt
        assert [spent in report.metrics for report in heard] == [False] * 2 + [True] * 9


def test_a_first_attempt_removes_what_a_lost_driver_left(start, tmp_path):
    files = TrialFiles(tmp_path, 0)
    files.directory.mkdir(parents=True)
    (files.directory / "checkpoint-00000999.pt").write_bytes(b"of another configuration")
    start().step()
    assert not files.checkpoint(999).exists()
