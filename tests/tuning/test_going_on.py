"""On a real Ray: extended, retried, repeated, stopped at a target, cloned; killed in between."""

import os
import signal

import pytest
import yaml

from analysis import Results
from model.checkpoint import read_checkpoint
from model.errors import ConfigurationError, ExperimentError
from tests.tuning.marks import RAY_LEFTOVERS
from tests.tuning.ray_support import (
    check_best_weights,
    command,
    finish,
    sweep_mapping,
    train_directly,
    wait_for_reports,
)
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.launch import extend, is_complete, repeat, resume, retry

pytestmark = [
    pytest.mark.ray,
    *RAY_LEFTOVERS,
]

SHORT = {"iterations": 8}


def found(experiment):
    """What must not depend on how often a search was begun."""
    columns = ["trial", "state", "val_loss", "best_iteration", "iteration", "learning_rate", "clip"]
    return Results.open(experiment.path).trials[columns].to_dict("records")


def test_an_extended_search_is_one_that_was_longer_from_the_start(search):
    bayes = {"method": "bayes", "concurrency": 1, "parameters": {"iterations": 4}}
    early = {"try_first": (), "seed": 3}
    long = search("long", trials=13, **bayes, **early)
    short = search("short", trials=11, **bayes, **early)
    assert is_complete(short)
    extended = extend(short.path, trials=2)
    assert is_complete(extended)
    assert found(extended) == found(long)
    check_best_weights(Results.open(extended.path))


def test_a_failed_trial_is_retried_from_its_checkpoint(search, monkeypatch):
    """The process of trial 1 is killed at its third report, and it may not fail even once."""
    report = Coordinator.report

    def report_and_kill(self, trial, iteration, metrics, **keywords):
        decision = report(self, trial, iteration, metrics, **keywords)
        if (trial, iteration) == (1, 12):
            os.kill(int(keywords["worker"].rsplit(":")[-1]), signal.SIGKILL)
        return decision

    with monkeypatch.context() as patch:
        patch.setattr(Coordinator, "report", report_and_kill)
        experiment = search(trials=3, max_failures=1)
    before = Results.open(experiment.path).trials
    assert before["state"].tolist() == ["finished", "failed", "finished"]
    checkpoints = [p.name for p in (experiment.path / "trials" / "0001").glob("checkpoint-*")]
    assert checkpoints, "there is something to go on from"

    retry(experiment.path)
    results = Results.open(experiment.path)
    check_best_weights(results)
    assert is_complete(experiment)
    assert results.trials["state"].tolist() == ["finished"] * 3
    assert results.trials["attempts"].tolist() == [1, 2, 1]
    again = [r.iteration for r in results.rows if r.trial == 1 and r.attempt == 2 and r.iteration]
    assert again[0] in (4, 8, 12), "it did not begin anew"
    history = results.history[results.history["trial"] == 1]
    direct = train_directly(experiment.path, results.journal.configs[1])
    assert history["val_loss"].tolist() == [m["val_loss"] for m in direct]
    with pytest.raises(ExperimentError, match="no trial failed; there is nothing to retry"):
        retry(experiment.path)


def test_known_points_come_first_and_the_target_ends_the_search(search, tmp_path):
    first = search("first", trials=2, parameters=SHORT, concurrency=1)
    best = Results.open(first.path).best()
    points = tmp_path / "points.json"
    points.write_text('[{"learning_rate": 0.005, "clip": 50}]')
    again = search(
        "again",
        trials=9,
        parameters=SHORT,
        concurrency=1,
        try_first=[points, "first:1"],
        warm_start=["first"],
        metric={"name": "val_loss", "goal": "minimize", "target": float(best["val_loss"])},
        searcher="tpe",
    )
    results = Results.open(again.path)
    rates = results.trials["learning_rate"].tolist()
    assert rates[0] == 0.005
    assert is_complete(again)
    reached = results.rows[-1]
    assert (reached.kind, reached.reason) == ("ended", "target reached")
    if len(rates) == 2:  # or the point of the file was as good
        assert rates[1] == best["learning_rate"]
    assert len(again.starting_points().past) == 2
    check_best_weights(results)
    with pytest.raises(ExperimentError, match=r"reached its target, val_loss .*; it has ended"):
        extend(again.path, trials=1)


