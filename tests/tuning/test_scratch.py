import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.ray_support import ROOT
from tuning.scratch import scratch_directory

HOLD = """
from tuning.scratch import scratch_directory
with scratch_directory() as place:
    (place / "tuner.pkl").write_text("x")
    print(place, flush=True)
    input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(temporary):
    """Another driver, and the directory it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    try:
        yield process, temporary / Path(process.stdout.readline().strip()).name
    finally:
        process.kill()
        process.communicate()


def age(directory):
    os.utime(directory, (0, 0), follow_symlinks=False)


def test_is_there_for_the_block_and_for_this_user_alone(temporary):
    with scratch_directory() as place:
        assert place.parent == temporary
        assert place.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_what_a_killed_driver_left_is_removed_by_the_next(holder, temporary):
    process, left = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / "tuner.pkl").exists()
    with scratch_directory():
        assert left.exists(), "it may be one that is just being made"
    age(left)
    with scratch_directory() as place:
        assert list(temporary.iterdir()) == [place]


def test_what_a_living_driver_has_is_left(holder):
    _, held = holder
    age(held)
    with scratch_directory():
        assert (held / "tuner.pkl").exists()


def test_what_is_not_ours_is_left(temporary):
    other = temporary / "dialogue-tune-0"  # where preemption leaves its marks
    (other / "preempted").mkdir(parents=True)
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lock").write_text("")
    link = temporary / "dialogue-tune-link"
    link.symlink_to(elsewhere)
    for directory in (other, elsewhere, link):
        age(directory)
    with scratch_directory():
        pass
    assert other.is_dir() and (elsewhere / ".lock").is_file() and link.is_symlink()
