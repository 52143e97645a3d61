"""Files of a trial that cannot be read: the storage is away, or it is this file alone.

``/proc/self/mem`` stands for a bad block: reading its beginning is an input/output error, really.
"""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from model.checkpoint import read_checkpoint
from model.errors import ExperimentError, StorageError
from model.training import Trainer
from tests.tuning.test_saving import saved_best, start, to_the_end
from tuning.experiment import MANIFEST, Experiment
from tuning.storage import patience
from tuning.trials.cloning import adopt
from tuning.trials.trial_files import TrialFiles

__all__ = ["start"]  # the fixture

BROKEN = "the device reports an input/output error"


def break_block(path):
    """Nothing of a file can be read any more, though it is there."""
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"), path.open("rb") as file:
        file.read()


@pytest.fixture
def soon(monkeypatch):
    """One file is judged sooner."""
    monkeypatch.setattr(patience, "ALONE_SECONDS", 0.3)


@pytest.fixture
def stopped(start, tmp_path):
    """A trial whose process ended after seven of its reports, with checkpoints of 10 and 12."""
    worker = start(iterations=16)
    reports = [worker.step()["report"] for _ in range(7)]
    worker.stop()
    files = TrialFiles(tmp_path, 0)
    assert [path.name[-5:-3] for path in files.checkpoints()] == ["12", "10"]
    assert min(reports, key=lambda r: r.metrics["val_loss"]).iteration == 8
    return files


class TestOneFileAlone:
    def test_the_checkpoint_before_is_taken_and_it_is_said(self, start, stopped, soon):
        quiet = to_the_end(start(trial=1, iterations=16))
        newest = stopped.checkpoint(12)
        break_block(newest)
        began = time.monotonic()
        again = start(attempt=2, iterations=16)
        first = again.step()
        assert 0.3 < time.monotonic() - began < 20
        assert first["note"] == f"{newest}: cannot be read: {BROKEN}."
        heard = [first["report"], *to_the_end(again)]
        assert [report.iteration for report in heard] == [10, 12, 14, 16]
        assert [r.metrics["val_loss"] for r in heard] == [
            r.metrics["val_loss"] for r in quiet if r.iteration >= 10
        ]
        again.stop()
        assert read_checkpoint(newest)["iteration"] == 12, "written anew"

    def test_without_another_it_begins_anew(self, start, stopped, soon):
        for path in stopped.checkpoints():
            break_block(path)
        result = start(attempt=2, iterations=16).step()
        assert result["report"].iteration == 2
        assert result["note"].count(BROKEN) == 2

    def test_best_weights_are_written_anew(self, start, stopped, soon, tmp_path):
        break_block(stopped.best)
        again = start(attempt=2, iterations=16)
        result = again.step()
        assert result["note"] == f"{stopped.best}: cannot be read: {BROKEN}."
        to_the_end(again)
        assert saved_best(tmp_path)["iteration"] == 12, "of 8 there is nothing any more"

    def test_a_clone_goes_on_with_its_own_weights(self, tmp_path, tiny_data, tiny_config, soon):
        (tmp_path / MANIFEST).touch()
        own, source = (TrialFiles(tmp_path, trial, 2) for trial in (7, 8))
        trainer = Trainer(tiny_data, tiny_config())
        trainer.train_interval()
        for files in (own, source):
            files.save(trainer.state())
        assert own.keep_clone(source, 4)
        break_block(own.clone(4))
        told = Trainer(tiny_data, tiny_config(learning_rate=0.5))
        note = adopt(own, told, 4)
        assert note == "no checkpoint to clone; it goes on with its own weights"

    def test_without_patience_it_is_judged_at_once(self, start, stopped, monkeypatch):
        monkeypatch.setenv(patience.PATIENCE_VARIABLE, "0")
        break_block(stopped.checkpoint(12))
        assert start(attempt=2, iterations=16).step()["report"].iteration == 10


