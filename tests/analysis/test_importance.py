"""Importance: functions whose decomposition is known by hand, then the reference programs."""

import json
import math
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from analysis import Results
from analysis.importance.estimates import ENOUGH, METHODS, importances
from analysis.importance.fanova import variance_shares
from analysis.importance.measures import place
from analysis.importance.study import to_study
from model.errors import ConfigurationError
from tests.analysis.conftest import make_experiment, proposed, reported, run
from tests.analysis.planted import (
    ORDER,
    VARIANCES,
    make_planted,
    planted,
    rows_of_trial,
    write_journal,
)
from tuning.distributions import Categorical, IntUniform, LogUniform, Uniform
from tuning.optuna_log import quiet_optuna


def measured(results, method, **settings):
    """The one measurement of a method, without intervals unless asked for."""
    return importances(results, [method], **{"bootstraps": 0, **settings})[0]


def by_parameter(importance):
    """Figures of whole hyper-parameters, by name."""
    frame = importance.frame
    if "category" in frame:
        frame = frame[frame["category"].isna()]
    return dict(zip(frame["parameter"], frame["importance"], strict=True))


@pytest.fixture(scope="module")
def planted_results(tmp_path_factory, tiny_data):
    """400 random trials of the planted function, with noise a tenth of the smallest effect."""
    storage = tmp_path_factory.mktemp("planted")
    return Results.open(make_planted(storage, tiny_data, trials=400, noise=0.1).path)


@pytest.fixture(scope="module")
def few_results(tmp_path_factory, tiny_data):
    """As many trials as the published sweeps had."""
    storage = tmp_path_factory.mktemp("few")
    return Results.open(make_planted(storage, tiny_data, trials=25, noise=0.1).path)


