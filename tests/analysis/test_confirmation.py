"""Confirming: fresh seeds, judged on the whole validation split, nothing lost, no look at test."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis import Results, promote
from analysis.promotion import confirmation, fresh_runs
from analysis.promotion.confirmation import candidates, confirm, confirmed_so_far, fresh_seeds
from analysis.promotion.fresh_runs import FreshRun, configuration_key, train_run
from analysis.promotion.run_processes import train_runs
from analysis.promotion.verdict import (
    Confirmation,
    Confirmed,
    Outcome,
    SoFar,
    compared,
    mean_interval,
    so_far,
)
from model.batching import Batches
from model.checkpoint import read_checkpoint
from model.config import Config, DataConfig
from model.errors import ConfigurationError, ExperimentError
from model.evaluation import evaluate
from model.model_directory import load, verify
from model.seq2seq import Seq2Seq
from model.training import Trainer
from tests.analysis.conftest import SWEEP, Killed, drive, make_experiment, proposed, reported
from tests.analysis.test_registry import other_data
from tuning.coordinator import Objective

ROOT = Path(__file__).resolve().parents[2]


def in_this_process(runs, *, workers, threads, progress=False):
    """In place of `train_runs`: the same without processes."""
    for run in runs:
        if run.result() is None:
            train_run(run, Results.open(run.experiment).experiment.data())


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(confirmation, "train_runs", in_this_process)


@pytest.fixture(scope="module")
def confirmed_experiment(finished, tmp_path_factory):
    """A copy of the finished experiment with its best two configurations confirmed."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("confirmed") / "small"
    shutil.copytree(finished.path, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confirmation, "train_runs", in_this_process)
        return path, confirm(Results.open(path), seeds=3, top=2)


@pytest.fixture
def confirmed(confirmed_experiment):
    return confirmed_experiment[1]


@pytest.fixture
def path(confirmed_experiment, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(confirmed_experiment[0], tmp_path / "runs" / "small")
    return tmp_path / "runs" / "small"


@pytest.fixture
def run(experiment):
    """A run that has not begun."""
    return fresh_run(experiment)


def fresh_run(experiment, seed=77, **fields):
    data = experiment.data()
    given = {name: spec["value"] for name, spec in SWEEP["parameters"].items() if "value" in spec}
    config = Config.from_mapping(given | {"learning_rate": 0.02, "seed": seed} | fields)
    config = replace(config, data=DataConfig(**data.settings))
    return FreshRun(experiment.path, config, experiment.objective, data.fingerprint)


def by_hand(trainer_config, data):
    """The best report's weights of an uninterrupted trainer, on the whole validation split."""
    trainer, best, weights = Trainer(data, trainer_config), math.inf, None
    for report in trainer.run():
        if report.metrics["val_loss"] < best:
            best = report.metrics["val_loss"]
            weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    model = Seq2Seq(trainer_config.model, len(data.vocabulary))
    model.load_state_dict(weights)
    return evaluate(model, Batches(data, "validation")).loss, weights


class TestInterval:
    def test_by_hand(self):
        """s = 1 and t(2) = 4.3027 at 97.5 %: half of the interval is 4.3027 / sqrt(3)."""
        mean, low, high = mean_interval([1.0, 2.0, 3.0])
        assert mean == 2
        assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)

    def test_two_values(self):
        """s = sqrt(2) / 2 and t(1) = 12.7062: half of the interval is 12.7062 / 2."""
        assert mean_interval([0.0, 1.0]) == pytest.approx((0.5, -5.8531, 6.8531), abs=1e-4)

    @pytest.mark.parametrize("count", [2, 3, 5, 20])
    def test_against_scipys_own(self, count):
        from scipy import stats

        values = [math.sin(i) for i in range(count)]
        ends = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values))
        assert mean_interval(values)[1:] == pytest.approx(ends, rel=1e-12)

    def test_equal_values_have_no_width(self):
        assert mean_interval([1.5, 1.5, 1.5]) == (1.5, 1.5, 1.5)

    def test_it_covers_the_true_mean_as_often_as_it_says(self):
        """Four normal values, 4,000 times: 95 % within a standard error of 0.35 %."""
        draws = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).tolist()
        covered = sum(low <= 0 <= high for _, low, high in map(mean_interval, draws))
        assert 0.94 < covered / 4000 < 0.96


