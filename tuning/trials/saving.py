"""Saving a trial while it trains: snapshots in memory, which a thread writes one after another.

A snapshot that comes before the last one of its kind was begun takes its place. The best weights
of a moment are always written before a checkpoint of that moment or a later one, so that whoever
goes on from a checkpoint finds the best weights up to there.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tuning.trials.trial_files import TrialFiles

Contents = dict[str, Any]


class TrialSaver:
    """Writes the files of one trial in a thread of its own.

    Args:
        files: Where the trial keeps its files.

    Attributes:
        seconds: Time that the thread has spent writing so far.
    """

    def __init__(self, files: TrialFiles) -> None:
        self.files = files
        self.seconds = 0.0
        self._best: Contents | None = None
        self._checkpoint: Contents | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def save_best(self, contents: Contents, *, hold: bool = False) -> None:
        """Takes a snapshot of the best weights; it is written now, or held until `wait`."""
        with self._lock:
            self._best = contents
        if not hold:
            self._begin()

    def save_checkpoint(self, contents: Contents) -> None:
        """Takes a snapshot to go on from, which is written now."""
        with self._lock:
            self._checkpoint = contents
        self._begin()

    def check(self) -> None:
        """Raises what went wrong since the last call.

        Raises:
            StorageError: naming the file that could not be written.
        """
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self, *, ended: bool = False) -> None:
        """Waits until everything is written, what was held included.

        Args:
            ended: The trial will not go on: a checkpoint that was not begun is dropped.

        Raises:
            StorageError: as `check`.
        """
        if ended:
            with self._lock:
                self._checkpoint = None
        self._begin()
        while (thread := self._thread) is not None:
            thread.join()
        self.check()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and (self._best or self._checkpoint):
                # A daemon: a process that is told to end must not wait for a file system.
                self._thread = threading.Thread(target=self._write, name="saver", daemon=True)
                self._thread.start()

    def _write(self) -> None:
        while True:
            with self._lock:
                best, checkpoint = self._best, self._checkpoint
                self._best = self._checkpoint = None
                if best is None and checkpoint is None:
                    self._thread = None
                    return
            started = time.perf_counter()
            try:
                if best is not None:
                    self.files.save_best(best)
                if checkpoint is not None:
                    self.files.save(checkpoint)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                    self._best = self._checkpoint = self._thread = None
                return
            finally:
                self.seconds += time.perf_counter() - started
