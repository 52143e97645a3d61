"""Writing files whole or not at all: the project's single home of atomic file writing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from model.errors import StorageError

#: What fills a file: its bytes, or a function that writes them to the open file.
Content = bytes | bytearray | memoryview | Callable[[BinaryIO], object]


@runtime_checkable
class RemoteFile(Protocol):
    """A file that is not in the file system, but knows how to write itself whole or not at all."""

    def write(self, content: Content, allow: Callable[[], None] | None = None) -> None:
        """As `atomic_write`; errors are `OSError`."""

    def read_bytes(self) -> bytes:
        """Its contents."""


_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ESTALE: "the network file system is away",
    errno.EIO: "the device reports an input/output error",
}
_ADVICE = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or choose another place")
_ADVICE |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "choose another place")
#: Some network and FUSE file systems cannot be told to flush; what was written stays written.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def atomic_write(
    path: str | os.PathLike[str] | RemoteFile,
    content: Content,
    allow: Callable[[], None] | None = None,
    *,
    parents: bool = True,
) -> None:
    """Writes a file whole or not at all, and makes it last a power failure.

    The bytes go to a temporary file of the same directory, which then takes the name in one step:
    a reader sees the old file or the new one, never a part. Missing directories are made.

    Args:
        path: The file to write or to replace.
        content: Its bytes, or a function that is called with the open binary file.
        allow: Called when everything is written, just before the file takes the name: it may raise.
        parents: Whether missing directories are made. False where a mount may be gone just then,
            below whose place they would be made.

    Raises:
        StorageError: naming the path and the reason, with the old file as it was and no temporary
            file left; so too after any error that the function raises itself.
    """
    if isinstance(path, RemoteFile):
        with storage_errors(path):
            path.write(content, allow)
        return
    path = Path(path)
    with storage_errors(path):
        if path.exists() and not path.is_file():
            raise StorageError(f"{path}: cannot be written: it is not a file; name a file.")
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            _write_new(temporary, content)
            if allow is not None:
                allow()
            os.replace(temporary, path)  # noqa: PTH105 - tests make exactly this call fail
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _flush_directory(path.parent)


def atomic_write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as indented JSON (ASCII, one final newline), whole or not at all.

    Args:
        path: The file to write or to replace.
        value: Anything of `json`; NaN and infinities are written as Python reads them back.

    Raises:
        StorageError: as `atomic_write`.
        TypeError: for a value that JSON has no form for; nothing is written.
    """
    atomic_write(path, (json.dumps(value, indent=2) + "\n").encode())


def finite(value: Any) -> Any:
    """NaN and infinity become null: JSON has neither, and both mean "no figure"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return value


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        StorageError: where the file cannot be read, with the reason.
    """
    with storage_errors(path, "read"), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason_of(error: OSError) -> str:
    """Says in words, without a full stop, why the operating system refused."""
    if error.errno in _REASONS:
        return _REASONS[error.errno]
    return os.strerror(error.errno).lower() if error.errno else str(error) or "unknown reason"


def is_no_space(reason: str) -> bool:
    """Whether a reason of ours, or a message with one in it, is that a disk or a quota is full."""
    return any(_REASONS[number] in reason for number in (errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def storage_errors(
    path: str | os.PathLike[str] | RemoteFile, action: str = "written"
) -> Iterator[None]:
    """Turns every `OSError` of its block into a `StorageError`: path, reason, what to do.

    Args:
        path: The file that the block is about.
        action: What could not be done to it: "written", "read", "removed".
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0) if action == "written" else None
        reason = f"{reason_of(error)}; {advice}" if advice else reason_of(error)
        raise StorageError(f"{path}: cannot be {action}: {reason}.") from error


def _write_new(path: Path, content: Content) -> None:
    with path.open("xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        flush(file.fileno())


def _flush_directory(directory: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Waits until what was written to an open file would outlive a power failure.

    Some file systems cannot say; that is passed over.

    Raises:
        OSError: where the device refuses.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
