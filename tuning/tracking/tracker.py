"""The tracker: one thread of the driver that holds all of Weights & Biases' runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tuning.journal import Row
from tuning.tracking.tracked_trial import EXIT_CODES, TrackedTrial, known_trials
from tuning.tracking.wandb_log import mark_sent, read_segments, upload_trouble
from tuning.tracking.wandb_mode import QUIET, Patience, has_key
from tuning.tracking.wandb_service import keep_apart

#: What W&B's own clients end a run with after Ctrl-C.
INTERRUPTED = 255
#: Seconds after which a row that still waits is worth a word.
SLOW_SECONDS = 90.0
#: Runs that W&B may fail in a row before it is left alone.
FAILURES = 3
#: Rows that say something of a run.
_EVENTS = ("proposed", "restarted", "report", "failed", "stopped")


class WandbTracker:
    """Logs every trial as a run of one group. Hears of rows; see `tuning.coordinator.Listener`.

    Args:
        directory: Where Weights & Biases keeps its files (``directory/wandb``).
        group: The experiment's name; runs are called ``GROUP-TRIAL``.
        mode: ``online`` or ``offline``; online without a key (any more) is offline.
        run_id: Of the experiment, unique beyond its name; run ids are ``RUN_ID-TRIAL``, so that a
            resumed search goes on with the same runs.
        project, entity: As in the sweep file, or None for the defaults.
        tags: Tags of every run.
        past: The journal's rows of earlier sessions; what W&B missed of them is filled in.
        everything: Whether to ask of every trial in ``past`` what W&B has, not only of those whose
            files say that something is missing. With ``mode="online"`` and no rows to come this
            sends a search that was logged offline, in part, or not at all.
        patience: How long to wait for W&B.
        on_problem: Called with a text, once for each kind of trouble.
    """

    def __init__(
        self,
        directory: Path,
        group: str,
        *,
        mode: str,
        run_id: str,
        project: str | None = None,
        entity: str | None = None,
        tags: tuple[str, ...] = (),
        past: Iterable[Row] = (),
        everything: bool = False,
        patience: Patience | None = None,
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory = directory
        self.group = group
        self.mode = mode
        self.run_id = run_id
        self.project = project or "dialogue-tune"
        self.entity = entity
        self.tags = tags
        self.everything = everything
        self.patience = patience or Patience()
        self.on_problem = on_problem
        self._said: set[str] = set()
        if mode == "online" and not has_key():  # W&B would ask for one, in the middle of a search
            self.mode = "offline"
            self._say("offline", "Weights & Biases has no key here; its runs are kept offline.")
        self._trials = known_trials(past)
        self._failures = 0
        self._used = False
        self._rows: queue.SimpleQueue[tuple[float, Row] | None] = queue.SimpleQueue()
        self._waiting_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    # What the search calls

    def heard(self, row: Row) -> None:
        """Takes a row without waiting."""
        if row.trial is None or not self._thread.is_alive():
            return
        self._rows.put((time.monotonic(), row))
        since = self._waiting_since
        if since is not None and time.monotonic() - since > SLOW_SECONDS:
            waiting = f"{self._rows.qsize()} rows wait"
            self._say("slow", f"Weights & Biases is slow: {waiting}; the search does not.")

    def close(self) -> None:
        """Closes all runs, waiting a bounded time for Weights & Biases."""
        self._rows.put(None)
        self._thread.join(self.patience.close)
        if self._thread.is_alive():
            self._say("late", f"Weights & Biases did not finish in time. {self._how_to_send()}")

    # The thread

    def _work(self) -> None:
        try:
            self._waiting_since = time.monotonic()
            self._catch_up()
            while (item := self._rows.get()) is not None:
                self._waiting_since, row = item
                self._handle(row)
                self._waiting_since = None
            for number, trial in self._trials.items():
                if trial.run is not None:
                    self._surely(number, partial(self._interrupt, trial))
            self._leave()
        except Exception as error:  # whatever it is, the search must go on
            text = f"Weights & Biases stopped logging: {_sentence(error)}"
            self._say("stopped", f"{text} {self._how_to_send()}")

    def _leave(self) -> None:
        """Ends W&B's process, unless somebody else has a run there; its files are whole then.

        A run is closed in a file a moment after W&B says that it is; a search that is gone on with
        in this process would read too early.
        """
        if self._used:
            import wandb

            if wandb.run is None:  # ours are none of those
                with suppress(SystemExit):  # its way to say that its process failed
                    wandb.teardown()

    def _surely(self, number: int, work: Callable[[], None]) -> None:
        """Does something for a trial's run; a run that W&B fails is left alone.

        Raises:
            Exception: what W&B raised, when it has failed three runs in a row.
        """
        try:
            work()
            self._failures = 0
        except Exception as error:  # W&B's errors have no common class
            trial = self._trials[number]
            trial.failed, trial.run = True, None
            self._failures += 1
            if self._failures >= FAILURES:
                raise
            text = f"Weights & Biases failed the run of trial {number}: {_sentence(error)}"
            self._say("failed", f"{text} {self._how_to_send()}")

    def _catch_up(self) -> None:
        """Fills in what W&B missed of trials that have ended; the others do when they go on."""
        segments = read_segments(self.directory / "wandb", self.run_id) if self._trials else {}
        for number, trial in sorted(self._trials.items()):
            trial.segments = segments.get(number, [])
            trial.logged = max((part.last_step for part in trial.segments), default=-1)
            for part in trial.segments:
                part.mend()
            whole = trial.is_whole(online=self.mode == "online")
            if self.everything or (trial.end is not None and not whole):
                self._surely(number, partial(self._complete, number, trial))
            elif trial.end is not None:
                trial.reports = []  # nobody needs them any more

    def _complete(self, number: int, trial: TrackedTrial) -> None:
        self._open(number, trial)
        if trial.end is not None:
            self._end(trial, trial.end)
        else:
            self._interrupt(trial)

    def _handle(self, row: Row) -> None:
        assert row.trial is not None
        trial = self._trials.setdefault(row.trial, TrackedTrial())
        if row.kind in _EVENTS and not trial.failed:
            self._surely(row.trial, partial(self._take, row, trial))

    def _take(self, row: Row, trial: TrackedTrial) -> None:
        assert row.trial is not None
        changed = bool(row.config) and row.config != trial.config
        trial.config = row.config or trial.config
        if trial.run is None:
            self._open(row.trial, trial)
        elif changed:  # a scheduler may change it on the way
            trial.run.config.update(trial.config, allow_val_change=True)
        if row.kind == "report":
            self._log(trial, row)
        if row.state in EXIT_CODES:
            self._end(trial, row)

    def _open(self, number: int, trial: TrackedTrial) -> None:
        """Opens the run of a trial, or goes on with it, and logs what it misses."""
        trial.run = self._init(number, trial.config)
        if self.mode == "online":  # the server says what it has
            trial.logged = trial.run.starting_step - 1
        for report in trial.reports:
            self._log(trial, report)
        trial.reports = []

    def _init(self, number: int, config: dict[str, Any]) -> Any:
        import wandb

        if not self._used:
            keep_apart()
        self._used = True
        wandb.setup(wandb.Settings(silent=True))
        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type="trial",
            id=f"{self.run_id}-{number:04d}",
            name=f"{self.group}-{number:04d}",
            config=config,
            tags=list(self.tags),
            dir=str(self.directory),
            mode=self.mode,  # type: ignore[arg-type]
            reinit="create_new",  # several runs in one process
            resume="allow",
            settings=wandb.Settings(
                **QUIET,
                init_timeout=self.patience.open,
                finish_timeout=self.patience.finish,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=1.0,  # seconds that a kill may cost on disk
                # Left to itself, W&B interrupts the whole search when one run is to stop. It copies
                # its settings deeply: a function can be, and we cannot.
                stop_fn=lambda: self._refuse_to_stop(),  # noqa: PLW0108
            ),
        )

    def _refuse_to_stop(self) -> None:
        self._say(
            "stop", "Weights & Biases asked to stop a run; not done: Ctrl-C here stops the search."
        )

    def _log(self, trial: TrackedTrial, row: Row) -> None:
        """Logs a report at its iteration; one that a restart repeats is logged once."""
        assert row.iteration is not None
        trial.value = row.values[0] if row.values else None
        if row.iteration > trial.logged:
            trial.run.log(_scalars(row.metrics), step=row.iteration, commit=True)
            trial.logged = row.iteration

    def _end(self, trial: TrackedTrial, row: Row) -> None:
        """Closes the run of a trial that has ended."""
        assert row.state is not None
        trial.value = row.values[0] if row.values else None
        reason = {"reason": row.reason} if row.reason else {}
        self._finish(trial, EXIT_CODES[row.state], {"state": row.state} | reason)

    def _interrupt(self, trial: TrackedTrial) -> None:
        """Closes the run of a trial that the search leaves unfinished."""
        self._finish(trial, INTERRUPTED, {"state": "interrupted"})

    def _finish(self, trial: TrackedTrial, exit_code: int, summary: dict[str, Any]) -> None:
        run, trial.run = trial.run, None
        run.summary.update(summary | {"value": trial.value})
        run.finish(exit_code=exit_code)
        if self.mode == "online":
            if trouble := upload_trouble(run):
                raise RuntimeError(trouble)
            mark_sent(run)
            for part in trial.segments:
                part.mark_synced()

    def _say(self, kind: str, text: str) -> None:
        """Says something about a kind of trouble, the first time, and nothing once we gave up."""
        if kind not in self._said and "late" not in self._said:
            self._said.add(kind)
            self.on_problem(text)

    def _how_to_send(self) -> str:
        return f"To send what it misses: python -m tuning sync {self.directory}"


def _sentence(error: Exception) -> str:
    """What an error says, in one line that ends with a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    """Numbers and texts: what W&B draws and lists; media would be neither."""
    return {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