class TestNotToBeRead:
    """What we may not read is not damaged: going on without it would train anew what is there."""

    @pytest.fixture(params=["a directory", "no right"])
    def refuse(self, request, monkeypatch):
        """Makes a file one that cannot be read; gives why, in words."""

        def directory(path):
            path.unlink()
            path.mkdir()
            return "it is a directory"

        def no_right(path):  # root has it
            read = Path.read_bytes

            def refused(other):
                if other == path:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                return read(other)

            monkeypatch.setattr(Path, "read_bytes", refused)
            return "permission denied"

        return {"a directory": directory, "no right": no_right}[request.param]

    def test_a_checkpoint(self, start, stopped, refuse):
        newest = stopped.checkpoint(12)
        reason = refuse(newest)
        with pytest.raises(StorageError) as raised:
            start(attempt=2, iterations=16).step()
        assert str(raised.value).endswith(f"{newest}: cannot be read: {reason}.")

    def test_best_weights(self, start, stopped, refuse):
        reason = refuse(stopped.best)
        with pytest.raises(StorageError) as raised:
            start(attempt=2, iterations=16).step()
        assert str(raised.value).endswith(f"{stopped.best}: cannot be read: {reason}.")


def test_a_manifest_that_we_may_not_read(tmp_path, monkeypatch):
    manifest = tmp_path / "x" / MANIFEST
    manifest.parent.mkdir()
    manifest.touch()

    def refused(path, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_text", refused)  # root has the right
    with pytest.raises(ExperimentError) as raised:
        Experiment.open("x", tmp_path)
    assert str(raised.value) == f"{manifest}: cannot be read: permission denied."


def test_who_writes_is_not_known(stopped):
    (stopped.directory / "attempt").mkdir()
    with pytest.raises(StorageError, match="/attempt: cannot be read: it is a directory"):
        TrialFiles(stopped.directory.parents[1], 0, 2).take_over()


def test_best_weights_that_are_damaged_while_lost_reports_are_repeated(start, stopped, tmp_path):
    """Those of the lost report are gone; the weights at hand are those of a later one."""
    checkpoint = read_checkpoint(stopped.checkpoint(12))
    stopped.best.write_bytes(b"damaged")
    again = start(attempt=2, iterations=16, reported=6)
    first = again.step()
    assert first["note"] == f"{stopped.best}: is not a checkpoint of this project."
    heard = [first["report"]]
    for _ in range(2):
        again.saver.wait()
        assert stopped.best.read_bytes() == b"damaged", "nobody has the weights of 8 and 10"
        heard.append(again.step()["report"])
    assert [report.iteration for report in heard] == [8, 10, 12]
    again.saver.wait()
    best = saved_best(tmp_path)
    assert best["metrics"]["val_loss"] == heard[-1].metrics["val_loss"]
    torch.testing.assert_close(best["weights"], checkpoint["weights"], rtol=0, atol=0)
    later = to_the_end(again)
    assert [report.iteration for report in later] == [14, 16]
    assert saved_best(tmp_path)["iteration"] == 12


class TestTheWholeStorage:
    """Then it is waited for, whatever lies in the page cache."""

    @pytest.fixture
    def away(self, monkeypatch):
        """No file can be read, until the event is set."""
        back, read = threading.Event(), Path.read_bytes

        def may_fail(path):
            if not back.is_set():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", may_fail)
        return back

    def test_it_is_waited_for_and_nothing_is_passed_over(self, start, stopped, soon, away):
        threading.Timer(1.5, away.set).start()
        result = start(attempt=2, iterations=16).step()
        assert (result["report"].iteration, result["note"]) == (12, None)

    @pytest.mark.parametrize("seconds", ["0", "1.2"])
    def test_for_so_long(self, start, stopped, soon, away, monkeypatch, seconds):
        monkeypatch.setenv(patience.PATIENCE_VARIABLE, seconds)
        with pytest.raises(StorageError, match=f"checkpoint-00000012.pt: cannot be read: {BROKEN}"):
            start(attempt=2, iterations=16).step()

    def test_a_file_that_is_broken_when_it_is_back_is_passed_over(self, start, stopped, soon, away):
        break_block(stopped.checkpoint(12))
        threading.Timer(1.0, away.set).start()
        began = time.monotonic()
        assert start(attempt=2, iterations=16).step()["report"].iteration == 10
        assert time.monotonic() - began > 1.3, "it is judged once the storage is back"