class TestKnownFunctions:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_planted_order_is_recovered(self, method, planted_results):
        assert list(by_parameter(measured(planted_results, method))) == ORDER

    def test_a_maximised_objective_has_the_same_order(self, tmp_path, tiny_data):
        experiment = make_planted(
            tmp_path,
            tiny_data,
            lambda config: -planted(config),
            trials=400,
            noise=0.1,
            metric={"name": "val_token_accuracy", "goal": "maximize"},
        )
        for one in importances(Results.open(experiment.path), bootstraps=0):
            assert list(by_parameter(one)) == ORDER, one.method

    def test_fanova_of_an_additive_function(self, planted_results):
        """Each share is its own variance over the sum of all, by hand."""
        total = sum(VARIANCES.values())
        for name, share in by_parameter(measured(planted_results, "fanova")).items():
            assert share == pytest.approx(VARIANCES[name] / total, abs=0.03), name

    def test_fanova_leaves_interactions_out(self):
        """For a product of two uniform variables the variance is 1/9 - 1/16 = 7/144.

        Averaged over the other, each is x/2, of variance 1/48: three sevenths; a seventh is left.
        """
        arguments = np.random.default_rng(0).random((2000, 2))
        shares = variance_shares(arguments, arguments.prod(axis=1), seed=0)
        assert shares == pytest.approx([3 / 7, 3 / 7], abs=0.02)

    def test_fanova_of_one_step(self):
        """f is 1 on the upper quarter of x, whatever y: all the variance is x's."""
        arguments = np.array([[x / 16 + 1 / 32, y / 4] for x in range(16) for y in range(4)])
        shares = variance_shares(arguments, (arguments[:, 0] > 0.75).astype(float), seed=0)
        assert shares == pytest.approx([1.0, 0.0])

    def test_fanova_of_a_constant(self):
        shares = variance_shares(np.random.default_rng(0).random((9, 2)), np.ones(9), seed=0)
        assert np.isnan(shares).all()

    def test_three_categories_weigh_the_same(self, tmp_path, tiny_data):
        """Of 0, 0 and 1 the variance is 2/9, beside 1/12 of the uniform one."""
        parameters = {
            "attention": {"values": ["dot", "general", "concat"]},
            "dropout": {"min": 0.0, "max": 0.5},
        }
        results = Results.open(
            make_planted(
                tmp_path,
                tiny_data,
                lambda c: (c["attention"] == "general") + 2 * c["dropout"],
                trials=400,
                parameters=parameters,
            ).path
        )
        shares = by_parameter(measured(results, "fanova"))
        total = 2 / 9 + 1 / 12
        assert shares["attention"] == pytest.approx(2 / 9 / total, abs=0.03)
        assert shares["dropout"] == pytest.approx(1 / 12 / total, abs=0.03)

    def test_a_log_range_is_asked_about_evenly(self, tmp_path, tiny_data):
        """A step at 1e-3, the middle of 1e-5 to 0.1: to a linear scale it is at its first 1 %.

        Half of the trials lie on each side of it, as the sweep draws them: variance 1/4. The other
        hyper-parameter has 1/12. Optuna's evaluator itself sees 0.0099 in the first.
        """
        parameters = {
            "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
            "dropout": {"min": 0.0, "max": 0.5},
        }
        experiment = make_planted(
            tmp_path,
            tiny_data,
            lambda c: float(c["learning_rate"] > 1e-3) + 2 * c["dropout"],
            trials=100,
            parameters=parameters,
        )
        results = Results.open(experiment.path)
        shares = by_parameter(measured(results, "fanova"))
        assert shares["learning_rate"] == pytest.approx(3 / 4, abs=0.08)
        linear = optuna.importance.get_param_importances(
            to_study(results), evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
        assert linear["learning_rate"] < 0.25


class TestReferences:
    def test_fanova_is_optunas(self):
        """To nine digits, on arguments that are uniform already."""
        arguments = np.random.default_rng(0).random((60, 3))
        values = arguments @ [3.0, 2.0, 0.5] + arguments[:, 0] * arguments[:, 1]
        names = ["a", "b", "c"]
        distributions = dict.fromkeys(names, optuna.distributions.FloatDistribution(0.0, 1.0))
        with quiet_optuna():
            study = optuna.create_study()
            for row, value in zip(arguments, values, strict=True):
                params = dict(zip(names, row.tolist(), strict=True))
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=distributions, value=value
                    )
                )
            reference = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=7),
                normalize=False,
            )
        shares = variance_shares(arguments, values, seed=7)
        assert shares == pytest.approx([reference[name] for name in names], rel=1e-9)

    def test_ped_anova_is_optunas(self, planted_results):
        reference = optuna.importance.get_param_importances(to_study(planted_results))
        assert by_parameter(measured(planted_results, "ped-anova")) == pytest.approx(reference)

    def test_the_panel_is_scikit_learns(self, few_results):
        """Numbers as they are, the optimizer one-hot, all as scikit-learn has them directly."""
        trials = few_results.trials
        columns = pd.DataFrame(
            {
                "teacher_forcing_ratio": trials["teacher_forcing_ratio"],
                "clip": trials["clip"],
                "optimizer=adam": trials["optimizer"] == "adam",
                "optimizer=sgd": trials["optimizer"] == "sgd",
                "learning_rate": trials["learning_rate"],
            }
        ).astype(float)
        forest = RandomForestRegressor(random_state=3)
        forest.fit(columns.to_numpy(), trials["val_loss"].to_numpy())
        expected = dict(zip(columns, forest.feature_importances_, strict=True))
        frame = measured(few_results, "random-forest", seed=3).frame.set_index("parameter")
        for name, figure in expected.items():
            assert frame.at[name, "importance"] == figure, name
            linear = columns[name].corr(trials["val_loss"])
            assert frame.at[name, "correlation"] == pytest.approx(linear), name
        both = expected["optimizer=adam"] + expected["optimizer=sgd"]
        assert frame.at["optimizer", "importance"] == pytest.approx(both)
        assert math.isnan(frame.at["optimizer", "correlation"])
        assert set(frame.index) == {*expected, "optimizer"}

    def test_categories_follow_their_parameter(self, few_results):
        frame = measured(few_results, "random-forest").frame
        at = frame["parameter"].tolist().index("optimizer")
        below = frame.iloc[at : at + 3]
        assert below["parameter"].tolist() == ["optimizer", "optimizer=adam", "optimizer=sgd"]
        assert below["category"].tolist()[1:] == ["adam", "sgd"]
        assert below["category"].isna().tolist() == [True, False, False]
        whole = frame[frame["category"].isna()]["importance"]
        assert whole.sum() == pytest.approx(1.0)
        assert whole.is_monotonic_decreasing

    def test_the_order_of_the_trials_is_nothing_to_ped_anova(self, tmp_path, tiny_data):
        straight, turned = (
            make_planted(tmp_path, tiny_data, trials=30, noise=0.1, name=name, order=order)
            for name, order in (("straight", None), ("turned", range(29, -1, -1)))
        )
        one, other = (
            by_parameter(measured(Results.open(experiment.path), "ped-anova"))
            for experiment in (straight, turned)
        )
        assert one == pytest.approx(other)


