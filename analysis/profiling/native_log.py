"""Keeping the log of torch's C++ parts out of a terminal, where it speaks of its own workings."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

#: The profiler says that it starts and stops, and that it did not see everything being allocated.
_OF_NO_USE = (b"SyncActivityProfilerHandler", b"Memory block of unknown size")
_STDERR = 2


@contextmanager
def native_log_filtered() -> Iterator[IO[Any]]:
    """Holds back what native code writes to standard error, and passes on the rest at the end.

    Yields:
        A file that still leads to where standard error led, for progress bars.
    """
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    try:
        with tempfile.TemporaryFile() as held, os.fdopen(os.dup(kept), "w") as terminal:
            os.dup2(held.fileno(), _STDERR)
            try:
                yield terminal if _is_standard_error() else sys.stderr
            finally:
                sys.stderr.flush()
                os.dup2(kept, _STDERR)
                held.seek(0)
                _pass_on(held.readlines())
    finally:
        os.close(kept)


def _is_standard_error() -> bool:
    """Whether Python's standard error is the process's: in notebooks and tests it is not."""
    try:
        return sys.stderr.fileno() == _STDERR
    except (OSError, ValueError):
        return False


def _pass_on(lines: list[bytes]) -> None:
    for line in lines:
        if not any(known in line for known in _OF_NO_USE):
            os.write(_STDERR, line)
