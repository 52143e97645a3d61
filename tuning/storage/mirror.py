"""Sends what the driver writes to the object store, while the search goes on.

An object store cannot append to a file, and a request takes tens of milliseconds: so the driver
appends to the journal of its working copy, and a thread sends what has changed, every two seconds.
Where the driver's machine is lost, so are the rows of its last seconds. That costs no result: a
trial's checkpoints lie on the object store already, and are removed only after the row that ends
the trial has been sent; a driver elsewhere lets the trial go on from there. A row after which
those checkpoints are of another configuration (population-based training) is waited for.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from model.errors import DialogueTuneError, StorageError
from model.files import storage_errors
from tuning.storage.patience import patiently
from tuning.storage.remote_path import RemotePath
from tuning.storage.session import (
    BEAT_SECONDS,
    Session,
    beat,
    begin_session,
    check_ours,
    new_session,
    read_session,
    write_session,
)
from tuning.storage.working_copy import (
    DIRECTORIES,
    bring_up_to_date,
    fetching,
    files_below,
    keep_token,
    lacks_some,
    own_token,
)

#: Seconds between two looks at what has changed.
INTERVAL_SECONDS = 2.0
#: How soon who waits hears that nothing can be sent.
_LOOK_SECONDS = 0.2
#: Ending of files that are written anew as a whole.
_REWRITTEN = ".parquet"
T = TypeVar("T")
#: Size and time.
_State = tuple[int, int]
_NOWHERE: _State = (-1, -1)


class Mirror:
    """Holds an experiment on an object store, and keeps it up to date with its working copy.

    Args:
        remote: The experiment on the object store.
        copy: Its working copy.
        names: The files of its root, in the order in which a new experiment sends them.

    Attributes:
        on_problem: Hears that the storage is away, and that it is back.
        stopped: Is asked, while it is away, whether to give up early.

    Raises:
        ExperimentError: where another driver has it.
        StorageError: where the object store does not answer.
    """

    def __init__(self, remote: RemotePath, copy: Path, names: Sequence[str]) -> None:
        self.remote, self.copy, self.names = remote, copy, names
        self.on_problem: Callable[[str], None] = lambda text: None
        self.stopped: Callable[[], bool] = lambda: False
        self._error: DialogueTuneError | None = None
        self._sent: dict[str, _State] = {}
        self._then: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._awake, self._ending = threading.Event(), False
        self._new = new_session()
        self._session = self._patiently(self._begin)
        self._patiently(self._find_sent)
        self._push()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def _begin(self) -> Session:
        with fetching(self.copy):  # who began to before the search was ours ends first
            pass
        own, found = own_token(self.copy), read_session(self.remote)
        session = begin_session(self.remote, self._new, found, own)
        if found is not None and (found.token != own or lacks_some(self.remote, self.copy)):
            bring_up_to_date(self.remote, self.copy)
        keep_token(self.copy, session)
        return session

    @property
    def session(self) -> int:
        """Number of our session, from 1."""
        return self._session.number

    def check(self) -> None:
        """Called before every new row; ends the search where nothing can be sent any more.

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

    def flush(self) -> None:
        """Waits until all that has been written up to now has been sent.

        Raises:
            StorageError: the object store was away for too long.
            ExperimentError: another driver has taken over.
        """
        sent = threading.Event()
        self.afterwards(sent.set)
        self._awake.set()
        while not sent.wait(_LOOK_SECONDS):
            self.check()

    def close(self) -> None:
        """Sends the rest, and gives the experiment back.

        Raises:
            StorageError: where that is not possible; a later session on this machine does it.
            ExperimentError: another driver has taken over.
        """
        self._end_thread()
        if self._error is not None:
            raise self._error
        try:
            self._push()
            self._patiently(self._end)
        except StorageError as error:
            raise self._left_behind(error) from error

    def _end_thread(self) -> None:
        self._ending = True
        self._awake.set()
        self._thread.join()

    def _end(self) -> None:
        check_ours(self.remote, self._session)
        write_session(self.remote, replace(self._session, ended=True))

    def _run(self) -> None:
        beaten = time.monotonic()
        while not self._ending:
            self._awake.wait(INTERVAL_SECONDS)
            self._awake.clear()
            try:
                self._push()
                if time.monotonic() - beaten >= BEAT_SECONDS:
                    self._session = self._patiently(lambda: beat(self.remote, self._session))
                    beaten = time.monotonic()
            except StorageError as error:
                self._error = self._left_behind(error)
                return
            except DialogueTuneError as error:
                self._error = error
                return
            except Exception as error:  # the search must not go on with nobody sending
                problem = StorageError(f"{self.remote}: cannot be kept up to date: {error}")
                problem.__cause__ = error
                self._error = self._left_behind(problem)
                return

    def _left_behind(self, error: StorageError) -> StorageError:
        """The error with what becomes of that which was not sent."""
        told = StorageError(
            f"{error}\nwhat was not sent is kept on this machine, in {self.copy}; go on here: "
            f"python -m tuning resume {shlex.quote(str(self.remote))}"
        )
        told.__cause__ = error
        return told

    def _patiently(self, action: Callable[[], T]) -> T:
        with storage_errors(self.remote):
            return patiently(action, on_wait=self._say, stopped=self._stopped)

    def _stopped(self) -> bool:
        return self.stopped()

    def _say(self, text: str) -> None:
        self.on_problem(text)

    def _push(self) -> None:
        """Sends what has changed, removes what is gone, and then does what was to be done then."""
        with self._lock:
            then, self._then = self._then, []
        states = dict(self._states())
        for name, state in states.items():
            if self._sent.get(name) != state:
                self._patiently(partial(self._send, name))
                self._sent[name] = state
        for name in [name for name in self._sent if name not in states]:
            if name not in self.names:  # a segment that was compacted
                self._patiently(partial(self._remove, name))
            del self._sent[name]
        for action in then:
            action()

    def _send(self, name: str) -> None:
        with suppress(FileNotFoundError):  # compacted just now
            content = (self.copy / name).read_bytes()
            check_ours(self.remote, self._session)  # we may have slept, and somebody else gone on
            (self.remote / name).write(content)

    def _remove(self, name: str) -> None:
        check_ours(self.remote, self._session)
        (self.remote / name).unlink(missing_ok=True)

    def _states(self) -> Iterator[tuple[str, _State]]:
        """Files to be kept there, with their sizes and times."""
        names = []
        for directory in DIRECTORIES:
            inside = (self.copy / directory).glob("[!.]*")
            names += sorted(f"{directory}/{path.name}" for path in inside)
        for name in (*names, *self.names):
            with suppress(FileNotFoundError):
                facts = (self.copy / name).stat()
                yield name, (facts.st_size, facts.st_mtime_ns)

    def _find_sent(self) -> None:
        """What an earlier session has sent: what has its size, of files that only grow."""
        there = dict(files_below(self.remote))
        if self.names[-1] not in there:  # whoever sent it did not get to the manifest
            return
        for name, state in self._states():
            if name in there and there[name].size == state[0] and not name.endswith(_REWRITTEN):
                self._sent[name] = state
        # What the copy does not have any more is to go, see `_push`.
        self._sent |= {name: _NOWHERE for name in there if "/" in name and name not in self._sent}