def test_what_cannot_be_begun_with_is_refused_before_anything_is_written(search, tmp_path):
    search("first", trials=1, parameters={"iterations": 4})
    with pytest.raises(ConfigurationError, match="--warm-start: first: its iterations is 4, but h"):
        search("second", parameters=SHORT, warm_start=["first"])
    with pytest.raises(ConfigurationError, match="--try: nowhere: no such file"):
        search("second", parameters=SHORT, try_first=["nowhere"])
    with pytest.raises(ConfigurationError, match="pbt works with the searchers random and grid"):
        search("second", parameters=SHORT, searcher="tpe", scheduler="pbt")
    assert not (tmp_path / "runs" / "second").exists()


def test_a_repetition_is_the_same_search_under_another_name(search, tmp_path):
    first = search("first", trials=1, parameters=SHORT, concurrency=1)
    extend(first.path, trials=2)
    sessions = [row.reason for row in Results.open(first.path).rows if row.kind == "session"]
    assert sessions == ["0 trials known", "1 trial known"]
    said = []
    again = repeat("first", storage=tmp_path / "runs", say=said.append)
    assert again.name == "first-repeat"
    assert "nothing of its environment is different" in said[0]
    assert found(again) == found(first)
    assert again.manifest["repeats"] == {"name": "first", "id": first.manifest["id"]}
    assert again.manifest["id"] != first.manifest["id"]


def clones_of(results):
    return [row for row in results.rows if row.source is not None]


def population(search):
    """A search in which a trial cloned another: the two must be at the same report at some time.

    Training up to a report takes longer than workers start apart; on a busy machine one may still
    find the other's trial at its end.
    """
    for name in ("first", "second", "third", "fourth"):
        experiment = search(
            name=name,
            trials=4,
            concurrency=2,
            parameters={"clip": 25, "iterations": 320, "report_every": 40},
            dialogue_tune={"scheduler": {"type": "pbt", "interval": 1, "quantile_fraction": 0.5}},
        )
        if clones_of(Results.open(experiment.path)):
            return experiment
    raise AssertionError("of two that train side by side one is behind")


def test_a_population_trains(search):
    experiment = population(search)
    results = Results.open(experiment.path)
    clones = clones_of(results)
    assert results.trials["state"].tolist() == ["finished"] * 4
    for trial in range(4):
        own = results.history[results.history["trial"] == trial]
        assert own["iteration"].tolist() == list(range(40, 321, 40))
    check_best_weights(results)
    for row in clones:
        weights = read_checkpoint(experiment.path / "trials" / f"{row.trial:04d}" / "best.pt")
        if weights["iteration"] > max(r.iteration for r in clones if r.trial == row.trial):
            last = [r for r in clones if r.trial == row.trial][-1]
            assert weights["config"]["learning_rate"] == last.config["learning_rate"]


@pytest.mark.chaos
@pytest.mark.long
def test_an_extension_killed_and_resumed_is_the_longer_search(corpus, tmp_path):
    """By the command line, with SIGKILL of the driver in the middle of the extension."""
    storage = tmp_path / "runs"
    mapping = sweep_mapping(corpus, iterations=40, hidden_size=32)
    mapping |= {"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 3}}
    mapping |= {"method": "bayes"}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    options = ("--storage", storage, "--concurrency", 1, "--wandb", "disabled")

    def run(name, trials):
        process = command("run", file, "--name", name, "--trials", trials, *options)
        output = finish(process)
        assert process.returncode == 0, output

    run("long", 14)
    run("short", 9)
    known = sum(row.kind == "report" for row in Results.open("short", storage).rows)
    extending = command("extend", "short", "--trials", 5, "--storage", storage)
    wait_for_reports(storage / "short", known + 8, extending)
    os.kill(extending.pid, signal.SIGKILL)
    finish(extending)
    short = Experiment.open("short", storage)
    assert not is_complete(short)
    resumed = command("resume", "short", "--storage", storage)
    output = finish(resumed)
    assert resumed.returncode == 0, output
    assert found(short) == found(Experiment.open("long", storage))
    ends = [row.trial for row in Results.open("short", storage).rows if row.state == "finished"]
    assert len(ends) == len(set(ends))


def test_resume_of_a_complete_search_runs_nothing(search):
    experiment = search(trials=1, parameters={"iterations": 4})
    rows = len(Results.open(experiment.path).rows)
    resume(experiment.path)
    assert len(Results.open(experiment.path).rows) == rows
