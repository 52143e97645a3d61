"""Searches on a real Ray: the same figures as without it, failures survived, bad input refused."""

import os
import signal
import threading

import pytest

from analysis import Results
from analysis.overhead import overhead
from model.errors import ExperimentError, ResourceError, StorageError
from tests.tuning.marks import RAY_LEFTOVERS
from tests.tuning.ray_support import (
    PUBLISHED,
    check_best_weights,
    check_resumed,
    sweep_mapping,
    train_directly,
    wandb_records,
)
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.journal import Journal
from tuning.journal.row import STORAGE_LOST
from tuning.launch import is_complete, resume, run
from tuning.storage.patience import PATIENCE_VARIABLE
from tuning.sweeps.sweep_file import parse_sweep

pytestmark = [
    pytest.mark.ray,
    *RAY_LEFTOVERS,
]


def test_figures_are_those_of_the_trainer_alone(search):
    experiment = search(trials=4)
    assert is_complete(experiment)
    results = Results.open(experiment.path)
    assert results.trials["state"].tolist() == ["finished"] * 4
    for trial, reports in results.history.groupby("trial"):
        config = results.rows[[r.trial for r in results.rows].index(trial)].config
        direct = train_directly(experiment.path, config)
        assert reports["iteration"].tolist() == [m["iteration"] for m in direct]
        assert reports["val_loss"].tolist() == [m["val_loss"] for m in direct]
        assert reports["loss"].tolist() == [m["loss"] for m in direct]


def test_where_the_time_went_adds_up(search):
    results = Results.open(search(trials=4).path)
    (session,) = overhead(results)
    assert (session.state, session.workers, session.trials) == ("complete", 2, 4)
    assert sum(session.parts.values()) == pytest.approx(session.worker_seconds)
    assert all(seconds > -0.1 for seconds in session.parts.values())  # rounded times
    for part, name in (("training", "train"), ("building", "build"), ("saving", "save")):
        assert session.parts[part] == pytest.approx(results.history[f"{name}_seconds"].sum())
    assert 0 < session.first_step_seconds < session.wall_seconds
    assert session.parts["start-up"] >= session.first_step_seconds - 0.1
    assert session.parts["other"] < 0.05 * session.worker_seconds
    assert session.parts["unreported"] == 0


def test_only_the_best_weights_are_left_of_a_finished_trial(search):
    experiment = search(trials=2)
    assert sorted(p.name for p in (experiment.path / "trials").rglob("*.pt")) == ["best.pt"] * 2


def test_early_stopping_stops_and_the_best_goes_on(search):
    experiment = search(
        trials=8, early_terminate={"type": "hyperband", "min_iter": 1, "eta": 3}, concurrency=1
    )
    results = Results.open(experiment.path)
    check_best_weights(results)
    trials = results.trials
    assert set(trials["state"]) == {"finished", "stopped"}
    assert trials.loc[trials["val_loss"].idxmin(), "state"] == "finished"
    assert (trials.loc[trials["state"] == "stopped", "iteration"] < 24).all()


def test_grid_runs_every_point(search):
    experiment = search(
        method="grid",
        parameters={
            "learning_rate": {"values": [0.001, 0.002]},
            "optimizer": {"values": ["adam", "sgd"]},
            "clip": 25,
            "iterations": 4,
        },
    )
    trials = Results.open(experiment.path).trials
    assert list(zip(trials["learning_rate"], trials["optimizer"], strict=True)) == [
        (0.001, "adam"),
        (0.001, "sgd"),
        (0.002, "adam"),
        (0.002, "sgd"),
    ]


def test_bayesian_search_is_repeatable_with_one_worker(search):
    first, second = (
        search(name=name, method="bayes", trials=13, concurrency=1, parameters={"iterations": 4})
        for name in ("first", "second")
    )
    rates = [
        Results.open(experiment.path).trials["learning_rate"].tolist()
        for experiment in (first, second)
    ]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 13


