"""What the driver writes while the storage is away: the journal, and the study after it."""

import errno
import os
import threading
import time

import pytest

from model.errors import StorageError
from tests.tuning.test_study import coordinator_of, drive, experiment, listen, read
from tuning.experiment import MANIFEST
from tuning.journal import Journal, Row, read_journal
from tuning.journal import segments as segments_module
from tuning.journal.columns import read_journal_table
from tuning.storage.patience import PATIENCE_VARIABLE
from tuning.study import STUDY
from tuning.study import log as study_log

__all__ = ["experiment"]  # the fixture


def rows(count, begin=0):
    return [Row(kind="session", reason=f"row {i}") for i in range(begin, begin + count)]


def reasons(directory):
    reading = read_journal(directory)
    assert [row.seq for row in reading.rows] == list(range(len(reading.rows)))
    assert read_journal_table(directory).table.column("reason").to_pylist() == [
        row.reason for row in reading.rows
    ], "the other reader reads the same"
    return [row.reason for row in reading.rows]


# The journal


@pytest.fixture
def failing(monkeypatch):
    """Lets the next flushes of the journal fail, though the bytes may be on disk."""
    errors, flush = [], segments_module.flush

    def may_fail(descriptor):
        flush(descriptor)
        if errors:
            number = errors.pop(0)
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(segments_module, "flush", may_fail)
    return errors


def test_a_row_that_failed_is_written_again_into_a_new_segment_and_read_once(tmp_path, failing):
    journal = Journal(tmp_path / "journal")
    first, second, third = rows(3)
    journal.append(first)
    failing += [errno.EIO, errno.ESTALE]
    written = journal.append(second)
    journal.append(third)
    journal.close()
    segments = sorted((tmp_path / "journal").glob("*.jsonl"))
    lines = [segment.read_text().splitlines()[1:] for segment in segments]
    assert [len(each) for each in lines] == [2, 1, 2], "the row is there three times"
    assert lines[0][1] == lines[1][0] == lines[2][0] == written.to_json()
    assert reasons(tmp_path / "journal") == ["row 0", "row 1", "row 2"]
    segments_module.compact(tmp_path / "journal")
    assert reasons(tmp_path / "journal") == ["row 0", "row 1", "row 2"]


def test_nothing_is_written_behind_a_torn_line(tmp_path, monkeypatch):
    """A disk takes half a row and is full; when there is room again, the next row is whole."""
    journal = Journal(tmp_path / "journal")
    first, second, third = rows(3)
    journal.append(first)
    segment = next((tmp_path / "journal").glob("*.jsonl"))

    def half(self, row):
        with segment.open("a") as file:
            file.write(row.to_json()[:20])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_segment", lambda self: half(self, second))
        with pytest.raises(StorageError, match="no space is left on the device"):
            journal.append(second)
    journal.append(third)
    journal.close()
    assert reasons(tmp_path / "journal") == ["row 0", "row 2"], "numbered anew: nobody knew row 1"
    assert read_journal(tmp_path / "journal").torn == [str(segment)]


def test_a_journal_whose_directory_is_away_is_waited_for_and_none_is_made(tmp_path):
    """As while the mount below which it lies is gone."""
    home, away = tmp_path / "mount", tmp_path / "elsewhere"
    home.mkdir()
    journal, said = Journal(home / "journal"), []
    journal.on_wait = said.append
    journal.append(rows(1)[0])
    home.rename(away)
    home.mkdir()

    def come_back():
        assert list(home.iterdir()) == [], "nothing is written below the mount point"
        home.rmdir()
        away.rename(home)

    threading.Timer(2.5, come_back).start()
    began = time.monotonic()
    journal.append(rows(1, 1)[0])
    assert time.monotonic() - began > 2
    journal.close()
    assert reasons(home / "journal") == ["row 0", "row 1"]
    assert said[0].startswith("storage is away for ") and said[-1].startswith("storage is back")
    assert f"{home / 'journal'}: is not there: the storage is away, or not mounted here" in said[0]


def test_a_wait_ends_when_the_search_is_stopped(tmp_path):
    journal = Journal(tmp_path / "journal")
    (tmp_path / "journal").rmdir()
    stopping = threading.Event()
    journal.stopped = stopping.is_set
    threading.Timer(1.2, stopping.set).start()
    with pytest.raises(StorageError, match=r"is not there: .*; it was tried again for [12] s\.$"):
        journal.append(rows(1)[0])


def test_no_journal_is_made_where_there_is_no_experiment(tmp_path):
    with pytest.raises(StorageError, match="journal: cannot be written: no such file"):
        Journal(tmp_path / "gone" / "journal")
    assert list(tmp_path.iterdir()) == []


# The study


def complete(experiment):
    """Whether the study says what the journal does."""
    states = {}
    for row in read_journal(experiment.journal).rows:
        if row.trial is not None:
            states[row.trial] = row.state
    trials = read(experiment).trials
    return [t.user_attrs["state"] for t in trials] == [states[i] for i in range(len(trials))]


@pytest.mark.parametrize("torn", [False, True], ids=["nothing on file", "half on file"])
def test_a_batch_of_the_study_that_failed_is_on_file_once(experiment, monkeypatch, torn):
    """Nobody knows what is on file of it: the file is read again."""
    append, failures, problems = study_log.Log.flush, [], []

    def fail_twice(self):
        if len(failures) < 2 and self._batch:
            failures.append(1)
            if torn:
                batch, self._batch = self._batch, self._batch[: len(self._batch) // 2]
                append(self)
                self._batch = batch
            with study_log.storage_errors(self._path):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        append(self)

    monkeypatch.setattr(study_log.Log, "flush", fail_twice)
    coordinator = coordinator_of(experiment)
    listener = listen(experiment, coordinator, problems)
    drive(coordinator, {})
    listener.close()
    assert len(failures) == 2 and problems == []
    assert len(read(experiment).trials) == 20 and complete(experiment)


def test_a_study_is_not_written_below_a_mount_point(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "30")
    coordinator, problems = coordinator_of(experiment), []
    listener = listen(experiment, coordinator, problems)
    away = tmp_path / "away"
    drive(coordinator, {}, None)
    experiment.path.rename(away)  # the batches of the thread come after it
    time.sleep(2)
    assert not experiment.path.exists(), "no directory is made"
    away.rename(experiment.path)
    time.sleep(1)
    listener.close()
    assert problems == []
    assert (experiment.path / MANIFEST).exists() and (experiment.path / STUDY).exists()
    assert complete(experiment)


def test_a_search_that_ends_while_the_storage_is_away_does_not_wait_for_its_study(
    experiment, tmp_path
):
    coordinator, problems = coordinator_of(experiment), []
    listener = listen(experiment, coordinator, problems)
    drive(coordinator, {}, None)
    experiment.path.rename(tmp_path / "away")
    began = time.monotonic()
    listener.close()
    assert time.monotonic() - began < 15
    assert not experiment.path.exists()
    assert problems and "study.log is no longer written: " in problems[0]
