"""What must hold of a search that was killed and resumed: its journal, weights, study, W&B runs.

Two readers that are not the search's own read what Weights & Biases has: its offline files, and the
local server of the tests. An assertion names what is not as it should be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tuning.ray_support import check_resumed, wandb_records
from tests.tuning.wandb_server import WandbServer
from tuning.tracking.tracked_trial import EXIT_CODES

# The search itself


def check_search(path: Path, trials: int) -> None:
    """Checks a search that has all its trials; see the module's description.

    Args:
        path: The experiment.
        trials: How many were asked for.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    from analysis import Results

    results = Results.open(path)
    check_rows(results.rows, trials)
    check_resumed(results)
    _check_weights(results)
    _check_study(results)


def check_rows(rows: Sequence[Any], trials: int) -> None:
    """Unique numbers, one beginning and one end for each trial, progress within each attempt."""
    assert [row.seq for row in rows] == list(range(len(rows))), "rows are lost or repeated"
    proposed = [row.trial for row in rows if row.kind == "proposed"]
    assert proposed == list(range(trials)), "trials are lost or repeated"
    attempt, ended = dict.fromkeys(proposed, 1), set()
    last: dict[tuple[int, int], tuple[int, float]] = {}
    for row in rows:
        if row.trial is None:
            continue
        assert row.trial not in ended, f"row {row.seq}: trial {row.trial} had ended"
        if row.kind == "restarted":
            assert row.attempt == attempt[row.trial] + 1, f"row {row.seq}: attempt {row.attempt}"
            attempt[row.trial] = row.attempt
        if row.kind == "report":
            assert row.attempt == attempt[row.trial], f"row {row.seq}: of an earlier attempt"
            before, best = last.get((row.trial, row.attempt), (0, float("inf")))
            assert row.iteration > before, f"row {row.seq}: iteration {row.iteration} again"
            assert row.values[0] <= best, f"row {row.seq}: the best value worsened"
            last[row.trial, row.attempt] = row.iteration, row.values[0]
        if row.state != "running":
            ended.add(row.trial)
    assert len(ended) == trials, f"{trials - len(ended)} trials have not ended"


def _check_weights(results: Any) -> None:
    from tuning.trials.trial_files import TrialFiles

    for record in results.trials.to_dict("records"):
        metrics = TrialFiles(results.experiment.path, record["trial"]).best_metrics()
        assert metrics["val_loss"] == record["val_loss"], f"weights of trial {record['trial']}"


def _check_study(results: Any) -> None:
    """The study that the search wrote, against the one that is made of the journal."""
    import optuna

    from analysis.importance import to_study
    from tuning.study import STUDY

    backend = optuna.storages.journal.JournalFileBackend(str(results.experiment.path / STUDY))
    storage = optuna.storages.JournalStorage(backend)
    written = optuna.load_study(study_name=results.experiment.name, storage=storage)
    for one, other in zip(to_study(results).trials, written.trials, strict=True):
        for name in ("state", "values", "params", "intermediate_values"):
            assert getattr(one, name) == getattr(other, name), f"study: {name} of {one.number}"


# Its runs in Weights & Biases


@dataclass
class LoggedRun:
    """What W&B has of a run, or should have.

    Attributes:
        rows: Its history, in W&B's order; ``_step`` is the training iteration.
        exits: What it ended with, as often as it ended.
        summary: What was last said of each key.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The iterations of the history."""
        return [row["_step"] for row in self.rows]


def expected_runs(results: Any) -> dict[str, LoggedRun]:
    """The run that each trial must have: its reports that stand, told as they were first told."""
    identity, runs = results.experiment.manifest["id"], {}
    standing = results.history
    for trial, last in results.trials.iterrows():
        told: dict[int, dict[str, Any]] = {}
        for row in results.rows:
            if row.kind == "report" and row.trial == trial:
                told.setdefault(row.iteration, row.metrics)
        iterations = standing[standing["trial"] == trial]["iteration"].tolist()
        runs[f"{identity}-{trial:04d}"] = LoggedRun(
            [told[iteration] | {"_step": iteration} for iteration in iterations],
            [EXIT_CODES[last["state"]]],
            {"state": last["state"], "value": last["val_loss"]},
        )
    return runs


def offline_runs(directory: Path) -> dict[str, LoggedRun]:
    """What W&B's offline files of an experiment say, the segments of a run one after the other."""
    runs: dict[str, LoggedRun] = {}
    for file in sorted(directory.glob("wandb/offline-run-*/run-*.wandb")):
        records = wandb_records(file)
        for identity in {r.run.run_id for r in records if r.WhichOneof("record_type") == "run"}:
            assert file.name == f"run-{identity}.wandb", f"{file}: has the run {identity}"
            _take_in(runs.setdefault(identity, LoggedRun()), records)
    return runs


def _take_in(run: LoggedRun, records: Iterable[Any]) -> None:
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.rows.append(_values(record.history.item) | {"_step": record.history.step.num})
        elif kind == "exit":
            run.exits.append(record.exit.exit_code)
        elif kind == "summary":
            run.summary |= _values(record.summary.update)


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def served_runs(server: WandbServer) -> dict[str, LoggedRun]:
    """What the server has.

    Raises:
        AssertionError: where a line of history was overwritten, or it was asked what it knows not.
    """
    assert server.unknown == [], f"W&B asked for {server.unknown}"
    for name, run in server.runs.items():
        assert not run.overwritten, f"{name}: W&B's history was overwritten: {run.overwritten}"
    return {
        name: LoggedRun(run.history, run.exits, run.summary) for name, run in server.runs.items()
    }


def check_runs(found: Mapping[str, LoggedRun], expected: Mapping[str, LoggedRun]) -> None:
    """Every trial has one run, with each report once and in order, and the right end.

    A run may have been closed more than once, each time with the same exit code: the driver died
    before it knew of the first.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    assert set(found) == set(expected), (
        f"W&B lacks the runs {sorted(set(expected) - set(found))} "
        f"and has {sorted(set(found) - set(expected))} besides"
    )
    for name, run in sorted(found.items()):
        _check_history(name, run, expected[name])
        (code,) = expected[name].exits
        assert set(run.exits) == {code}, f"{name}: W&B has it end with {run.exits}, not {code}"
        for key, value in expected[name].summary.items():
            said = run.summary.get(key)
            assert said == value, f"{name}: its summary in W&B has {key} {said}, not {value}"


def _check_history(name: str, run: LoggedRun, expected: LoggedRun) -> None:
    repeated = [step for step, times in Counter(run.steps).items() if times > 1]
    assert not repeated, f"{name}: W&B has the iterations {repeated} more than once"
    missing = sorted(set(expected.steps) - set(run.steps))
    assert not missing, f"{name}: W&B lacks the iterations {missing}"
    assert run.steps == expected.steps, (
        f"{name}: W&B has the iterations {run.steps}, and not {expected.steps}"
    )
    for row, told in zip(run.rows, expected.rows, strict=True):
        differing = [key for key, value in told.items() if row.get(key) != value]
        assert not differing, f"{name}: iteration {row['_step']}: W&B has other {differing}"
