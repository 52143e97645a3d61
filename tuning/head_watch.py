"""Watches the head of the cluster while a search runs, and ends the search where it is gone.

Without the head (Ray's GCS) the calls of a driver hang, and after a minute Ray ends the driver's
process, from within C++, with words about itself. A head that was started anew meanwhile is another
cluster, which knows nothing of the search's trials. In both cases this ends the process a little
sooner, in words of ours. All is kept: the journal is on disk, row by row, and so are the trials'
files, as after the driver was killed.

A head that comes back as itself within the time is waited for: one with a database of its own
(Ray's fault tolerance of the GCS, https://docs.ray.io/en/latest/ray-core/fault_tolerance/gcs.html),
or behind a network that was cut.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

#: For how long Ray's own processes wait for a head, in seconds, unless the variable says otherwise.
RAYS_SECONDS = 60.0
RAYS_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
#: The part of it that we wait: we have to be first.
_SHARE = 0.75
#: How often the head is asked, and how long it may take to answer, in seconds.
_PAUSE, _ANSWER_SECONDS = 2.0, 5.0
STARTED_ANEW = "the cluster's head was started anew, and does not know this search"
#: A head that is away for less is not spoken of.
_SILENT_SECONDS = 6.0
_HURRIED_SECONDS = 5.0


class HeadWatch:
    """Asks for the head in a thread of its own, for the time of a block, with Ray connected.

    Args:
        end: Called once, in that thread, with what happened, in words; it must end the process,
            for nothing else may be able to.
        say: Hears that the head is away, and back.
        patience: Seconds without an answer after which it counts as gone; None for three quarters
            of what Ray itself waits.
        hurried: Says that the search is being stopped: little patience is left then. A signal to a
            whole group of processes, as of Slurm or systemd, ends a head on this machine too.
        identify: Says which cluster answers: raises `OSError` where none does.
    """

    def __init__(
        self,
        end: Callable[[str], None],
        say: Callable[[str], None],
        *,
        patience: float | None = None,
        hurried: Callable[[], bool] = lambda: False,
        identify: Callable[[], str] | None = None,
    ) -> None:
        self.end, self.say = end, say
        self.patience = _patience() if patience is None else patience
        self._hurried = hurried
        self._identify = identify or _identify_ours()
        self._ours: str | None = None
        self._seen, self._said = time.monotonic(), False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head-watch", daemon=True)

    def __enter__(self) -> HeadWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        while True:
            try:
                why = self._answered(self._identify())
            except OSError as error:
                why = self._missed(error)
            if self._over.is_set():
                return
            if why is not None:
                self.end(why)
                return
            self._over.wait(_PAUSE)

    def _answered(self, found: str) -> str | None:
        """Notes an answer; returns why the search has to end, if it has."""
        self._ours = self._ours or found
        if found != self._ours:
            return STARTED_ANEW
        if self._said:
            self.say("the cluster's head answers again")
        self._seen, self._said = time.monotonic(), False
        return None

    def _missed(self, error: OSError) -> str | None:
        """Notes that there was no answer; returns why the search has to end, if it has."""
        away = time.monotonic() - self._seen
        patience = min(self.patience, _HURRIED_SECONDS) if self._hurried() else self.patience
        left = patience - away
        if left <= 0:
            return f"the cluster's head has not answered for {away:.0f} s ({error})"
        if away >= _SILENT_SECONDS and not self._said:
            self._said = True
            self.say(f"the cluster's head does not answer; waiting for another {left:.0f} s")
        return None


def is_of_new_head(error: BaseException | None) -> bool:
    """Whether an error of Ray's says that the head was started anew."""
    while error is not None:
        if "WrongClusterID" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _patience() -> float:
    """Three quarters of the time after which Ray ends us."""
    try:
        theirs = float(os.environ.get(RAYS_VARIABLE, RAYS_SECONDS))
    except ValueError:
        theirs = RAYS_SECONDS
    return _SHARE * theirs


def _identify_ours() -> Callable[[], str]:
    """Asks for the identity of the cluster that we are connected to."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")

    def identify() -> str:
        # Whether anybody listens, first: Ray's client would try for long, and then end us.
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        try:
            return str(GcsClient(address=address).cluster_id.hex())
        except Exception as error:  # Ray's own kinds have no common base
            raise OSError(str(error)) from None

    return identify