@pytest.mark.slow
@pytest.mark.long
def test_how_many_trials_it_takes(tmp_path, tiny_data, capsys):
    """Twenty sweeps of each size, with noise as large as the third effect; see `ENOUGH`.

    Of the sweeps, how many put the largest effect first, and the two largest first and second.
    """
    counts = {}
    for trials in (10, 25, 50, 100):
        for seed in range(20):
            name = f"{trials}-{seed}"
            experiment = make_planted(
                tmp_path, tiny_data, trials=trials, noise=1.0, seed=seed, name=name
            )
            for one in importances(Results.open(experiment.path), bootstraps=0, seed=seed):
                order = list(by_parameter(one))
                first, two = counts.get((one.method, trials), (0, 0))
                right = (order[0] == ORDER[0], order[:2] == ORDER[:2])
                counts[one.method, trials] = (first + right[0], two + right[1])
    with capsys.disabled():
        print(*(f"\n{method} {n}: {found}" for (method, n), found in sorted(counts.items())))
    for method in METHODS:
        first, two = counts[method, ENOUGH[method][0]]
        assert first == 20
        assert two >= 14


class TestPlaces:
    @pytest.mark.parametrize(
        ("distribution", "value", "expected"),
        [
            (Uniform(10.0, 20.0), 12.5, 0.25),
            (LogUniform(1e-4, 1.0), 1e-3, 0.25),
            (IntUniform(1, 4), 1, 0.125),
            (IntUniform(1, 4), 4, 0.875),
            (Categorical(("a", None, 3)), None, 0.5),
        ],
    )
    def test_by_hand(self, distribution, value, expected):
        assert place(value, distribution) == pytest.approx(expected)

    @pytest.mark.parametrize(
        "distribution",
        [Uniform(-1.0, 3.0), LogUniform(1e-5, 0.1), IntUniform(0, 6), Categorical(("a", "b", "c"))],
    )
    def test_draws_are_even(self, distribution):
        """A place is where the draw came from, to the width of a whole number or category."""
        width = 1 / (distribution.size() or math.inf)
        for u in np.linspace(0.0, 0.999, 37):
            assert place(distribution.quantile(u), distribution) == pytest.approx(
                u, abs=width / 2 + 1e-9
            )


class TestIntervals:
    @pytest.mark.parametrize("method", METHODS)
    def test_hold_the_figure(self, method, few_results):
        one = measured(few_results, method, bootstraps=5)
        assert (one.frame["low"] <= one.frame["importance"]).all()
        assert (one.frame["importance"] <= one.frame["high"]).all()
        assert (one.frame["high"] > one.frame["low"]).any()
        assert one.first >= 0.6  # by chance it would be 0.25

    @pytest.mark.parametrize("method", METHODS)
    def test_equal_seeds_equal_figures(self, method, few_results):
        again = [measured(few_results, method, bootstraps=2, seed=seed).frame for seed in (1, 1, 2)]
        pd.testing.assert_frame_equal(again[0], again[1])
        assert not again[0].equals(again[2])

    def test_narrow_with_more_trials(self, few_results, planted_results):
        widths = []
        for results in (few_results, planted_results):
            frame = measured(results, "ped-anova", bootstraps=8).frame.set_index("parameter")
            widths.append(frame.at["learning_rate", "high"] - frame.at["learning_rate", "low"])
        assert widths[1] < widths[0]

    def test_none_without_samples(self, few_results):
        one = measured(few_results, "fanova", bootstraps=0)
        assert one.frame[["low", "high"]].isna().all(axis=None)
        assert math.isnan(one.first)

    def test_samples_of_one_value_are_left_out(self, by_hand):
        """Three of four trials are level: many samples of them are too."""
        rows = [row for i in range(4) for row in (proposed(i, float(i)), _end(i, float(i == 3)))]
        results = Results.open(by_hand(rows).path)
        for one in importances(results, bootstraps=4):
            assert one.frame[["importance", "low", "high"]].notna().all(axis=None)


