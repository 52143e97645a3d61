"""Waiting for a storage that is away: what fails for a while is tried again, within bounds.

A network file system that is being restarted, a link that is cut, a mount that is gone for a
moment: none of them should end a search. What cannot get better by itself (no space, a quota, no
permission, a read-only file system) is raised at once.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from model.errors import ConfigurationError, StorageError
from model.files import reason_of
from tuning.storage.remote_path import is_transient as says_away

T = TypeVar("T")

#: Seconds for which a storage may be away, unless `PATIENCE_VARIABLE` says otherwise.
PATIENCE_SECONDS = 300.0
#: Name of the environment variable; each process reads its own.
PATIENCE_VARIABLE = "DIALOGUE_TUNE_STORAGE_PATIENCE"

#: What the operating system says of devices, servers and links that may come back.
TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ESTALE,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
    }
)
#: The first pause and the longest, in seconds; each is about twice the one before.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: Nothing is said of a shorter wait.
_SILENT_SECONDS = 1.0
#: How soon a wait ends that is to be given up.
_SLICE = 0.2
#: For how long the rest of the storage is to answer until one file is taken for unreadable.
ALONE_SECONDS = 5.0


class Anchor(Protocol):
    """A file or directory that is there as long as the storage is."""

    def exists(self) -> bool:
        """Whether it is there now."""


def patience_seconds() -> float:
    """For how long a storage may be away.

    Raises:
        ConfigurationError: where the environment variable is no number of seconds.
    """
    text = os.environ.get(PATIENCE_VARIABLE)
    if text is None:
        return PATIENCE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(
            PATIENCE_VARIABLE, [f"must be a number of seconds of at least 0, but got {text!r}."]
        )
    return seconds


def patiently(
    action: Callable[[], T],
    *,
    anchor: Anchor | None = None,
    seconds: float | None = None,
    on_wait: Callable[[str], None] = lambda text: None,
    stopped: Callable[[], bool] = lambda: False,
    also: Callable[[BaseException], bool] = says_away,
    others: Callable[[], object] | None = None,
) -> T:
    """Does something with the storage, again and again while the storage is away.

    Args:
        action: Is done again as a whole, so it must do no harm when it is done twice.
        anchor: What is there as long as the storage is, the manifest of an experiment say. It is
            looked for before every try, so that nothing is written below a mount point whose
            mount is gone; and what fails while it is not there is tried again, whatever the error.
        seconds: For how long, from the first error on; None for `patience_seconds`.
        on_wait: Is told in words that the storage is away, ever more seldom, and that it is back.
        stopped: Asked five times a second whether to give up early.
        also: Whether an error passes beside those of `is_transient`; asked of each error of a
            chain of causes.
        others: Reads something else of the storage. Where that works for `ALONE_SECONDS` while the
            action goes on failing, nobody waits any longer: a bad block of a disk does not pass.

    Returns:
        What the action returns.

    Raises:
        StorageError: the last error, with how long was waited.
        Exception: what else the action raises, at once; what it raises last where the others work.
    """
    wait = _Wait(patience_seconds() if seconds is None else seconds, on_wait, stopped)
    answering = None if others is None else _Answering(others, min(wait.limit, ALONE_SECONDS))
    while True:
        try:
            if anchor is not None:
                check_there(anchor)
            result = action()
        except Exception as error:
            if not is_away(error, anchor, also):
                raise
            if answering is not None and answering.long_enough():
                raise
            wait.pause(error)
        else:
            wait.end()
            return result


def is_transient(error: BaseException, also: Callable[[BaseException], bool] = says_away) -> bool:
    """Whether an error, or one that caused it, is of a storage that may come back."""
    return any(
        (isinstance(each, OSError) and each.errno in TRANSIENT) or also(each)
        for each in _with_causes(error)
    )


def check_there(anchor: Anchor) -> None:
    """Refuses to touch a storage that is away, before anything is written below its mount point.

    Args:
        anchor: What is there as long as the storage is.

    Raises:
        StorageError: which is transient, where it is not.
    """
    try:
        there = anchor.exists()
    except OSError as error:
        raise StorageError(f"{anchor}: cannot be read: {reason_of(error)}.") from error
    if not there:
        away = OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(anchor))
        raise StorageError(
            f"{anchor}: is not there: the storage is away, or not mounted here."
        ) from away


def is_away(
    error: BaseException,
    anchor: Anchor | None = None,
    also: Callable[[BaseException], bool] = lambda error: False,
) -> bool:
    """Whether an error is transient, or comes of the storage's going away meanwhile."""
    if is_transient(error, also):
        return True
    if anchor is None or not any(isinstance(each, OSError) for each in _with_causes(error)):
        return False
    try:
        return not anchor.exists()
    except OSError:
        return True


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def answers(action: Callable[[], object]) -> bool:
    """Whether the storage does something now."""
    try:
        action()
    except Exception:
        return False
    return True


class _Answering:
    """For how long, without a break, the rest of a storage has answered."""

    def __init__(self, others: Callable[[], object], enough: float) -> None:
        self.others = others
        self.enough = enough
        self.since: float | None = None

    def long_enough(self) -> bool:
        """Asks it once more."""
        if not answers(self.others):
            self.since = None
            return False
        if self.since is None:
            self.since = time.monotonic()
        return time.monotonic() - self.since >= self.enough


class _Wait:
    """One wait: its pauses, what is said of it, and its end."""

    def __init__(
        self, limit: float, on_wait: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        self.limit = limit
        self.on_wait = on_wait
        self.stopped = stopped
        self.began: float | None = None
        self.length = _FIRST_PAUSE
        self.say_at = _SILENT_SECONDS

    def pause(self, error: Exception) -> None:
        """Waits a while after an error, or raises it where there was time enough."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        waited = now - self.began
        if waited >= self.limit or self.stopped():
            raise _given_up(error, waited)
        if waited >= self.say_at:
            self.say_at = 2 * waited
            left = self.limit - waited
            self.on_wait(
                f"storage is away for {waited:.0f} s: {error} Trying for another {left:.0f} s."
            )
        # Of several that wait, not all should come at once.
        length = self.length * random.SystemRandom().uniform(0.5, 1.0)
        self.length = min(2 * self.length, _LONGEST_PAUSE)
        self._sleep(min(length, self.limit - waited))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stopped():
            time.sleep(min(left, _SLICE))

    def end(self) -> None:
        """The storage is back, if it was away."""
        if self.began is not None and self.say_at > _SILENT_SECONDS:  # so that it was said
            self.on_wait(f"storage is back after {time.monotonic() - self.began:.0f} s")


def _given_up(error: Exception, waited: float) -> Exception:
    """The error with how long was waited, if that is worth saying; its cause stays known."""
    if waited < _SILENT_SECONDS:
        return error
    text = str(error).rstrip().rstrip(".")
    told = StorageError(f"{text}; it was tried again for {waited:.0f} s.")
    told.__cause__ = error
    return told
