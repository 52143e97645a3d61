"""A directory for what Ray Tune writes beside a search, which nobody reads."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuning.storage.file_lock import is_locked, lock_directory

_PREFIX = "dialogue-tune-"
#: One so young may belong to a search that has not locked it yet.
_YOUNG_SECONDS = 60.0


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A new directory, for this user alone, for the time of a block.

    A driver that is killed cannot remove its own: whoever comes next does.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, lock_directory(Path(name)):
        yield Path(name)


def _remove_abandoned() -> None:
    """Removes directories of ours whose driver does not live."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/"):
        with suppress(OSError):  # it may go while we look
            there = directory.lstat()
            # The lock's file tells ours from other directories with such a name.
            ours = there.st_uid == os.geteuid() and (directory / ".lock").is_file()
            if ours and time.time() - there.st_mtime > _YOUNG_SECONDS and not is_locked(directory):
                shutil.rmtree(directory, ignore_errors=True)