def test_a_killed_worker_costs_nothing_but_time(search, monkeypatch):
    """The process of trial 1 is killed at its second report, and again at its third."""
    killed = []
    report = Coordinator.report

    def report_and_kill(self, trial, iteration, metrics, **keywords):
        decision = report(self, trial, iteration, metrics, **keywords)
        if trial == 1 and iteration in (8, 12) and iteration not in killed:
            killed.append(iteration)
            os.kill(int(keywords["worker"].rsplit(":")[-1]), signal.SIGKILL)
        return decision

    monkeypatch.setattr(Coordinator, "report", report_and_kill)
    experiment = search(trials=3)
    assert killed == [8, 12]
    results = Results.open(experiment.path)
    assert results.trials["state"].tolist() == ["finished"] * 3
    assert results.trials["attempts"].tolist() == [1, 3, 1]
    assert "the worker process died" in results.trials.loc[1, "reason"]
    check_best_weights(results)
    config = next(r.config for r in results.rows if r.trial == 1)
    direct = train_directly(experiment.path, config)
    history = results.history[results.history["trial"] == 1]
    assert history["val_loss"].tolist() == [m["val_loss"] for m in direct]


def test_a_trial_that_always_fails_is_given_up_with_its_reason(search):
    """It asks for a device that its worker does not have."""
    experiment = search(
        trials=2,
        max_failures=2,
        parameters={"device": {"values": ["cpu", "cuda"]}, "clip": 25, "learning_rate": 0.001},
        method="grid",
    )
    trials = Results.open(experiment.path).trials
    assert trials["state"].tolist() == ["finished", "failed"]
    assert trials.loc[1, "attempts"] == 1, "it would be refused again"
    assert "device: is 'cuda', but there is no GPU" in trials.loc[1, "reason"]
    assert is_complete(experiment)


def test_more_than_any_node_has_is_said_at_once(search):
    with pytest.raises(ResourceError, match="a trial asks for 64 CPU, but no node has that much"):
        search(cpus_per_trial=64)
    with pytest.raises(ResourceError, match="asks for 1 CPU, 1 GPU, but no node"):
        search(gpus_per_trial=1)


def test_a_place_that_cannot_be_written_is_said_before_any_trial(ray, corpus):
    with pytest.raises(StorageError, match="/proc/nowhere"):
        run(parse_sweep(sweep_mapping(corpus)), storage="/proc/nowhere", wandb="disabled")


def test_a_finished_search_resumes_to_nothing(search):
    experiment = search(trials=1)
    before = sorted((p, p.stat().st_mtime_ns) for p in experiment.path.rglob("*") if p.is_file())
    resume(experiment.path)
    after = sorted((p, p.stat().st_mtime_ns) for p in experiment.path.rglob("*") if p.is_file())
    assert before == after


def test_a_taken_name_is_refused(search):
    search(trials=1, parameters={"iterations": 4})
    with pytest.raises(ExperimentError, match="exists already; choose another --name"):
        search(trials=1)


