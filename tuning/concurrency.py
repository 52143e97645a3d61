"""How many trials a search may have out at once: nodes come and go while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from model.errors import ResourceError

#: Seconds between two looks at the nodes.
SECONDS = 3.0


class Concurrency:
    """The places there are for trials, asked for again every few seconds.

    It is asked in a thread: while the head of a cluster is away, Ray answers after a minute.

    Args:
        ask: Gives how many trials fit at once by now, see `tuning.cluster.fitting`.
        first: How many did before the search began.
        limit: How many the user wants at most; None for no limit.
        on_change: Told the number of before and the new one, within a call of this object.
    """

    def __init__(
        self,
        ask: Callable[[], int],
        first: int,
        limit: int | None = None,
        on_change: Callable[[int, int], None] = lambda before, now: None,
    ) -> None:
        self.ask = ask
        self.limit = limit
        self.on_change = on_change
        self._told = self._found = self._limited(first)
        self._next = time.monotonic() + SECONDS
        self._thread: threading.Thread | None = None

    def __call__(self) -> int:
        """How many trials may be out now, at least one: what waits makes an autoscaler add nodes.

        Does not wait: a new answer is given by a later call.
        """
        now = time.monotonic()
        if now >= self._next and not (self._thread and self._thread.is_alive()):
            self._next = now + SECONDS
            self._thread = threading.Thread(target=self._look, name="concurrency", daemon=True)
            self._thread.start()
        before, self._told = self._told, self._found
        if self._told != before:
            self.on_change(before, self._told)
        return self._told

    def _look(self) -> None:
        try:
            self._found = self._limited(self.ask())
        except ResourceError:  # no node is there that could take a trial
            self._found = 1
        except Exception:  # the head does not answer, say: what was known holds on
            return

    def _limited(self, room: int) -> int:
        return max(1, room if self.limit is None else min(room, self.limit))