class TestSeeds:
    def test_more_of_them_begin_with_the_same(self):
        assert fresh_seeds(0, 5, ())[:3] == fresh_seeds(0, 3, ())
        assert fresh_seeds(0, 3, ()) == fresh_seeds(0, 3, ())
        assert len(set(fresh_seeds(0, 100, ()))) == 100
        assert all(0 <= seed < 2**31 for seed in fresh_seeds(0, 100, ()))

    def test_another_experiment_has_others(self):
        assert not set(fresh_seeds(0, 50, ())) & set(fresh_seeds(1, 50, ()))

    def test_never_the_one_that_was_searched_with(self):
        first, second, third = fresh_seeds(0, 3, ())
        assert fresh_seeds(0, 2, {second}) == [first, third]


class TestKey:
    def test_the_seed_and_how_it_is_run_make_no_other_configuration(self, tiny_config):
        key = configuration_key(tiny_config(), "f")
        assert len(key) == 12
        for same in ({"seed": 3}, {"threads": 1}, {"checkpoint_when": "end"}, {"corpus": "x"}):
            assert configuration_key(tiny_config(**same), "f") == key
        for other in ({"clip": 3.0}, {"iterations": 13}, {"val_examples": 9}, {"dropout": 0.2}):
            assert configuration_key(tiny_config(**other), "f") != key
        assert configuration_key(tiny_config(), "g") != key


class TestCandidates:
    def trials_of(self, experiment, top):
        results = Results.open(experiment.path)
        return [c.trials for c in candidates(results, experiment.data(), top)]

    def test_the_best_first(self, finished):
        ranked = [(int(trial),) for trial in Results.open(finished.path).ranked()["trial"]]
        assert self.trials_of(finished, 2) == ranked[:2]
        assert self.trials_of(finished, 9) == ranked

    def test_a_configuration_drawn_twice_counts_once(self, by_hand):
        rows = []
        for trial, (clip, loss) in enumerate([(1.0, 3.0), (2.0, 2.0), (1.0, 1.0), (3.0, 2.5)]):
            rows += [proposed(trial, clip), reported(trial, 1, val_loss=loss)]
        experiment = by_hand(rows)
        assert self.trials_of(experiment, 2) == [(2, 0), (1,)]
        assert self.trials_of(experiment, 3) == [(2, 0), (1,), (3,)]
        found = candidates(Results.open(experiment.path), experiment.data(), 1)[0]
        assert (found.searched, found.weights, found.config.training.clip) == (1.0, None, 1.0)

    def test_every_seed_that_it_was_searched_with_is_passed_over(self, by_hand):
        first, second, third, fourth = fresh_seeds(0, 4, ())
        rows = []
        for trial, seed in enumerate([first, third]):
            row = proposed(trial)
            rows += [replace(row, config=row.config | {"seed": seed})]
            rows += [reported(trial, 1, val_loss=2.0 + trial)]
        experiment = by_hand(rows)
        results, data = Results.open(experiment.path), experiment.data()
        (found,) = candidates(results, data, 3)
        assert (found.trials, found.seeds) == ((0, 1), {first, third})
        runs = confirmation._fresh_runs(results, found, 2)
        assert [run.config.training.seed for run in runs] == [second, fourth]

    def test_an_early_stopped_one_has_its_full_budget(self, finished):
        results = Results.open(finished.path)
        stopped = [c for c in candidates(results, finished.data(), 9) if c.state == "stopped"]
        assert stopped
        for candidate in stopped:
            assert results.trials["iteration"][candidate.trials[0]] < 12
            assert candidate.config.training.iterations == 12

    def test_no_results_yet(self, by_hand):
        results = Results.open(by_hand([proposed(0)]).path)
        with pytest.raises(ExperimentError, match="no trial has a result yet"):
            confirm(results)


