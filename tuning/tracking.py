"""Weights & Biases: one process holds all runs, off the search's path.

The driver's listener puts rows on a queue; one thread opens, feeds and closes the runs. When
Weights & Biases fails, the search goes on and says so once. Keys are never taken through
configuration: they come from the environment or ``~/.netrc``, as ``wandb login`` leaves them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError
from tuning.journal import Row

_EXIT_CODES = {"finished": 0, "stopped": 0, "diverged": 1, "failed": 1}
_CLOSE_SECONDS = 120.0


def has_key() -> bool:
    """Whether a Weights & Biases key is configured, without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc(str(file)).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def choose_mode(asked: str | None) -> str:
    """The mode to use: as asked, or online with a key and offline without.

    Raises:
        ConfigurationError: where online is asked for and there is no key.
    """
    if asked == "online" and not has_key():
        raise ConfigurationError(
            "--wandb", ["online: needs a key; set WANDB_API_KEY or run 'wandb login' first."]
        )
    return asked or ("online" if has_key() else "offline")


class WandbTracker:
    """Logs every trial as a run of one group. Hears of rows; see `tuning.coordinator.Listener`.

    Args:
        directory: Where Weights & Biases keeps its files (``directory/wandb``).
        group: The experiment's name; runs are called ``GROUP-TRIAL``.
        mode: ``online`` or ``offline``.
        run_id: Of the experiment, unique beyond its name; run ids are ``RUN_ID-TRIAL``, so that a
            resumed search goes on with the same runs.
        project, entity: As in the sweep file, or None for the defaults.
        tags: Tags of every run.
        on_problem: Called once with a text, when logging fails.
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
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory = directory
        self.group = group
        self.mode = mode
        self.run_id = run_id
        self.project = project or "dialogue-tune"
        self.entity = entity
        self.tags = tags
        self.on_problem = on_problem
        self._runs: dict[int, Any] = {}
        self._logged: dict[int, int] = {}
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def heard(self, row: Row) -> None:
        """Takes a row without waiting."""
        if row.trial is not None:
            self._rows.put(row)

    def close(self) -> None:
        """Closes all runs, waiting a bounded time for Weights & Biases."""
        self._rows.put(None)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self.on_problem("Weights & Biases did not finish in time; its files may be partial.")

    def _work(self) -> None:
        try:
            while (row := self._rows.get()) is not None:
                self._handle(row)
            for trial in list(self._runs):  # interrupted trials
                self._finish(trial, exit_code=1)
        except Exception as error:  # whatever it is, the search must go on
            self.on_problem(f"Weights & Biases stopped logging: {error}")

    def _handle(self, row: Row) -> None:
        assert row.trial is not None
        if row.kind in ("proposed", "restarted") and row.trial not in self._runs:
            self._runs[row.trial] = self._open(row)
        run = self._runs.get(row.trial)
        if run is None:
            return
        if row.kind == "report":
            self._log(run, row)
        if row.state in _EXIT_CODES:
            run.summary.update({"state": row.state, "value": row.values[0] if row.values else None})
            self._finish(row.trial, _EXIT_CODES[row.state])

    def _open(self, row: Row) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            id=f"{self.run_id}-{row.trial:04d}",
            name=f"{self.group}-{row.trial:04d}",
            config=row.config,
            tags=list(self.tags),
            dir=str(self.directory),
            mode=self.mode,  # type: ignore[arg-type]
            reinit="create_new",
            resume="allow" if self.mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )

    def _log(self, run: Any, row: Row) -> None:
        """Logs a report at its iteration; one that a restart repeats is logged once."""
        assert row.trial is not None and row.iteration is not None
        if row.iteration > self._logged.get(row.trial, -1):
            run.log(dict(row.metrics), step=row.iteration)
            self._logged[row.trial] = row.iteration

    def _finish(self, trial: int, exit_code: int) -> None:
        self._runs.pop(trial).finish(exit_code=exit_code)
