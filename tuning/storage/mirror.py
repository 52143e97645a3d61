"""Sends what the driver writes to the object store, while the search goes on.

An object store cannot append to a file, and a request takes tens of milliseconds: so the driver
appends to the journal of its working copy, and a thread sends what has changed, every two seconds.
Where the driver's machine is lost, so are the rows of its last seconds. That costs no result: a
trial's checkpoints lie on the object store already, and are removed only after the row that ends
the trial has been sent; a driver elsewhere lets the trial go on from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from model.errors import DialogueTuneError
from model.files import storage_errors
from tuning.journal.row import Row
from tuning.storage.patience import patiently
from tuning.storage.remote_path import RemotePath, is_transient
from tuning.storage.session import (
    BEAT_SECONDS,
    Session,
    beat,
    begin_session,
    check_ours,
    read_session,
    write_session,
)
from tuning.storage.working_copy import (
    DIRECTORIES,
    bring_up_to_date,
    files_below,
    keep_token,
    own_token,
)

#: Seconds between two looks at what has changed.
INTERVAL_SECONDS = 2.0
T = TypeVar("T")


class Mirror:
    """Holds an experiment on an object store, and keeps it up to date with its working copy.

    Args:
        remote: The experiment on the object store.
        copy: Its working copy.
        names: The files of its root, in the order in which a new experiment sends them.

    Attributes:
        on_problem: Hears that the storage is away, and that it is back.

    Raises:
        ExperimentError: where another driver has it.
        StorageError: where the object store does not answer.
    """

    def __init__(self, remote: RemotePath, copy: Path, names: Sequence[str]) -> None:
        self.remote, self.copy, self.names = remote, copy, names
        self.on_problem: Callable[[str], None] = lambda text: None
        self._error: DialogueTuneError | None = None
        self._sent: dict[str, int] = {}
        self._then: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        with storage_errors(remote):
            self._session = self._patiently(self._begin)
            self._patiently(self._find_sent)
        self._push()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def _begin(self) -> Session:
        own, found = own_token(self.copy), read_session(self.remote)
        session = begin_session(self.remote, found, own)
        if found is not None and found.token != own:
            bring_up_to_date(self.remote, self.copy)
        keep_token(self.copy, session)
        return session

    def heard(self, row: Row) -> None:
        """Called with every new row; ends the search where nothing can be sent any more.

        Raises:
            StorageError: the object store was away for too long.
            ExperimentError: another driver has taken over.
        """
        if self._error is not None:
            raise self._error

    def afterwards(self, action: Callable[[], None]) -> None:
        """Does something when all that has been written up to now has been sent."""
        with self._lock:
            self._then.append(action)

    def close(self) -> None:
        """Sends the rest, and gives the experiment back.

        Raises:
            StorageError: where that is not possible; a later session on this machine does it.
            ExperimentError: another driver has taken over.
        """
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._push()
        with storage_errors(self.remote):
            ended = replace(self._session, ended=True)
            self._patiently(lambda: write_session(self.remote, ended))

    def _run(self) -> None:
        beaten = time.monotonic()
        while not self._ending.wait(INTERVAL_SECONDS):
            try:
                self._push()
                if time.monotonic() - beaten >= BEAT_SECONDS:
                    with storage_errors(self.remote):
                        self._session = self._patiently(lambda: beat(self.remote, self._session))
                    beaten = time.monotonic()
            except DialogueTuneError as error:
                self._error = error
                return

    def _patiently(self, action: Callable[[], T]) -> T:
        return patiently(action, also=is_transient, on_wait=self._say)

    def _say(self, text: str) -> None:
        self.on_problem(text)

    def _push(self) -> None:
        """Sends what has changed, removes what is gone, and then does what was to be done then."""
        with self._lock:
            then, self._then = self._then, []
        states = dict(self._states())
        changed = [name for name, state in states.items() if self._sent.get(name) != state]
        if changed:
            self._check_ours()  # we may have slept, and somebody else gone on
        for name in changed:
            self._send(name)
            self._sent[name] = states[name]
        gone = [name for name in self._sent if name not in states and name not in self.names]
        with storage_errors(self.remote, "removed"):  # segments that were compacted
            for name in gone:
                self._patiently(partial((self.remote / name).unlink, missing_ok=True))
                del self._sent[name]
        for action in then:
            action()

    def _check_ours(self) -> None:
        with storage_errors(self.remote, "read"):
            self._patiently(lambda: check_ours(self.remote, self._session))

    def _send(self, name: str) -> None:
        file, there = self.copy / name, self.remote / name
        with suppress(FileNotFoundError):  # compacted just now
            content = file.read_bytes()
            with storage_errors(there):
                self._patiently(partial(there.write, content))

    def _states(self) -> Iterator[tuple[str, int]]:
        """Files to be kept there, with their sizes: each is written once, or only appended to."""
        names = []
        for directory in DIRECTORIES:
            inside = (self.copy / directory).glob("[!.]*")
            names += sorted(f"{directory}/{path.name}" for path in inside)
        for name in (*names, *self.names):
            with suppress(FileNotFoundError):
                yield name, (self.copy / name).stat().st_size

    def _find_sent(self) -> None:
        """What an earlier session has sent."""
        for name, info in files_below(self.remote):
            if "/" in name or name in self.names:
                self._sent[name] = info.size
