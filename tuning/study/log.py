"""How operations of an Optuna study come onto file: in batches, under Optuna's own lock."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.files import atomic_write, storage_errors

#: Others hold the file's lock for milliseconds; older than this, its owner is dead.
_LOCK_SECONDS = 1.0


class Log:
    """Where Optuna's storage reads and writes: the file, in batches.

    A backend of `optuna.storages.JournalStorage`. Optuna's own one locks, flushes and reads the
    file for every figure of a trial. Here it is read once, since nobody else writes trials, and
    the operations of a batch are appended at once, under Optuna's own lock.

    Args:
        path: The file, which is read; None for one that is still to be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unread = path is not None
        self._batch: list[dict[str, Any]] = []
        self._before = 0  # number of the batch's first operation
        self._moment: str | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Called by Optuna: the operations from a number on."""
        if self._unread:
            from optuna.storages.journal import JournalFileBackend

            self._unread = False
            if not Path(str(self._path)).is_file():  # Optuna would make it
                return
            for log in JournalFileBackend(str(self._path)).read_logs(0):
                self._before += 1
                yield log
        yield from self._batch[max(log_number_from - self._before, 0) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Called by Optuna: adds operations to the batch."""
        for log in logs:
            for name in ("datetime_start", "datetime_complete"):
                if self._moment is not None and name in log:
                    log[name] = self._moment
        self._batch.extend(logs)

    @contextmanager
    def at(self, seconds: float) -> Iterator[None]:
        """Lets the operations of a block have happened at a time (seconds since 1970), not now."""
        self._moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
        try:
            yield
        finally:
            self._moment = None

    def flush(self) -> None:
        """Appends the batch to the file."""
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        if not self._batch:
            return
        file = str(self._path)
        with storage_errors(file):
            try:
                JournalFileBackend(file, JournalFileOpenLock(file)).append_logs(self._batch)
            except RuntimeError as error:  # its lock went with the storage
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), file) from error
        self._next_batch()

    def write_whole(self, path: Path) -> None:
        """Puts everything so far into a file, whole or not at all."""
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in self._batch)
        atomic_write(path, "".join(lines).encode())
        self._path = path
        self._next_batch()

    def _next_batch(self) -> None:
        self._before += len(self._batch)
        self._batch = []


def drop_torn_line(path: Path) -> None:
    """Cuts off a last line without its end, of a driver that was killed as it wrote."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def break_stale_lock(path: Path) -> None:
    """Removes Optuna's lock of the file where its owner was killed with it."""
    lock = path.with_name(f"{path.name}.lock")
    until = time.monotonic() + _LOCK_SECONDS
    while os.path.lexists(lock):
        if time.monotonic() > until:
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.05)
