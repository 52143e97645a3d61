"""The storage goes away in the middle of a search, or is full: real mounts, real processes.

    STORAGE_AWAY_SECONDS=60 pytest tests/tuning/test_storage_faults.py -m chaos -k away

lets it be away for a minute instead of ten seconds.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from benchmarks.interruption_checks import check_search
from model.checkpoint import read_checkpoint
from tests.tuning.preflight_support import why_no_mounts
from tests.tuning.ray_support import (
    command,
    finish,
    sweep_mapping,
    wait_for_reports,
    write_corpus,
)
from tuning.experiment import Experiment
from tuning.journal import read_journal
from tuning.storage.patience import PATIENCE_VARIABLE

pytestmark = [
    pytest.mark.ray,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_no_mounts() is not None, reason=why_no_mounts() or ""),
]

TRIALS, REPORTS = 4, 10
AWAY_SECONDS = float(os.environ.get("STORAGE_AWAY_SECONDS", "10"))


class Mount:
    """A storage that is mounted at a place, and can be taken away and come back as it was."""

    def __init__(self, directory: Path, size: str | None = None) -> None:
        self.place, self.size = directory / "runs", size
        self.server = directory / "server"
        self.place.mkdir()
        self.server.mkdir()
        if size is not None:
            self._run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.server))
        self.come_back()

    @staticmethod
    def _run(*arguments: str) -> None:
        subprocess.run(arguments, check=True)

    def come_back(self) -> None:
        self._run("mount", "--bind", str(self.server), str(self.place))

    def go_away(self) -> None:
        """At once, though files on it are open; what is open goes on."""
        self._run("umount", "--lazy", str(self.place))

    def remove(self) -> None:
        for place in (self.place, self.server):
            while self._is_mounted(place):
                self._run("umount", "--lazy", str(place))

    @staticmethod
    def _is_mounted(place: Path) -> bool:
        """Of one file system at two places `Path.is_mount` knows nothing."""
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        return str(place) in (line.split()[1] for line in lines)

    @property
    def left_below(self) -> list[Path]:
        """What was written below the mount point while the storage was away."""
        assert not self._is_mounted(self.place)
        return list(self.place.rglob("*"))

    def fill(self) -> Path:
        """Leaves not a byte free."""
        filler = self.place / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
        return filler


@pytest.fixture
def mounted(tmp_path):
    made = []

    def mount(size=None):
        made.append(Mount(tmp_path, size))
        return made[-1]

    yield mount
    for each in made:
        each.remove()


@pytest.fixture(autouse=True)
def searches_ended(monkeypatch):
    """Ends the search of a test that failed, with all of its processes."""
    started, begin = [], command

    def remembered(*arguments, **options):
        started.append(begin(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(sys.modules[__name__], "command", remembered)
    yield
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def sweep_file(tmp_path):
    mapping = sweep_mapping(
        write_corpus(tmp_path), hidden_size=32, iterations=20 * REPORTS, report_every=20
    )
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return file


def start(sweep_file, storage, patience):
    """A search of two trials at a time, which waits so many seconds for its storage."""
    asked = ("--name", "x", "--storage", storage, "--trials", TRIALS, "--concurrency", 2)
    environment = {PATIENCE_VARIABLE: str(patience)}
    return command("run", sweep_file, *asked, "--wandb", "disabled", env=environment)


def some_reports(process, storage, most=TRIALS * REPORTS // 2):
    """Waits for a random moment of the search."""
    count = random.randint(2, most)
    print(f"after {count} reports")
    wait_for_reports(storage / "x", count, process)


def resumed(storage):
    process = command("resume", "x", "--storage", storage)
    said = finish(process, 240)
    assert process.returncode == 0, said
    check_search(storage / "x", TRIALS)


def test_a_storage_that_is_away_for_a_while_is_waited_for(mounted, sweep_file):
    """The search then goes on as if nothing had been, and nothing is left below the mount point."""
    mount = mounted()
    process = start(sweep_file, mount.place, patience=AWAY_SECONDS + 60)
    some_reports(process, mount.place)
    mount.go_away()
    until = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < until:
        assert mount.left_below == []
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    mount.come_back()
    said = finish(process, 240)
    assert process.returncode == 0, said
    assert "storage is away for " in said and "storage is back after " in said, said
    check_search(mount.place / "x", TRIALS)
    rows = read_journal(mount.place / "x" / "journal").rows
    assert {row.kind for row in rows}.isdisjoint({"failed", "restarted"}), "no trial noticed"
    mount.go_away()
    assert mount.left_below == []


@pytest.mark.long
def test_a_storage_that_stays_away_ends_the_search_and_resume_finishes_it(mounted, sweep_file):
    mount = mounted()
    process = start(sweep_file, mount.place, patience=3)
    some_reports(process, mount.place)
    mount.go_away()
    said = finish(process, 120)
    assert process.returncode == 2, said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert str(mount.place) in error and "the storage is away, or not mounted here" in error
    assert "it was tried again for 3 s" in error
    assert mount.left_below == []
    mount.come_back()
    resumed(mount.place)


@pytest.mark.long
def test_ctrl_c_ends_a_search_that_waits_for_its_storage(mounted, sweep_file):
    mount = mounted()
    process = start(sweep_file, mount.place, patience=600)
    some_reports(process, mount.place)
    mount.go_away()
    time.sleep(4)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = finish(process, 120)
    assert time.monotonic() - began < 90
    assert process.returncode == 2, said
    assert "stopping, everything is kept" in said and "the storage is away" in said
    assert mount.left_below == []
    mount.come_back()
    resumed(mount.place)


def test_a_full_disk_ends_the_search_with_nothing_torn_and_resume_finishes_it(mounted, sweep_file):
    mount = mounted("24m")
    process = start(sweep_file, mount.place, patience=60)
    some_reports(process, mount.place)
    filler = mount.fill()
    began = time.monotonic()
    said = finish(process, 120)
    assert process.returncode == 2, said
    assert time.monotonic() - began < 50, "nobody waits for a disk to empty itself"
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert str(mount.place / "x") in error
    assert "no space is left on the device; free some space or choose another place" in error
    filler.unlink()
    experiment = Experiment.open("x", mount.place)
    assert read_journal(experiment.journal).rows, "the journal can be read"
    for file in (experiment.path / "trials").rglob("*.pt"):
        if not file.name.startswith("."):
            read_checkpoint(file)  # raises where it is torn
    resumed(mount.place)
    assert not list((experiment.path / "trials").rglob(".tmp-*"))