def _end(trial, value, iteration=4, state="finished"):
    return reported(trial, iteration, state, val_loss=value, loss=value)


class TestRules:
    """Stopped at 4, running at 8, finished at 12; the best of trial 1 comes early."""

    ROWS = (
        *(proposed(i, float(i)) for i in range(5)),
        *(reported(0, 4, val_loss=5.0), reported(0, 8, val_loss=4.0)),
        *(reported(1, 4, val_loss=2.0), reported(1, 8, val_loss=2.5)),
        reported(2, 4, "stopped", val_loss=6.0),
        *(reported(3, 4, val_loss=4.5), reported(3, 8, val_loss=4.25)),
        *(reported(4, 4, val_loss=1.0), reported(4, 8, "diverged")),
        *(reported(0, 12, "finished", val_loss=3.0), reported(1, 12, "finished", val_loss=3.0)),
    )

    def results(self, by_hand):
        return Results.open(by_hand(self.ROWS).path)

    def compared(self, by_hand, rule):
        from analysis.importance.budgets import comparable_trials

        return comparable_trials(self.results(by_hand), rule)

    def test_equal_budget(self, by_hand):
        """Three trials ended; nine tenths of them is all, and one ended at 4."""
        found = self.compared(by_hand, "equal-budget")
        assert found.budget == 4
        assert found.frame["trial"].tolist() == [0, 1, 2, 3]
        assert found.frame["val_loss"].tolist() == [5.0, 2.0, 6.0, 4.5]
        assert found.sentence == (
            "trials that reached iteration 4, the most that 90 % of the ended ones did, each by "
            "its best val_loss up to there"
        )
        assert found.warnings == [
            "left out: 1 diverged; what makes training break is not seen here.",
            "compared at iteration 4, though trials trained up to 12: what matters early need not "
            "matter at the end (--trials finished compares 2 finished trials).",
        ]

    def test_finished(self, by_hand):
        found = self.compared(by_hand, "finished")
        assert found.frame["trial"].tolist() == [0, 1]
        assert found.frame["val_loss"].tolist() == [3.0, 2.0]
        assert found.frame["best_iteration"].tolist() == [12, 4]
        assert found.frame["last_val_loss"].tolist() == [3.0, 3.0]
        assert found.warnings[1] == (
            "left out: 1 interrupted, 1 stopped; early stopping chose the finished trials by their "
            "early values, which hides what decides early."
        )
        assert len(found.warnings) == 2

    def test_all(self, by_hand):
        found = self.compared(by_hand, "all")
        assert found.frame["val_loss"].tolist() == [3.0, 2.0, 6.0, 4.25]
        assert found.frame["iteration"].tolist() == [12, 12, 4, 8]
        assert found.warnings[1] == (
            "unequal budgets: these trials trained 4 to 12 iterations, which is part of their "
            "difference (--trials equal-budget compares at one iteration)."
        )

    def test_one_early_stop_of_ten_does_not_set_the_budget(self, by_hand):
        rows = [row for i in range(9) for row in (proposed(i), _end(i, float(i), 12))]
        rows += [proposed(9), _end(9, 1.0, 4, "stopped")]
        from analysis.importance.budgets import comparable_trials

        found = comparable_trials(Results.open(by_hand(rows).path))
        assert (found.budget, len(found.frame)) == (12, 9)
        assert found.warnings == ["left out: 1 stopped, which did not reach iteration 12."]

    def test_without_early_stopping_the_rules_agree(self, few_results):
        figures = [by_parameter(measured(few_results, "ped-anova", rule=r)) for r in ("all", "finished", "equal-budget")]  # fmt: skip # noqa: E501
        assert figures[0] == figures[1] == figures[2]

    def test_the_rule_is_named(self, by_hand):
        found = importances(self.results(by_hand), rule="all", bootstraps=0)
        assert {one.rule for one in found} == {
            "trials with a value, each by its best val_loss, whatever its budget"
        }
        assert {one.trials for one in found} == {4}

    def test_only_running_trials(self, by_hand):
        rows = [row for i in range(4) for row in (proposed(i, i), reported(i, 4, val_loss=1.0 + i))]
        found = importances(Results.open(by_hand(rows).path), ["fanova"], bootstraps=0)[0]
        assert found.trials == 4
        assert len(found.frame) == 1

    def test_unknown_rule(self, few_results):
        with pytest.raises(ConfigurationError, match=r"unknown rule 'every'; valid: all, equal"):
            importances(few_results, rule="every")