class TestConfirm:
    def test_a_value_is_that_of_the_best_report_on_the_whole_split(
        self, confirmed, confirmed_experiment, finished
    ):
        """By hand: each configuration with each seed, trained without interruption."""
        data = finished.data()
        assert len(data.examples["validation"]) > 10, "the reports use ten"
        chosen = {c.trials: c for c in candidates(Results.open(finished.path), data, 2)}
        for each in confirmed.configurations:
            config = chosen[each.trials].config
            for outcome in each.outcomes:
                training = replace(config.training, seed=outcome.seed)
                value, weights = by_hand(replace(config, training=training), data)
                assert outcome.value == pytest.approx(value, rel=1e-12)
                kept = read_checkpoint(outcome.weights)["weights"]
                assert all(torch.equal(kept[name], weight) for name, weight in weights.items())

    def test_seeds_are_fresh_and_the_same_for_all(self, confirmed):
        seeds = [tuple(o.seed for o in each.outcomes) for each in confirmed.configurations]
        assert seeds[0] == seeds[1] == tuple(fresh_seeds(0, 3, {0}))
        assert len({o.value for each in confirmed.configurations for o in each.outcomes}) == 6

    def test_the_best_mean_is_first_and_the_interval_is_of_the_values(self, confirmed):
        means = [each.mean for each in confirmed.configurations]
        assert means == sorted(means)
        for each in confirmed.configurations:
            values = [outcome.value for outcome in each.outcomes]
            assert (each.mean, each.low, each.high) == mean_interval(values)

    def test_what_the_search_said_is_beside_it(self, confirmed, finished):
        trials = Results.open(finished.path).trials.set_index("trial")
        for each in confirmed.configurations:
            row = trials.loc[each.trials[0]]
            assert each.searched == row["val_loss"]
            state = read_checkpoint(Path(row["weights"]))
            model = Seq2Seq(
                Config.from_mapping(state["config"]).model, len(finished.data().vocabulary)
            )
            model.load_state_dict(state["weights"])
            whole = evaluate(model, Batches(finished.data(), "validation")).loss
            assert each.searched_whole == pytest.approx(whole, rel=1e-12)
            assert each.searched_whole != each.searched

    def test_nothing_is_made_twice(self, path, confirmed, monkeypatch):
        def never(*arguments):
            raise AssertionError("was trained again")

        monkeypatch.setattr(fresh_runs, "Trainer", never)
        again = confirm(Results.open(path), seeds=3, top=2)
        assert values(again) == values(confirmed)
        fewer = confirm(Results.open(path), seeds=2, top=1)
        assert [len(each.outcomes) for each in fewer.configurations] == [2]

    def test_more_seeds_make_the_new_ones_alone(self, path, confirmed, monkeypatch):
        made = []

        def counting(runs, **rest):
            made.extend(run.config.training.seed for run in runs if run.result() is None)
            in_this_process(runs, **rest)

        monkeypatch.setattr(confirmation, "train_runs", counting)
        more = confirm(Results.open(path), seeds=4, top=2)
        assert made == [fresh_seeds(0, 4, {0})[3]] * 2
        assert set(values(confirmed)) <= set(values(more))

    def test_an_early_stopped_one_is_trained_to_its_end(self, experiment, here):
        found = confirm(Results.open(experiment.path), seeds=2, top=9)
        rows = [
            json.loads(file.read_text())
            for file in experiment.path.glob("confirmation/*/*/*/*.json")
        ]
        assert len(rows) == 2 * len(found.configurations)
        assert "stopped" in {each.state for each in found.configurations}
        assert {row["iteration"] for row in rows} == {12}

    def test_finished_runs_leave_no_checkpoints(self, path):
        home = path / "confirmation"
        assert {f.name for f in home.rglob("*") if f.is_file()} == {"best.pt", "run.json", ".lock"}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"seeds": 1}, "confirm: seeds: must be a whole number of at least 2, but got 1."),
            ({"top": 0}, "confirm: top: must be a whole number of at least 1, but got 0."),
            ({"workers": 0}, "confirm: workers: must be a whole number of at least 1, but got 0."),
        ],
    )
    def test_too_few(self, finished, arguments, text):
        with pytest.raises(ConfigurationError) as caught:
            confirm(Results.open(finished.path), **arguments)
        assert str(caught.value) == text

    def test_two_at_once(self, path, locked):
        experiment = Results.open(path).experiment
        pid = locked(replace(experiment, path=path / "confirmation"))
        with pytest.raises(ExperimentError, match=rf"confirmation: is being run by .* {pid}\."):
            confirm(Results.open(path), seeds=3, top=2)

    def test_a_running_search_can_be_confirmed(self, path, locked):
        locked(Results.open(path).experiment)
        assert confirm(Results.open(path), seeds=3, top=2).seeds == 3

    def test_another_objective(self, tmp_path, tiny_data, here):
        metric = {"metric": {"name": "val_token_accuracy", "goal": "maximize"}}
        experiment = make_experiment(tmp_path, tiny_data, SWEEP | metric)
        drive(experiment, tiny_data, {})
        found = confirm(Results.open(experiment.path), seeds=2, top=3)
        means = [each.mean for each in found.configurations]
        assert means == sorted(means, reverse=True)
        assert all(0 <= mean <= 1 for mean in means)
        assert found.promoted.value == max(o.value for o in found.winner.outcomes)


