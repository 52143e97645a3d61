"""Several objectives in the results: the Pareto front, the table, promotion and the report."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from optuna.study import create_study
from optuna.trial import create_trial

from analysis import Results, promote
from analysis.pareto import on_front
from analysis.report.page import render
from model.errors import ConfigurationError
from tests.analysis.conftest import drive, make_experiment, run

TWO = {
    "method": "grid",
    "metrics": [{"name": "val_loss", "goal": "minimize"}, {"name": "parameters"}],
    "parameters": {
        "hidden_size": {"values": [8, 16, 24]},
        "learning_rate": {"values": [0.02, 1e-6]},
        "encoder_layers": {"value": 1},
        "decoder_layers": {"value": 1},
        "batch_size": {"value": 8},
        "iterations": {"value": 12},
        "report_every": {"value": 6},
        "val_examples": {"value": 10},
        "device": {"value": "cpu"},
    },
}


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_data):
    """A finished search over two objectives; a model that learned nothing is never the better."""
    experiment = make_experiment(tmp_path_factory.mktemp("runs"), tiny_data, TWO, name="two")
    drive(experiment, tiny_data, failures={})
    return experiment


class TestFront:
    def test_by_hand(self):
        points = np.array([[1.0, 9], [2, 5], [2, 6], [3, 5], [4, 1], [np.nan, 0], [0, np.inf]])
        front = on_front(points, ["minimize", "minimize"])
        assert front.tolist() == [True, True, False, False, True, False, False]

    def test_a_maximised_objective(self):
        points = np.array([[1.0, 9], [2, 5], [2, 6], [3, 10]])
        assert on_front(points, ["minimize", "maximize"]).tolist() == [True, False, False, True]

    def test_equal_points_do_not_beat_each_other(self):
        points = np.array([[1.0, 1], [1, 1], [2, 1]])
        assert on_front(points, ["minimize", "minimize"]).tolist() == [True, True, False]

    def test_nothing(self):
        assert on_front(np.empty((0, 2)), ["minimize", "maximize"]).tolist() == []

    @given(
        arrays.arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 4)),
        st.lists(st.sampled_from(["minimize", "maximize"]), min_size=2, max_size=2),
    )
    def test_the_same_as_optuna_finds(self, points, goals):
        study = create_study(directions=goals)
        for point in points:
            study.add_trial(create_trial(values=point.tolist()))
        best = {trial.number for trial in study.best_trials}
        assert set(np.flatnonzero(on_front(points, goals))) == best


class TestResults:
    def test_table(self, two):
        results = Results.open(two.path)
        trials = results.trials.set_index("trial")
        assert results.objectives == ["val_loss", "parameters"]
        assert list(trials.columns[:3]) == ["state", "pareto", "val_loss"]
        # The sizes are those of the models; the first objective's best report has the values.
        sizes = trials.groupby("hidden_size")["parameters"].unique()
        assert [len(sizes[size]) for size in (8, 16, 24)] == [1, 1, 1]
        assert sizes[8][0] < sizes[16][0] < sizes[24][0]
        on_front = set(results.pareto()["trial"])
        for trial, row in trials.iterrows():
            beaten = (
                (trials["val_loss"] <= row["val_loss"])
                & (trials["parameters"] <= row["parameters"])
                & (
                    (trials["val_loss"] < row["val_loss"])
                    | (trials["parameters"] < row["parameters"])
                )
            ).any()
            assert (trial in on_front) == (not beaten) == row["pareto"]
        assert 1 <= len(on_front) < 6

    def test_selection(self, two):
        results = Results.open(two.path)
        front = results.pareto()["trial"].tolist()
        assert sorted(results.select(pareto=True)["trial"]) == sorted(front)
        assert set(results.select(pareto=True, history=True)["trial"]) == set(front)

    def test_one_objective_has_no_front(self, finished, capsys):
        results = Results.open(finished.path)
        assert "pareto" not in results.trials
        assert results.pareto()["trial"].tolist() == [results.best()["trial"]]
        with pytest.raises(ConfigurationError, match="has one objective, val_loss, and so"):
            results.select(pareto=True)
        assert run("results", finished.path, "--pareto") == 2
        assert "pareto: the search has one objective" in capsys.readouterr().err

    def test_command(self, two, capsys):
        assert run("results", two.path) == 0
        out = capsys.readouterr().out
        assert "pareto" in out.splitlines()[0]
        assert "Pareto front of val_loss and parameters: trial" in out
        assert run("results", two.path, "--pareto", "--format", "json") == 0
        records = json.loads(capsys.readouterr().out)
        assert len(records) == len(Results.open(two.path).pareto())
        assert all(record["pareto"] for record in records)


def test_promotion_says_who_chose(two, tmp_path, capsys):
    registry = tmp_path / "registry"
    assert run("promote", two.path, "--registry", registry) == 0
    out = capsys.readouterr().out
    assert "note: chosen by val_loss, the first of 2 objectives; on the Pareto front: trial" in out
    small = int(Results.open(two.path).pareto().iloc[-1]["trial"])
    assert promote(two.path, "small", trial=small, registry=registry).is_dir()


def test_report_shows_the_front(two):
    html = render(Results.open(two.path), bootstraps=0)
    assert "there is no single best one: on the Pareto front" in html
    assert 'id="pareto-parameters"' in html
    assert "val_loss against parameters" in html


def test_report_of_one_objective_has_none(finished):
    assert (
        "pareto"
        not in render(Results.open(finished.path), bootstraps=0).lower().split("plotly.js")[0]
    )