class TestWarnings:
    def test_few_trials(self, few_results):
        ped, fanova, _ = importances(few_results, bootstraps=0)
        assert ped.warnings == [
            "few trials: 25 were compared, and 100 would do, since the best tenth is then ten "
            "trials; Optuna advises at least five."
        ]
        assert fanova.warnings == [
            "few trials: 25 were compared, and 50 would do, since with fewer, the forest follows "
            "the noise of single trials."
        ]

    def test_enough_trials(self, planted_results):
        assert [one.warnings for one in importances(planted_results, bootstraps=0)] == [[], [], []]

    @pytest.mark.parametrize("trials", [0, 1, 3])
    def test_too_few_trials(self, trials, tmp_path, tiny_data):
        results = Results.open(make_planted(tmp_path, tiny_data, trials=trials).path)
        for one in importances(results):
            assert (one.trials, len(one.frame), math.isnan(one.first)) == (trials, 0, True)
            assert set(one.frame) >= {"parameter", "importance", "low", "high"}
            assert one.warnings[-1].startswith(
                f"too few trials: {trials} can be compared; figures take at least 4, and "
            )

    def test_no_journal_yet(self, by_hand):
        assert all(one.frame.empty for one in importances(Results.open(by_hand([]).path)))

    def test_a_single_value(self, tmp_path, tiny_data):
        parameters = {"clip": {"min": 0, "max": 9}, "optimizer": {"values": ["adam", "sgd"]}}
        sweep = {"method": "random", "parameters": parameters | {"corpus": {"value": "tiny"}}}
        experiment = make_experiment(tmp_path, tiny_data, sweep, trials=5)
        configs = [{"clip": i, "optimizer": "sgd", "corpus": "tiny"} for i in range(5)]
        rows = [r for i, c in enumerate(configs) for r in rows_of_trial(i, c, {4: (float(i), 1.0)})]
        one = measured(Results.open(write_journal(experiment, rows).path), "ped-anova")
        assert one.frame["parameter"].tolist() == ["clip"]
        expected = "took one value only, so nothing is known of its importance: optimizer."
        assert expected in one.warnings

    def test_a_lost_configuration(self, tmp_path, tiny_data):
        """The row that proposed trial 0 and what it repeats are damaged, but for the reports."""
        results = Results.open(make_planted(tmp_path, tiny_data, trials=9).path)
        results.trials.loc[0, "learning_rate"] = math.nan
        one = measured(results, "fanova")
        assert one.trials == 8
        assert "left out: 1 whose configuration is lost." in one.warnings
        assert "learning_rate" not in to_study(results).trials[0].params

    def test_more_trials_than_are_needed(self, planted_results, monkeypatch):
        monkeypatch.setattr("analysis.importance.estimates.MOST", 120)
        one = measured(planted_results, "ped-anova")
        assert one.trials == 120
        assert one.warnings == [
            "measured on 120 of 400 trials, drawn at random: more take long and show no more."
        ]
        assert by_parameter(one) == by_parameter(measured(planted_results, "ped-anova"))
        assert by_parameter(one) != by_parameter(measured(planted_results, "ped-anova", seed=1))

    def test_the_same_configuration_again_and_again(self, by_hand):
        rows = [row for i in range(5) for row in (proposed(i, 1.0), _end(i, float(i)))]
        one = measured(Results.open(by_hand(rows).path), "fanova")
        assert one.frame.empty
        assert one.warnings[-1] == (
            "all trials have the same configuration: there is nothing to compare."
        )

    def test_a_constant_objective(self, by_hand):
        rows = [row for i in range(5) for row in (proposed(i, float(i)), _end(i, 2.0))]
        for one in importances(Results.open(by_hand(rows).path)):
            assert one.frame.empty
            assert one.warnings[-1] == (
                "all trials have the same value of the objective: there is nothing to explain."
            )

    def test_a_bayesian_search(self, tmp_path, tiny_data):
        experiment = make_planted(tmp_path, tiny_data, trials=5, method="bayes")
        said = measured(Results.open(experiment.path), "fanova").warnings
        assert any(one.startswith("the search was bayes: it tried some regions") for one in said)

    def test_unknown_method(self, few_results):
        message = r"importance: unknown method 'fanova2', did you mean 'fanova'\?"
        with pytest.raises(ConfigurationError, match=message):
            importances(few_results, ["fanova2"])

    def test_python_warns_of_nothing(self, few_results):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            importances(few_results, bootstraps=1)