def values(found):
    return [(o.seed, o.value) for each in found.configurations for o in each.outcomes]


class TestTheTestSplit:
    def test_no_batch_of_it_is_made(self, experiment, here, monkeypatch):
        splits = []

        def spy(data, split, *rest):
            splits.append(split)
            return Batches(data, split, *rest)

        for module in ("model.training", "analysis.promotion.confirmation"):
            monkeypatch.setattr(f"{module}.Batches", spy)
        confirm(Results.open(experiment.path), seeds=2, top=2)
        assert set(splits) == {"train", "validation"}

    def test_nothing_depends_on_it(self, tmp_path, tiny_data, confirmed, here):
        """The same experiment, but for a test split of one example: the same figures."""
        data = other_data(tiny_data, test=tiny_data.examples["test"][:1])
        assert data.fingerprint != tiny_data.fingerprint
        experiment = make_experiment(tmp_path, data)
        drive(experiment, data)
        found = confirm(Results.open(experiment.path), seeds=3, top=2)
        assert values(found) == values(confirmed)
        assert found.words() == confirmed.words()

    def test_promotion_evaluates_it_once(self, path, confirmed, tmp_path, monkeypatch):
        splits = []

        def spy(data, split, *rest):
            splits.append(split)
            return Batches(data, split, *rest)

        monkeypatch.setattr("analysis.promotion.registry.Batches", spy)
        promote(path, confirmed=confirmed, registry=tmp_path / "registry")
        assert splits == ["validation", "test"]


class TestPromoted:
    @pytest.fixture
    def promoted(self, path, confirmed, tmp_path):
        return promote(path, confirmed=confirmed, registry=tmp_path / "registry")

    def test_weights_are_of_the_winners_best_run(self, promoted, confirmed):
        best = min(confirmed.winner.outcomes, key=lambda outcome: outcome.value)
        kept = read_checkpoint(best.weights)["weights"]
        loaded = load(promoted)
        assert all(torch.equal(v, kept[k]) for k, v in loaded.model.state_dict().items())
        assert loaded.config.training.seed == best.seed == confirmed.promoted.seed
        assert loaded.metrics["val_loss"] == pytest.approx(best.value, rel=1e-12)

    def test_mean_and_interval_are_among_the_metrics(self, promoted, confirmed):
        metrics = load(promoted).metrics
        winner = confirmed.winner
        assert metrics["confirmed_val_loss"] == winner.mean
        assert metrics["confirmed_val_loss_low"] == winner.low
        assert metrics["confirmed_val_loss_high"] == winner.high
        assert metrics["confirmed_seeds"] == 3
        assert winner.low < winner.mean < winner.high
        assert metrics["val_loss"] < winner.mean, "the best of three"

    def test_all_of_it_is_in_the_lineage(self, promoted, confirmed):
        lineage = verify(promoted)["lineage"]
        assert lineage["trial"] == confirmed.winner.trials[0]
        kept = lineage["confirmation"]
        assert kept["seeds"] == 3
        assert kept["seed"] == confirmed.promoted.seed
        assert kept["separable"] is confirmed.separable
        assert kept["confidence"] == 0.95
        assert [
            (o["seed"], o["value"]) for each in kept["configurations"] for o in each["outcomes"]
        ] == values(confirmed)
        for stored, each in zip(kept["configurations"], confirmed.configurations, strict=True):
            assert stored["trials"] == list(each.trials)
            assert (stored["searched"], stored["mean"]) == (each.searched, each.mean)

    def test_twice_it_is_the_same(self, path, confirmed, tmp_path):
        first, second = (
            promote(path, confirmed=confirmed, registry=tmp_path / name) for name in "ab"
        )
        for name in ("weights.pt", "config.json", "metrics.json", "vocabulary.json"):
            assert (first / name).read_bytes() == (second / name).read_bytes()


