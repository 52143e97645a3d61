"""What a search found, as pandas dataframes; needs no Ray, and reads a running search too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from model.config import DEFAULTS
from model.errors import ExperimentError
from tuning.experiment import Experiment
from tuning.journal import Row, current_reports, read_journal
from tuning.trial_files import best_file

#: Metrics of a trial's best report that the table of trials shows.
_AT_BEST = ("val_loss", "val_perplexity", "val_token_accuracy", "loss")


@dataclass(frozen=True)
class Results:
    """The results of one experiment.

    Attributes:
        experiment: Where they come from.
        rows: The journal's rows.
        torn: Files whose torn last line was skipped.

    Example:
        >>> results = Results.open("runs/demo")           # doctest: +SKIP
        >>> results.trials.sort_values("val_loss").head() # doctest: +SKIP
    """

    experiment: Experiment
    rows: list[Row]
    torn: list[str]

    @classmethod
    def open(cls, reference: str | Path, storage: str | Path = "runs") -> Results:
        """Opens an experiment's results, by directory, name, or ``latest``.

        Raises:
            ExperimentError: where it is unknown, damaged or of a newer format.
        """
        experiment = Experiment.open(reference, storage)
        if not experiment.journal.is_dir():
            return cls(experiment, [], [])
        reading = read_journal(experiment.journal)
        return cls(experiment, reading.rows, reading.torn)

    @property
    def objective(self) -> str:
        """The metric that trials are ranked by, such as ``val_loss``."""
        return self.experiment.objective.name

    @property
    def ascending(self) -> bool:
        """Whether a smaller objective is better."""
        return self.experiment.objective.goal == "minimize"

    @cached_property
    def searched(self) -> list[str]:
        """The searched hyper-parameters, in the sweep file's order."""
        return list(self.experiment.sweep().space.searched)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row for each report that stands, in the order of trials and iterations.

        Columns: trial, attempt, iteration, time (UTC), decision, worker, then every metric that
        has a figure.
        """
        columns = ["trial", "attempt", "iteration", "time", "decision", "worker"]
        reports = current_reports(self.rows)
        records = [row.metrics | {name: getattr(row, name) for name in columns} for row in reports]
        measured = {n for row in reports for n, value in row.metrics.items() if value is not None}
        metrics = sorted(measured - set(columns))
        frame = pd.DataFrame(records, columns=[*columns, *metrics])
        frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
        whole = dict.fromkeys(("trial", "attempt", "iteration"), "Int64")
        frame = frame.astype(whole | dict.fromkeys(metrics, "float64"))
        return frame.sort_values(["trial", "iteration"]).reset_index(drop=True)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial, in the order of proposal.

        Columns: trial, state, the objective at its best, the iteration of that best, the
        objective at the last report and its iteration, attempts, the seconds they took,
        other metrics at the best report, every configuration field (searched ones first), worker,
        reason of a failure, and the file of the best weights. What a trial does not have is
        missing (NA, NaN or None).
        """
        records = [self._trial_record(trial, rows) for trial, rows in self._by_trial().items()]
        # Without trials, the columns are those of a trial of which nothing is known yet.
        shape = records or [self._trial_record(0, [Row(kind="proposed", state="running")])]
        frame = pd.DataFrame(shape).head(len(records))
        whole = dict.fromkeys(("trial", "best_iteration", "iteration", "attempts"), "Int64")
        figures = dict.fromkeys((self.objective, f"last_{self.objective}", *_AT_BEST), "float64")
        return frame.astype(whole | figures)

    def _by_trial(self) -> dict[int, list[Row]]:
        by_trial: dict[int, list[Row]] = {}
        for row in self.rows:
            if row.trial is not None:
                by_trial.setdefault(row.trial, []).append(row)
        return dict(sorted(by_trial.items()))

    def _trial_record(self, trial: int, rows: list[Row]) -> dict[str, Any]:
        reports = current_reports(rows)
        best = self._best_report(reports)
        last = rows[-1]
        file = best_file(self.experiment.path, trial)
        record: dict[str, Any] = {
            "trial": trial,
            "state": last.state if last.state != "running" or self._running else "interrupted",
            self.objective: best.metrics[self.objective] if best else None,
            "best_iteration": best.iteration if best else None,
            f"last_{self.objective}": reports[-1].metrics.get(self.objective) if reports else None,
            "iteration": reports[-1].iteration if reports else 0,
            "attempts": last.attempt,
            "seconds": _seconds(rows),
        }
        record |= {name: best.metrics.get(name) if best else None for name in _AT_BEST}
        config = rows[0].config
        fixed = DEFAULTS | self.experiment.manifest["data"]["settings"]
        record |= {name: config.get(name) for name in self.searched} | fixed | config
        record["worker"] = next((r.worker for r in reversed(rows) if r.worker), None)
        record["reason"] = next((r.reason for r in reversed(rows) if r.reason), None)
        record["weights"] = str(file) if file.exists() else None
        return record

    @cached_property
    def _running(self) -> bool:
        return self.experiment.is_running()

    def _best_report(self, reports: Iterable[Row]) -> Row | None:
        best: Row | None = None
        for row in reports:
            than = best.metrics[self.objective] if best else None
            if self.experiment.objective.better(row.metrics.get(self.objective), than):
                best = row
        return best

    def ranked(self) -> pd.DataFrame:
        """The trials that have a value, the best first."""
        valued = self.trials[self.trials[self.objective].notna()]
        return valued.sort_values(self.objective, ascending=self.ascending, kind="stable")

    def best(self) -> pd.Series[Any]:
        """The trial with the best value of the objective.

        Raises:
            ExperimentError: where no trial has a value yet.
        """
        ranked = self.ranked()
        if ranked.empty:
            raise ExperimentError(f"{self.experiment.path}: no trial has a result yet.")
        return ranked.iloc[0]


def _seconds(rows: list[Row]) -> float:
    """Time of a trial's attempts, without the time between them."""
    begins = [i for i, row in enumerate(rows) if row.kind in ("proposed", "restarted")]
    ends = [*(i - 1 for i in begins[1:]), len(rows) - 1]
    return sum(rows[end].time - rows[i].time for i, end in zip(begins, ends, strict=True))