class TestCommand:
    def test_text(self, few_results, capsys):
        assert run("importance", few_results.experiment.path, "--bootstraps", 2) == 0
        out = capsys.readouterr().out
        assert out.startswith("planted: 25 trials compared\ntrials that reached iteration 4, ")
        assert "ped-anova: Which hyper-parameters tell the best tenth" in out
        assert "fanova: Which share of the objective's variance" in out
        assert "random-forest: Which hyper-parameters does a random forest split on" in out
        table = out.split("Weights & Biases)?\n")[1].splitlines()
        assert table[0].split() == ["parameter", "importance", "90", "%", "interval", "correlation"]
        assert table[2].split()[0] == "learning_rate"
        assert table[2].rstrip().endswith("###")
        assert any(line.startswith("  optimizer=adam") for line in table)
        assert "learning_rate comes out first in 100 % of bootstrap samples" in out

    def test_one_method(self, few_results, capsys):
        path = few_results.experiment.path
        assert run("importance", path, "--method", "fanova", "--bootstraps", 0) == 0
        out = capsys.readouterr().out
        assert "fanova: " in out
        assert "ped-anova: " not in out

    def test_json(self, few_results, capsys):
        path = few_results.experiment.path
        assert run("importance", path, "--bootstraps", 2, "--json") == 0
        read = json.loads(capsys.readouterr().out)
        assert (read["experiment"], read["objective"]) == ("planted", "val_loss")
        assert [one["method"] for one in read["methods"]] == list(METHODS)
        by_name = {row["parameter"]: row for row in read["methods"][2]["importances"]}
        assert by_name["optimizer"]["correlation"] is None
        assert by_name["optimizer=sgd"]["category"] == "sgd"
        frame = measured(few_results, "random-forest").frame
        assert [row["importance"] for row in by_name.values()] == frame["importance"].tolist()

    def test_twice_the_same(self, few_results, capsys):
        texts = []
        for _ in range(2):
            run("importance", few_results.experiment.path, "--bootstraps", 1)
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]

    def test_too_few_is_said_in_words(self, finished, capsys):
        assert run("importance", finished.path) == 0
        out = capsys.readouterr().out
        assert "small: 3 trials compared" in out
        assert "note: left out: 1 diverged, 1 failed; what makes training break" in out
        assert "note: too few trials: 3 can be compared; figures take at least 4" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--bootstraps", "-1"), "must be a whole number of at least 0, but got '-1'"),
            (("--bootstraps", "few"), "must be a whole number of at least 0, but got 'few'"),
            (("--method", "anova"), "invalid choice: 'anova'"),
            (("--trials", "best"), "invalid choice: 'best'"),
        ],
    )
    def test_bad_options(self, arguments, message, capsys):
        assert run("importance", "x", *arguments) == 2
        assert message in capsys.readouterr().err

    def test_unknown_experiment(self, tmp_path, capsys):
        assert run("importance", "nowhere", "--storage", tmp_path) == 2
        assert "nowhere" in capsys.readouterr().err