def one(trial, mean, half, *, searched=1.0, objective_values=None):
    outcomes = tuple(
        Outcome(seed, "finished", value, Path(f"{seed}.pt"))
        for seed, value in enumerate(objective_values or [mean - half / 9, mean, mean + half / 9])
    )
    return Confirmed((trial,), "finished", searched, None, outcomes, mean, mean - half, mean + half)


class TestWords:
    loss = Objective("val_loss", "minimize")

    def test_apart(self):
        found = Confirmation(self.loss, (one(4, 2.0, 0.1, searched=1.75), one(1, 2.5, 0.3)), 3)
        assert found.separable is True
        assert found.words() == [
            "trial 4's configuration has the best mean: val_loss 2.0000 (1.9000 to 2.1000, 95%) "
            "over 3 fresh seeds; the search had shown 1.7500",
            "its interval is apart from that of the runner-up, trial 1: 2.5000 (2.2000 to 2.8000)",
            "promoted are the weights of seed 0, the best of the 3 on validation (1.9889); "
            "of the configuration expect the mean",
        ]

    def test_overlapping(self):
        found = Confirmation(self.loss, (one(4, 2.0, 0.3), one(1, 2.5, 0.3)), 3)
        assert found.separable is False
        assert found.words()[1] == (
            "3 seeds do not separate it: its interval overlaps that of the runner-up, trial 1: "
            "2.5000 (2.2000 to 2.8000)"
        )

    def test_intervals_that_touch_overlap(self):
        assert one(0, 2.0, 0.25).overlaps(one(1, 2.5, 0.25))
        assert one(1, 2.5, 0.25).overlaps(one(0, 2.0, 0.25))
        assert not one(0, 2.0, 0.125).overlaps(one(1, 2.5, 0.25))
        assert one(0, 2.0, 0.01).overlaps(one(1, 2.0, 9.0))

    def test_without_a_runner_up(self):
        found = Confirmation(self.loss, (one(4, 2.0, 0.3),), 3)
        assert found.separable is None
        assert len(found.words()) == 2

    def test_a_configuration_that_diverged_at_once_is_last(self):
        broken = replace(one(0, 1.0, 0.1), mean=None, low=None, high=None)
        found = compared([broken, one(1, 3.0, 0.1)], self.loss, 3, Path("runs/x"))
        assert [each.trials for each in found.configurations] == [(1,), (0,)]
        assert found.separable is None
        with pytest.raises(ExperimentError, match=r"runs/x: of each .* diverged .*--top"):
            compared([broken, broken], self.loss, 3, Path("runs/x"))


def left(trial, **values):
    """A configuration with runs of these seeds, such as ``s1=2.0``; None diverged at once."""
    outcomes = [
        Outcome(int(seed[1:]), "diverged" if value is None else "finished", value, Path("best.pt"))
        for seed, value in values.items()
    ]
    return Confirmed.of((trial,), "finished", 1.0, outcomes)


