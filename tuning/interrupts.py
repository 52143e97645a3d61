"""Ctrl-C, and what schedulers of machines send, while Ray Tune's loop runs."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from tuning.view import LiveView

#: What asks a search to stop.
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Says something at the first Ctrl-C, for Ray takes seconds to stop its workers.

    Ray Tune puts its own handler in place when its loop begins; ours goes before it then. SIGTERM
    (of Slurm, Kubernetes, Ray Jobs, systemd) is taken like Ctrl-C.
    """

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.originals: dict[int, Any] = {}
        self.announced = False
        self.stopping = False

    def __enter__(self) -> None:
        self.originals = {number: signal.getsignal(number) for number in _STOPPING}

    def announce(self) -> None:
        """Called within Ray's loop: puts our handler before Ray's, once."""
        if self.announced or threading.current_thread() is not threading.main_thread():
            return
        self.announced = True
        rays = signal.getsignal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True  # who waits for the storage waits no longer
            self.view.note("stopping, everything is kept; Ctrl-C again stops at once")
            if callable(rays):
                rays(number, frame)  # stops its loop, and gives the signal back to `original`

        for each in _STOPPING:
            signal.signal(each, stop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, original in self.originals.items():
            if original is not None:  # set by other than Python: it cannot be set again
                signal.signal(number, original)
