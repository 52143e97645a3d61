"""Writes the study while a search runs, or brings it up to date afterwards."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from model.errors import ExperimentError
from tuning.experiment import MANIFEST, Experiment
from tuning.journal import Row, read_journal
from tuning.storage.patience import patiently
from tuning.study.file import MismatchError, StudyFile
from tuning.study.trials import trials_of

#: Name of the file in an experiment's directory.
STUDY = "study.log"
#: Time between two batches: those who look ask every few seconds.
_BATCH_SECONDS = 0.5
_CLOSE_SECONDS = 30.0
#: How long of that a storage is waited for that is away just then.
_AWAY_SECONDS = 5.0


class StudyListener:
    """Writes the study while the search runs. Hears of rows; see `tuning.coordinator.Listener`.

    Args:
        experiment: Whose study it is. What its journal holds already is brought onto file first.
        on_problem: Called once with a text, when the file cannot be written.
    """

    def __init__(
        self, experiment: Experiment, on_problem: Callable[[str], None] = lambda text: None
    ) -> None:
        self.experiment = experiment
        self.on_problem = on_problem
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._patient_until = math.inf
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="study", daemon=True)
        self._thread.start()

    def heard(self, row: Row) -> None:
        """Takes a row without waiting."""
        if not self._failed:
            self._rows.put(row)

    def close(self) -> None:
        """Finishes the file, waiting a bounded time; what has not ended becomes WAITING."""
        self._rows.put(None)
        self._patient_until = time.monotonic() + _AWAY_SECONDS
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self.on_problem(f"{STUDY} was not finished in time; the next resume brings it up.")

    def _work(self) -> None:
        try:
            writer = _Writer(self.experiment, lambda: time.monotonic() > self._patient_until)
            for batch in self._batches():
                writer.take(batch)
            writer.interrupt()
        except Exception as error:  # whatever it is, the search must go on
            self._failed = True
            self.on_problem(f"{STUDY} is no longer written: {error}")

    def _batches(self) -> Iterator[list[Row]]:
        """What was heard, in batches, until the end."""
        while (row := self._rows.get()) is not None:
            batch = [row]
            self._closing.wait(_BATCH_SECONDS)
            while not self._rows.empty():  # there is no other reader
                row = self._rows.get()
                if row is None:
                    yield batch
                    return
                batch.append(row)
            yield batch


class _Writer:
    """Keeps the file and what should be in it; everything happens in one thread.

    Args:
        experiment: Whose study it is.
        stopped: Whether to wait no longer for a storage that is away.
    """

    def __init__(self, experiment: Experiment, stopped: Callable[[], bool] = lambda: False) -> None:
        self.experiment = experiment
        self.stopped = stopped
        self.space = experiment.sweep().space
        self._begin()

    def _begin(self) -> None:
        """Brings the file to what the journal says now; waits for a storage that is away."""
        anchor = self.experiment.path / MANIFEST
        patiently(lambda: self._open(anchor), anchor=anchor, stopped=self.stopped)

    def _open(self, anchor: Path) -> None:
        journal = self.experiment.journal
        rows = read_journal(journal).rows if journal.is_dir() else []
        self.known = rows[-1].seq if rows else -1
        self.trials = trials_of(rows, self.space, self.experiment.objectives)
        path, name = self.experiment.path / STUDY, self.experiment.name
        self.file = StudyFile(path, name, self.trials, anchor)
        self.file.open()
        self.trials.forget_ended()

    def take(self, rows: Sequence[Row]) -> None:
        """Takes in new rows; a trial that is retried after its end needs the file written anew."""
        new = [row for row in rows if row.seq > self.known]
        if any(row.kind == "retried" for row in new):
            return self._begin()
        touched = {number for row in new for number in self.trials.take(row)}
        return self._write(touched)

    def interrupt(self) -> None:
        """The session has ended."""
        self._write(set(self.trials.interrupt()))

    def _write(self, touched: set[int]) -> None:
        try:
            for number in sorted(touched):
                self.file.write(self.trials.trials[number])
            self.file.flush()
        except MismatchError:
            self._begin()
        self.trials.forget_ended()


def bring_up_to_date(experiment: Experiment) -> Path:
    """The study's file, brought up to date where no driver does so now.

    So an experiment has one that was killed and not resumed, or that is older than this module.

    Raises:
        DialogueTuneError: where the journal is damaged or the file cannot be written.
    """
    try:
        with experiment.lock():
            _Writer(experiment).interrupt()
    except ExperimentError:
        if not experiment.is_running():
            raise
    return experiment.path / STUDY