class TestSoFar:
    """What is left of confirmations, finished or cut off."""

    loss = Objective("val_loss", "minimize")

    def found(self, *configurations, objective=loss):
        told = so_far(configurations, objective)
        return (
            [(each.trials[0], each.mean, sorted(each.seeds)) for each in told.configurations],
            [each.trials[0] for each in told.unfinished],
        )

    def test_the_same_seeds_are_ranked_by_their_means(self):
        one, other = left(0, s1=3.0, s2=2.0), left(1, s1=1.0, s2=2.0)
        assert self.found(one, other) == ([(1, 1.5, [1, 2]), (0, 2.5, [1, 2])], [])
        most = Objective("val_token_accuracy", "maximize")
        assert self.found(one, other, objective=most)[0][0][0] == 0

    def test_without_a_value_there_is_no_mean_and_it_comes_last(self):
        one, other = left(0, s1=1.0, s2=1.0, s3=None), left(1, s1=3.0, s2=4.0, s3=5.0)
        assert self.found(one, other) == ([(1, 4.0, [1, 2, 3]), (0, None, [1, 2, 3])], [])

    def test_cut_off_only_common_seeds_are_compared(self):
        whole, cut = left(0, s1=4.0, s2=5.0, s3=0.0), left(1, s1=4.0, s2=4.0)
        begun = left(2, s1=0.5)
        assert self.found(whole, cut, begun) == ([(1, 4.0, [1, 2]), (0, 4.5, [1, 2])], [2])
        assert self.found(whole, begun) == ([(0, 3.0, [1, 2, 3])], [2])
        assert self.found(begun, left(3)) == ([], [2, 3])

    def test_the_most_seeds_that_two_have(self):
        one, two = left(0, s1=1.0, s2=1.0, s3=1.0), left(1, s1=2.0, s2=2.0, s3=2.0)
        assert self.found(one, two, left(2, s1=0.0, s2=0.0))[1] == [2]

    def test_none(self):
        assert self.found() == ([], [])

    def test_it_says_what_the_command_says(self, path, confirmed):
        told = confirmed_so_far(Results.open(path))
        assert (told.unfinished, told.problems) == ((), ())
        for ours, theirs in zip(told.configurations, confirmed.configurations, strict=True):
            for name in ("trials", "state", "searched", "mean", "low", "high"):
                assert getattr(ours, name) == getattr(theirs, name), name
            assert {(o.seed, o.value) for o in ours.outcomes} == {
                (o.seed, o.value) for o in theirs.outcomes
            }

    def test_what_is_damaged_is_left_out_and_said(self, path, confirmed):
        seeds = sorted(outcome.seed for outcome in confirmed.winner.outcomes)
        home = (
            confirmed.winner.outcomes[0]
            .weights.parents[1]
            .relative_to(confirmed.winner.outcomes[0].weights.parents[4])
        )
        file = path / home / str(seeds[0]) / "run.json"
        file.write_text("{")
        told = confirmed_so_far(Results.open(path))
        assert told.problems == (
            f"{file}: is damaged; remove {file.parent}, and the run is made again.",
        )
        assert [sorted(each.seeds) for each in told.configurations] == [seeds[1:]] * 2

    def test_nothing_was_confirmed(self, finished):
        assert confirmed_so_far(Results.open(finished.path)) == SoFar()


