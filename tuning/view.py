"""What a person sees of a running search: a compact table, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from model.config import DEFAULTS
from model.wording import plural
from tuning.coordinator import Coordinator
from tuning.journal import Row
from tuning.journal.row import is_blameless
from tuning.searchers import STATES

#: Without a terminal, seconds after which progress is said though no trial has ended.
LINE_SECONDS = 30.0


class _Console(Console):
    """Falls silent when nobody listens any more; the search goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class LiveView:
    """Listens to a coordinator and shows how the search goes.

    Args:
        coordinator: Its trials are shown.
        name: The experiment's name.
        concurrency: Trials trained at once, for the time left.
        searched: Names of the searched fields, shown for the best trial.
        console: Where to write; a terminal gets a live table, anything else plain lines.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        name: str,
        *,
        concurrency: int,
        searched: list[str],
        console: Console | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.name = name
        self.concurrency = concurrency
        self.searched = searched
        self.console = console or _Console(stderr=True)
        self._started = time.monotonic()
        self._trial_started: dict[int, float] = {}
        self._where: dict[int, str] = {}
        self._durations: list[float] = []
        self._last_line = time.monotonic()
        self._live = (
            Live(self, console=self.console, refresh_per_second=2, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> LiveView:
        target = self.coordinator.target
        many = "all points of the grid" if target is None else plural(target, "trial")
        known = f", {len(self.coordinator.trials)} known" if self.coordinator.trials else ""
        self._say(f"{self.name}: {many}{known}, {self.concurrency} at a time; Ctrl-C stops cleanly")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the terminal back; may be called twice."""
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Says something once: a warning, say."""
        self.console.print(Text(text, style="yellow"), soft_wrap=True)

    def concurrency_changed(self, before: int, now: int) -> None:
        """Nodes came or were lost: another number of trials is trained at once."""
        self.concurrency = now
        self.note(f"trials trained at once: {now} from now on, {before} before")

    def heard(self, row: Row) -> None:
        """Takes a row of the journal."""
        if row.trial is None:
            return
        self._take_place(row.trial, row)
        if row.kind == "report" and row.reason:
            self.note(f"trial {row.trial}: {row.reason}")
        if row.kind in ("proposed", "restarted"):
            self._trial_started[row.trial] = time.monotonic()
        elif row.state in STATES:
            started = self._trial_started.pop(row.trial, None)
            if started is not None:
                self._durations.append(time.monotonic() - started)
            if self._live is None:
                self._say(self._line(row))
        elif row.kind == "failed":
            self.note(f"trial {row.trial}: {_ended(row)}")

        if self._live is None and time.monotonic() - self._last_line > LINE_SECONDS:
            self._say(f"[{self._clock()}] {self._progress()}; {self._best_text()}")

    def _take_place(self, trial: int, row: Row) -> None:
        """Where the trial is: node and device, or what it waits for."""
        if row.state in STATES:
            self._where.pop(trial, None)
        elif row.kind == "failed":
            blameless = is_blameless(row.reason)
            self._where[trial] = "goes on elsewhere" if blameless else "to be restarted"
        elif row.kind != "report":
            self._where[trial] = "waits for a worker"
        elif row.worker_device:  # which only the first report of an attempt says
            node = (row.worker or "").rsplit(":", 1)[0]
            self._where[trial] = f"{node}, {row.worker_device}"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def _line(self, row: Row) -> str:
        assert row.trial is not None and row.state is not None
        record = self.coordinator.trials[row.trial]
        value = "no value" if row.values[0] is None else f"{row.values[0]:.4f}"
        reason = f" ({row.reason})" if row.reason else ""
        return (
            f"[{self._clock()}] trial {row.trial:4d} {row.state:8s} at iteration "
            f"{record.iteration}: best {self.coordinator.objective.name} {value}{reason}; "
            f"{self._progress()}"
        )

    def _clock(self) -> str:
        return duration(time.monotonic() - self._started)

    def _progress(self) -> str:
        trials = self.coordinator.trials
        states = Counter(r.state for r in trials.values())
        ended = sum(states[word] for word in STATES)
        target = self.coordinator.target
        parts = [f"{ended}/{target} done" if target is not None else f"{ended} done"]
        left = self._seconds_left(ended)
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, ended: int) -> float | None:
        if not self._durations or self.coordinator.target is None:
            return None
        remaining = self.coordinator.target - ended
        return remaining * sum(self._durations) / len(self._durations) / self.concurrency

    def __rich__(self) -> Group:
        """The live table, drawn anew twice a second."""
        coordinator = self.coordinator
        states = Counter(r.state for r in coordinator.trials.values())
        counts = ", ".join(f"{states[w]} {w}" for w in ("running", *STATES) if states[w])
        head = Text(f"{self.name}  {self._clock()}  {self._progress()}  ({counts})", style="bold")
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "iteration", f"best {coordinator.objective.name}", "time"):
            table.add_column(column, justify="right")
        table.add_column("where")
        for trial, started in sorted(self._trial_started.items()):
            record = coordinator.trials[trial]
            value = "" if record.value is None else f"{record.value:.4f}"
            elapsed = duration(time.monotonic() - started)
            iterations = record.config.get("iterations", DEFAULTS["iterations"])
            progress = f"{record.iteration}/{iterations}"
            table.add_row(str(trial), progress, value, elapsed, Text(self._where.get(trial, "")))
        return Group(head, Text(self._best_text(), style="green"), table)

    def _best_text(self) -> str:
        best = self.coordinator.best
        if best is None:
            return "no result yet"
        trial, value = best
        config = self.coordinator.trials[trial].config
        chosen = ", ".join(f"{name} {short(config[name])}" for name in self.searched)
        return (
            f"best so far: trial {trial}, {self.coordinator.objective.name} {value:.4f}: {chosen}"
        )


def _ended(row: Row) -> str:
    """What became of an attempt after which there is another."""
    if is_blameless(row.reason):
        return f"{row.reason}; it goes on elsewhere"
    return f"attempt {row.attempt} failed, restarting: {row.reason}"


def short(value: Any) -> str:
    """A value as a person reads it: four significant digits for numbers."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
