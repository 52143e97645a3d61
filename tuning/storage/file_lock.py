"""The right to write into a directory, for one process at a time."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from pathlib import Path
from typing import IO

from model.errors import ExperimentError, StorageError
from model.files import reason_of, storage_errors

_LOCK = ".lock"


def lock_directory(
    directory: Path, name: str = _LOCK, *, doing: str = "run", patience: float = 0.5
) -> IO[str]:
    """Takes the right to write; it is given back when the file is closed or we die.

    Args:
        directory: Where to write.
        name: Of the file, one for each right.
        doing: What it is the right to, in words.
        patience: Seconds to wait for another process that has it.

    Raises:
        ExperimentError: where another process has it.
        StorageError: where the file system has no locks.
    """
    with storage_errors(directory):
        file = (directory / name).open("a+", encoding="utf-8")
    try:
        _take(file, patience)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ExperimentError(f"{directory}: is being {doing} by {owner}.") from None
    except OSError as error:
        file.close()
        reason = f"cannot be locked: {reason_of(error)}; choose another --storage."
        raise StorageError(f"{directory}: {reason}") from error
    file.truncate(0)
    file.write(this_process())
    file.flush()
    return file


def this_process() -> str:
    """Who we are, for people."""
    return f"{platform.node()}, process {os.getpid()}"


def is_locked(directory: Path) -> bool:
    """Whether a process has the right to write now."""
    try:
        with (directory / _LOCK).open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never locked, or the file system has no locks
        return False
    return False


def _take(file: IO[str], patience: float) -> None:
    """Locks a file; `is_locked` of another process may hold it for an instant."""
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