class TestOneRun:
    def test_a_run_that_diverges_at_once_has_no_value(self, experiment):
        run = fresh_run(experiment, learning_rate=1e6)
        train_run(run, experiment.data())
        row = run.result()
        assert row["state"] == "diverged"
        assert row["best_iteration"] is None
        assert "val_loss" not in row
        assert not run.files.best.exists()

    @pytest.mark.parametrize("reports", [1, 2])
    def test_killed_in_the_middle_it_goes_on_and_ends_the_same(
        self, run, experiment, monkeypatch, reports
    ):
        data, left, train_interval = experiment.data(), [reports], Trainer.train_interval

        def dying(trainer):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return train_interval(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_interval", dying)
            with pytest.raises(Killed):
                train_run(run, data)
        assert run.result() is None
        told = []
        train_run(run, data, told.append)
        assert told == [4 * i for i in range(reports, 4)]
        whole = fresh_run(experiment)
        assert run.result()["val_loss"] == pytest.approx(by_hand(whole.config, data)[0], rel=1e-12)

    @pytest.mark.parametrize("file", ["checkpoint", "best", "no best"])
    def test_what_is_damaged_is_made_anew(self, run, experiment, monkeypatch, file):
        data, train_interval = experiment.data(), Trainer.train_interval

        def dying(trainer):
            if trainer.iteration == 8:
                raise Killed
            return train_interval(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_interval", dying)
            with pytest.raises(Killed):
                train_run(run, data)
        if file == "no best":
            run.files.best.unlink()
        for each in run.files.checkpoints() if file == "checkpoint" else [run.files.best]:
            if each.exists():
                each.write_bytes(each.read_bytes()[:-1])
        told = []
        train_run(run, data, told.append)
        assert told == [0, 4, 8, 12]
        assert run.result()["val_loss"] == pytest.approx(by_hand(run.config, data)[0], rel=1e-12)

    def test_one_that_has_ended_is_not_begun(self, run, experiment, monkeypatch):
        train_run(run, experiment.data())
        monkeypatch.setattr(fresh_runs, "Trainer", None)
        train_run(run, experiment.data())

    def test_killed_before_it_removed_its_checkpoints(self, run, experiment):
        """They are removed when the run is passed over; no process is started for it."""
        train_run(run, experiment.data())
        left = run.files.directory / "checkpoint-00000008.pt"
        left.write_bytes(b"")
        train_runs([run], workers=1, threads=1)
        assert {f.name for f in run.files.directory.iterdir()} == {"best.pt", "run.json"}

    def test_the_row(self, run, experiment):
        train_run(run, experiment.data())
        row = run.result()
        value, _ = by_hand(run.config, experiment.data())
        assert row.pop("val_loss") == pytest.approx(value, rel=1e-12)
        assert row.pop("val_perplexity") == pytest.approx(math.exp(value), rel=1e-12)
        assert 0 <= row.pop("val_token_accuracy") <= 1
        assert row == {
            "format": 1,
            "config": run.config.to_mapping(),
            "data_fingerprint": experiment.data().fingerprint,
            "state": "finished",
            "iteration": 12,
            "best_iteration": 12,
            "device": "cpu",
            "dtype": row["dtype"],
            "val_examples": len(experiment.data().examples["validation"]),
        }
        assert row["dtype"] in ("float32", "bfloat16")

    @pytest.mark.parametrize(
        "content",
        [
            *("{", "[]", "{}", '{"format": "x"}', "\xff", '{"format": 1}'),
            '{"format": 1, "state": "finished", "val_loss": "2"}',
            '{"format": 1, "state": "finished", "val_loss": NaN}',
            '{"format": 1, "state": "ended", "val_loss": 2}',
        ],
    )
    def test_a_damaged_row(self, run, experiment, content):
        train_run(run, experiment.data())
        file = run.files.directory / "run.json"
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(ExperimentError) as caught:
            run.result()
        assert str(caught.value) == (
            f"{file}: is damaged; remove {file.parent}, and the run is made again."
        )

    def test_a_newer_row(self, run):
        run.files.directory.mkdir(parents=True)
        (run.files.directory / "run.json").write_text('{"format": 2}')
        with pytest.raises(ExperimentError, match="run.json: has format 2, written by a newer"):
            run.result()


class TestProcesses:
    """The same with processes, two at a time."""

    def test_they_give_what_this_process_gives(self, experiment, confirmed, capfd):
        found = confirm(Results.open(experiment.path), seeds=2, top=1, workers=2, progress=True)
        expected = {
            each.trials: [o.value for o in each.outcomes[:2]] for each in confirmed.configurations
        }
        assert [o.value for o in found.winner.outcomes] == pytest.approx(
            expected[found.winner.trials], rel=1e-6
        )
        bar = capfd.readouterr().err
        assert "confirming, 2 runs: 100%" in bar
        assert "24/24" in bar

    @pytest.mark.slow
    def test_what_fails_is_named_and_the_others_are_kept(self, experiment):
        good, bad = fresh_run(experiment), fresh_run(experiment, seed=78)
        bad.files.directory.parent.mkdir(parents=True)
        bad.files.directory.write_text("in the way")
        with pytest.raises(ExperimentError) as caught:
            train_runs([good, bad], workers=2, threads=1)
        first, last = str(caught.value).splitlines()
        assert first.startswith(f"{bad.files.directory}: ")
        assert "cannot be written" in first
        assert last == (
            f"{experiment.path}: 1 of 2 runs failed; the others are kept: "
            "the same command makes these alone."
        )
        assert good.result() is not None
        bad.files.directory.unlink()
        train_runs([good, bad], workers=2, threads=1)
        assert bad.result() is not None


# Real faults

#: Seconds to wait for what takes half a minute on an idle machine; the tests below may take as
#: long several times over.
PATIENCE = 400
patient = pytest.mark.timeout(4 * PATIENCE)

LONG = SWEEP | {
    "parameters": SWEEP["parameters"]
    | {
        "learning_rate": {"values": [0.01, 0.02]},
        "iterations": {"value": 120},
        "report_every": {"value": 8},
        "threads": {"value": 1},
    },
    "early_terminate": None,
}


@pytest.fixture
def long_experiment(tmp_path, tiny_data):
    """Two trials whose runs take long enough to be killed in."""
    sweep = {name: value for name, value in LONG.items() if value is not None}
    experiment = make_experiment(tmp_path / "runs", tiny_data, sweep)
    drive(experiment, tiny_data, {})
    return experiment


def registry_of(experiment):
    return experiment.path.parents[1] / "registry"


def promote_command(experiment, *more):
    """`promote --confirm 2` as a process group of its own, as a terminal starts it."""
    arguments = ("--confirm", 2, "--top", 2, "--workers", 2, "--registry", registry_of(experiment))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "analysis",
            "promote",
            *map(str, (experiment.path, *arguments)),
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def output_of(process):
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"did not finish: {process.communicate()[0]}") from None


def wait_for(experiment, pattern, process):
    deadline = time.monotonic() + PATIENCE
    while not list(experiment.path.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.005)


def rows(experiment):
    return {
        file: json.loads(file.read_text())
        for file in sorted(experiment.path.glob("confirmation/*/trials/*/run.json"))
    }


@pytest.fixture
def undisturbed(long_experiment, tmp_path):
    """The rows of a confirmation that nothing interrupted."""
    shutil.copytree(long_experiment.path, tmp_path / "quiet")
    quiet = Results.open(tmp_path / "quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confirmation, "train_runs", in_this_process)
        confirm(quiet, seeds=2, top=2)
    return {file.parts[-4:]: row for file, row in rows(quiet.experiment).items()}


def check_the_same(experiment, undisturbed):
    found = {file.parts[-4:]: row for file, row in rows(experiment).items()}
    assert found.keys() == undisturbed.keys()
    for name, row in found.items():
        for field, value in undisturbed[name].items():
            assert row[field] == (pytest.approx(value) if isinstance(value, float) else value)


@patient
@pytest.mark.chaos
@pytest.mark.parametrize("whole_group", [True, False])
def test_killed_in_the_middle_and_repeated(long_experiment, undisturbed, whole_group):
    """Killed with SIGKILL: the command alone, or its workers too."""
    process = promote_command(long_experiment)
    wait_for(long_experiment, "confirmation/*/trials/*/run.json", process)
    wait_for(long_experiment, "confirmation/*/trials/*/checkpoint-*", process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()  # the pipe is closed: the workers have ended too
    before = {file: file.stat().st_mtime_ns for file in rows(long_experiment)}
    assert 0 < len(before) < 4, "kill at another moment"
    assert not registry_of(long_experiment).exists()

    output = output_of(again := promote_command(long_experiment))
    assert again.returncode == 0, output
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    check_the_same(long_experiment, undisturbed)
    assert not list(long_experiment.path.glob("confirmation/*/trials/*/checkpoint-*"))
    assert not list(long_experiment.path.glob("confirmation/*/trials/*/.tmp-*"))
    assert "the best of the 2 on validation" in output


@patient
@pytest.mark.chaos
def test_ctrl_c_keeps_everything_and_says_how_to_go_on(long_experiment, undisturbed):
    process = promote_command(long_experiment)
    wait_for(long_experiment, "confirmation/*/trials/*/checkpoint-*", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    output = output_of(process)
    assert process.returncode == 130, output
    assert "finished runs and checkpoints are kept: the same command goes on" in output
    assert "Traceback" not in output
    output = output_of(again := promote_command(long_experiment))
    assert again.returncode == 0, output
    check_the_same(long_experiment, undisturbed)


@patient
@pytest.mark.chaos
def test_a_killed_worker_is_named_and_its_run_made_by_the_next_command(
    long_experiment, undisturbed
):
    process = promote_command(long_experiment)
    wait_for(long_experiment, "confirmation/*/trials/*/checkpoint-*", process)
    os.kill(process.pid, signal.SIGSTOP)  # it starts and reaps none while we choose one
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    spawned = [w for w in workers if "spawn_main" in Path(f"/proc/{w}/cmdline").read_text()]
    os.kill(int(spawned[0]), signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    output = output_of(process)
    assert process.returncode == 2, output
    assert "its process ended by signal 9." in output
    assert "1 of 4 runs failed" in output
    assert len(rows(long_experiment)) == 3
    output = output_of(again := promote_command(long_experiment))
    assert again.returncode == 0, output
    check_the_same(long_experiment, undisturbed)


@patient
@pytest.mark.chaos
def test_two_commands_at_once(long_experiment):
    first = promote_command(long_experiment)
    wait_for(long_experiment, "confirmation/*/trials/*/checkpoint-*", first)
    output = output_of(second := promote_command(long_experiment))
    assert second.returncode == 2
    assert f"confirmation: is being run by {os.uname().nodename}, process {first.pid}." in output
    output = output_of(first)
    assert first.returncode == 0, output
