"""Waiting for a storage that is away: on a clock of our own, then on real files."""

import errno
import os
import pickle
import re
import threading
import time

import pytest

from model.errors import ConfigurationError, StorageError
from model.files import atomic_write, storage_errors
from tuning.storage import patience
from tuning.storage.patience import (
    ALONE_SECONDS,
    PATIENCE_SECONDS,
    PATIENCE_VARIABLE,
    TRANSIENT,
    check_there,
    is_transient,
    patience_seconds,
    patiently,
)


class Clock:
    """Passes only where somebody sleeps."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


class Storage:
    """An action that fails until a moment; counts how often it was tried."""

    def __init__(self, clock, seconds, number=errno.ESTALE):
        self.clock, self.number = clock, number
        self.back = clock.now + seconds
        self.tries = 0

    def __call__(self):
        self.tries += 1
        if self.clock.now < self.back:
            with storage_errors("/runs/x"):
                raise OSError(self.number, os.strerror(self.number))
        return "done"


# By hand


def test_what_works_is_done_once(clock):
    said = []
    storage = Storage(clock, 0)
    assert patiently(storage, on_wait=said.append) == "done"
    assert (storage.tries, clock.pauses, said) == (1, [], [])


def test_what_comes_back_is_done_after_growing_pauses(clock):
    storage, said = Storage(clock, 60), []
    assert patiently(storage, on_wait=said.append) == "done"
    assert 60 <= clock.now - 1000 <= 65, "no pause is longer than five seconds"
    assert 12 < storage.tries < 40
    assert max(clock.pauses) <= 0.2, "so that a stop is heard soon"
    assert re.fullmatch(
        r"storage is away for [123] s: /runs/x: cannot be written: the network file system is "
        r"away\. Trying for another 29[789] s\.",
        said[0],
    )
    assert 4 <= len(said) <= 8, "ever more seldom"
    assert said[-1] == f"storage is back after {clock.now - 1000:.0f} s"


def test_of_a_short_wait_nothing_is_said(clock):
    said = []
    assert patiently(Storage(clock, 0.5), on_wait=said.append) == "done"
    assert clock.now > 1000 and said == []


def test_the_last_error_says_how_long_was_waited(clock):
    storage = Storage(clock, 1e9)
    with pytest.raises(StorageError) as raised:
        patiently(storage, seconds=30)
    assert clock.now - 1000 == pytest.approx(30), "the last try is made when the time is over"
    assert str(raised.value) == (
        "/runs/x: cannot be written: the network file system is away; it was tried again for 30 s."
    )
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is StorageError and str(again) == str(raised.value)


def test_without_patience_an_error_is_raised_as_it_is(clock):
    storage = Storage(clock, 1)
    with pytest.raises(StorageError, match=r"the network file system is away\.$"):
        patiently(storage, seconds=0)
    assert storage.tries == 1


def test_a_wait_can_be_given_up(clock):
    storage = Storage(clock, 1e9)
    with pytest.raises(StorageError, match=r"; it was tried again for 7 s\.$"):
        patiently(storage, stopped=lambda: clock.now >= 1007)


@pytest.mark.parametrize("number", sorted(TRANSIENT))
def test_what_may_come_back_is_waited_for(clock, number):
    assert patiently(Storage(clock, 1, number)) == "done"


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
    ],
)
def test_what_does_not_get_better_is_not_waited_for(clock, number):
    storage = Storage(clock, 1, number)
    with pytest.raises(StorageError):
        patiently(storage)
    assert storage.tries == 1 and clock.pauses == []


def test_other_errors_are_not_waited_for(clock):
    def wrong():
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        patiently(wrong)
    with pytest.raises(StorageError, match="attempt 2 goes on"):
        patiently(lambda: (_ for _ in ()).throw(StorageError("attempt 2 goes on")))
    assert clock.pauses == []


def test_others_may_say_what_else_passes(clock):
    """As clients of S3 have errors of their own, without a number, wrapped in ours."""
    tries = []

    def slow_down():
        tries.append(1)
        if len(tries) < 4:
            raise StorageError("s3://bucket: cannot be written: SlowDown.") from RuntimeError("503")
        return "done"

    def busy(error):
        return isinstance(error, RuntimeError) and "503" in str(error)

    assert patiently(slow_down, also=busy) == "done"
    assert not is_transient(RuntimeError("503"))
    assert is_transient(RuntimeError("503"), busy)


def test_how_long_is_said_by_the_environment(clock, monkeypatch):
    monkeypatch.delenv(PATIENCE_VARIABLE, raising=False)
    assert patience_seconds() == PATIENCE_SECONDS == 300
    monkeypatch.setenv(PATIENCE_VARIABLE, "12.5")
    with pytest.raises(StorageError, match=r"for 12 s\.$"):
        patiently(Storage(clock, 1e9))
    assert clock.now == pytest.approx(1012.5)


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", ""])
def test_a_bad_patience_is_refused(monkeypatch, text):
    monkeypatch.setenv(PATIENCE_VARIABLE, text)
    with pytest.raises(ConfigurationError) as raised:
        patience_seconds()
    assert str(raised.value) == (
        f"DIALOGUE_TUNE_STORAGE_PATIENCE: must be a number of seconds of at least 0, "
        f"but got {text!r}."
    )


# One file alone


def test_where_the_others_answer_a_file_is_given_up_soon(clock):
    storage = Storage(clock, 1e9, errno.EIO)
    with pytest.raises(StorageError, match=r"reports an input/output error\.$"):
        patiently(storage, others=lambda: "done")
    assert ALONE_SECONDS == 5
    assert 5 <= clock.now - 1000 < 11, "a pause may lie in between"


def test_it_is_judged_only_when_the_storage_has_been_back_for_a_while(clock):
    """What is asked for just after the others may be a moment late."""
    away = Storage(clock, 60)
    storage = Storage(clock, 60 + ALONE_SECONDS - 0.5)
    assert patiently(storage, others=away) == "done"
    assert away.tries > 12, "it was asked each time"


def test_others_that_answer_now_and_then_prove_nothing(clock):
    asked = []

    def others():
        asked.append(1)
        if len(asked) % 2 == 0:
            raise OSError(errno.EIO, "now and then")

    with pytest.raises(StorageError, match=r"; it was tried again for 30 s\.$"):
        patiently(Storage(clock, 1e9), others=others, seconds=30)


# A storage that is not there


def test_nothing_is_written_while_the_anchor_is_not_there(clock, tmp_path):
    """As of a mount point that is left empty: writing would make directories on our own disk."""
    anchor, written = tmp_path / "mount" / "experiment.json", []

    def come_back():
        if clock.now > 1010 and not anchor.exists():
            anchor.parent.mkdir()
            anchor.touch()
        return False

    patiently(lambda: written.append(anchor.exists()), anchor=anchor, stopped=come_back)
    assert written == [True]


def test_a_storage_that_stays_away_is_named(clock, tmp_path):
    anchor = tmp_path / "mount" / "experiment.json"
    file = anchor.parent / "trials" / "best.pt"
    with pytest.raises(StorageError) as raised:
        patiently(lambda: atomic_write(file, b"1"), anchor=anchor, seconds=20)
    assert str(raised.value) == (
        f"{anchor}: is not there: the storage is away, or not mounted here; "
        "it was tried again for 20 s."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_fails_because_the_storage_goes_meanwhile_is_tried_again(clock, tmp_path):
    """The mount goes after the look at the anchor: then a file or directory is not found."""
    anchor, tries = tmp_path / "experiment.json", []
    anchor.touch()

    def write():
        tries.append(1)
        if len(tries) == 1:
            anchor.unlink()
            raise FileNotFoundError(errno.ENOENT, "gone", "x")
        return "done"

    def come_back():
        anchor.touch()
        return False

    assert patiently(write, anchor=anchor, stopped=come_back) == "done"
    assert len(tries) == 2


def test_what_is_not_there_though_the_storage_is_is_an_error(clock, tmp_path):
    anchor = tmp_path / "experiment.json"
    anchor.touch()
    with pytest.raises(FileNotFoundError):
        patiently((tmp_path / "gone").read_bytes, anchor=anchor)
    assert clock.pauses == []
    check_there(anchor)


# On the real clock


def test_a_real_wait_ends_soon_after_the_storage_is_back(tmp_path):
    anchor = tmp_path / "mount"
    threading.Timer(0.6, anchor.mkdir).start()
    began = time.monotonic()
    patiently(lambda: (anchor / "file").write_text("x"), anchor=anchor, seconds=30)
    assert 0.5 < time.monotonic() - began < 5