def test_wandb_offline_holds_every_report(search):
    experiment = search(trials=2, wandb="offline")
    results = Results.open(experiment.path)
    files = sorted((experiment.path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    for trial, file in enumerate(files):
        records = wandb_records(file)
        run_record = next(r.run for r in records if r.WhichOneof("record_type") == "run")
        assert run_record.run_group == "search"
        assert run_record.run_id == f"{experiment.manifest['id']}-{trial:04d}"
        assert run_record.display_name == f"search-{trial:04d}"
        losses = [
            float(item.value_json)
            for r in records
            if r.WhichOneof("record_type") == "history"
            for item in r.history.item
            if (item.key or ".".join(item.nested_key)) == "val_loss"
        ]
        history = results.history[results.history["trial"] == trial]
        assert losses == history["val_loss"].tolist()
        exits = [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"]
        assert exits == [0]


def test_a_full_disk_ends_the_search_with_its_reason(search, monkeypatch, tmp_path):
    """The journal cannot be written from the fifth row on; what was written stays readable."""
    append, written = Journal.append, []

    def full_from_the_fifth(self, row):
        if len(written) == 4:
            raise StorageError("journal: cannot be written: no space is left on the device.")
        written.append(row)
        return append(self, row)

    monkeypatch.setattr(Journal, "append", full_from_the_fifth)
    with pytest.raises(StorageError, match="no space is left on the device"):
        search(trials=3)
    assert len(Results.open(tmp_path / "runs" / "search").rows) == 4
    monkeypatch.undo()
    experiment = resume(tmp_path / "runs" / "search")
    assert Results.open(experiment.path).trials["state"].tolist() == ["finished"] * 3


def test_workers_that_cannot_save_end_the_search_and_lose_nothing(search, monkeypatch, tmp_path):
    """After an early report the place of the trials' files is a file: no worker can save there."""
    trials = tmp_path / "runs" / "search" / "trials"
    report, saved = Coordinator.report, tmp_path / "saved"

    def report_and_break(self, trial, iteration, metrics, **keywords):
        decision = report(self, trial, iteration, metrics, **keywords)
        if trials.is_dir() and not saved.exists():  # files are written beside the training
            trials.rename(saved)
            trials.write_text("")
        return decision

    monkeypatch.setattr(Coordinator, "report", report_and_break)
    with pytest.raises(StorageError, match="trials/000.* cannot be (written|read)"):
        search(trials=3)
    monkeypatch.undo()
    trials.unlink()
    saved.rename(trials)
    experiment = resume(tmp_path / "runs" / "search")
    results = Results.open(experiment.path)
    assert results.trials["state"].tolist() == ["finished"] * 3
    assert "failed" not in {row.kind for row in results.rows}


def test_a_trial_that_cannot_save_where_the_driver_can_goes_on(search, monkeypatch, tmp_path):
    """For a while: what it writes to is a file for two attempts, as its node's own mount may be."""
    place = tmp_path / "runs" / "search" / "trials" / "0000"
    report, failed = Coordinator.report, Coordinator.failed
    saved, reasons = tmp_path / "saved", []

    def report_and_break(self, trial, iteration, metrics, **keywords):
        decision = report(self, trial, iteration, metrics, **keywords)
        if trial == 0 and place.is_dir() and not reasons:
            place.rename(saved)
            place.write_text("")
        return decision

    def failed_and_mended(self, trial, reason, **keywords):
        reasons.append(reason)
        if len(reasons) == 2:
            place.unlink()
            saved.rename(place)
        failed(self, trial, reason, **keywords)

    monkeypatch.setattr(Coordinator, "report", report_and_break)
    monkeypatch.setattr(Coordinator, "failed", failed_and_mended)
    experiment = search(trials=3, max_failures=1)
    assert len(reasons) == 2
    assert all(reason.startswith(f"{STORAGE_LOST}: node ") for reason in reasons)
    results = Results.open(experiment.path)
    assert results.trials["state"].tolist() == ["finished"] * 3
    check_resumed(results)


def test_a_worker_that_does_not_see_the_storage_says_so(search, monkeypatch, tmp_path):
    """As on a cluster whose nodes do not share --storage."""
    create = Experiment.create

    def create_and_hide(*arguments, **keywords):
        experiment = create(*arguments, **keywords)
        (experiment.path / "experiment.json").rename(tmp_path / "experiment.json")
        return experiment

    monkeypatch.setattr(Experiment, "create", create_and_hide)
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")
    with pytest.raises(StorageError, match="this worker does not see the experiment; --storage"):
        search(trials=2)


def test_impossible_resources_are_refused(search, tmp_path):
    with pytest.raises(ResourceError, match="--cpus-per-trial must be greater than 0"):
        search(cpus_per_trial=0)
    with pytest.raises(ResourceError, match="a whole number or a fraction below 1, but got 1.5"):
        search(gpus_per_trial=1.5)
    assert not (tmp_path / "runs").exists()


def test_a_search_runs_in_a_thread_too(search):
    """Notebooks and servers do that; signals are the main thread's alone."""
    done = []
    thread = threading.Thread(target=lambda: done.append(search(trials=1)))
    thread.start()
    thread.join(120)
    assert is_complete(done[0])


def test_a_published_sweep_file_runs(ray, corpus, tmp_path):
    file = tmp_path / "published.yaml"
    file.write_text(PUBLISHED, encoding="utf-8")
    small = sweep_mapping(corpus, iterations=4)["parameters"]
    overrides = {name: p["value"] for name, p in small.items() if "value" in p}
    experiment = run(
        file, trials=2, overrides=overrides, storage=tmp_path / "runs", wandb="disabled"
    )
    trials = Results.open(experiment.path).trials
    assert trials["val_loss"].notna().all()
    assert trials["clip"].between(10, 100).all()
    assert trials["teacher_forcing_ratio"].between(0.5, 1).all()
