"""Keeping other processes out of a directory for a moment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model.files import storage_errors


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Waits until no other process is in this block, where the file system has locks.

    Raises:
        StorageError: where the directory cannot be opened.
    """
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
