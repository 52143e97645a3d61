"""The study: every figure compared with the table of trials, and its use by Optuna."""

import optuna
import pytest

from analysis import Results
from analysis.importance import importances
from analysis.importance.study import configurations, to_study
from model.config import DEFAULTS
from model.errors import ConfigurationError, ExperimentError
from tests.analysis.conftest import Killed, drive, make_experiment, proposed, reported
from tests.analysis.planted import PARAMETERS, make_planted, planted, rows_of_trial, write_journal
from tuning.optuna_log import quiet_optuna
from tuning.study import bring_up_to_date

State = optuna.trial.TrialState


class TestTrials:
    def test_states_and_values(self, finished):
        results = Results.open(finished.path)
        trials = to_study(results).trials
        assert [trial.state for trial in trials] == [
            *(State.COMPLETE, State.COMPLETE, State.PRUNED, State.FAIL, State.FAIL),
        ]
        table = results.trials.set_index("trial")
        assert [trial.value for trial in trials[:3]] == table["val_loss"].tolist()[:3]
        assert [trial.value for trial in trials[3:]] == [None, None]
        assert [trial.params for trial in trials] == [
            {"learning_rate": rate} for rate in (0.01, 0.02, 1e-6, 1e6, 0.03)
        ]

    def test_reports_by_iteration(self, finished):
        results = Results.open(finished.path)
        for trial in to_study(results).trials:
            own = results.history[results.history["trial"] == trial.number]
            known = own[own["val_loss"].notna()]
            assert trial.intermediate_values == dict(
                zip(known["iteration"], known["val_loss"], strict=True)
            )

    def test_attributes(self, finished):
        results = Results.open(finished.path)
        study = to_study(results)
        assert study.trials[1].user_attrs == {
            "trial": 1,
            "state": "finished",
            "iteration": 12,
            "best_iteration": int(results.trials["best_iteration"][1]),
            "worker": "host:2",
        }
        assert study.trials[3].user_attrs["best_iteration"] is None
        assert study.study_name == "small"
        assert study.metric_names == ["val_loss"]

    def test_times_are_those_of_the_journal(self, finished):
        results = Results.open(finished.path)
        for trial in to_study(results).trials:
            own = [row.elapsed for row in results.rows if row.trial == trial.number]
            seconds = (trial.datetime_complete - trial.datetime_start).total_seconds()
            assert seconds == pytest.approx(own[-1] - own[0], abs=1e-5)

    def test_twice_the_same(self, finished):
        one, other = (to_study(Results.open(finished.path)) for _ in range(2))
        assert one.trials == other.trials

    def test_a_goal_to_maximise(self, by_hand):
        rows = [proposed(0, 1.0), proposed(1, 2.0)]
        rows += [
            reported(0, 1, val_token_accuracy=0.5),
            reported(0, 2, "finished", val_token_accuracy=0.25),
            reported(1, 1, "finished", val_token_accuracy=0.75),
        ]
        metric = {"name": "val_token_accuracy", "goal": "maximize"}
        study = to_study(Results.open(by_hand(rows, metric).path))
        assert study.direction is optuna.study.StudyDirection.MAXIMIZE
        assert [trial.value for trial in study.trials] == [0.5, 0.75]
        assert study.best_trial.number == 1

    def test_running_and_interrupted(self, tmp_path, tiny_data, locked):
        experiment = make_experiment(tmp_path, tiny_data)
        with pytest.raises(Killed):
            drive(experiment, tiny_data, reports=4)
        first, second = to_study(Results.open(experiment.path)).trials
        assert (first.state, second.state) == (State.COMPLETE, State.WAITING)
        assert second.user_attrs["state"] == "interrupted"
        locked(experiment)
        second = to_study(Results.open(experiment.path)).trials[1]
        assert (second.state, second.value) == (State.RUNNING, None)
        assert len(second.intermediate_values) == 1
        assert second.datetime_complete is None

    def test_finished_without_a_figure(self, by_hand):
        rows = [proposed(0, 1.0), proposed(1, 2.0), reported(0, 1, "finished")]
        rows += [reported(1, 1, "finished", val_loss=2.0)]
        states = [trial.state for trial in to_study(Results.open(by_hand(rows).path)).trials]
        assert states == [State.FAIL, State.COMPLETE]

    def test_no_trials(self, by_hand):
        assert to_study(Results.open(by_hand([]).path)).trials == []


class TestParameters:
    def test_distributions_are_the_sweeps(self, tmp_path, tiny_data):
        results = Results.open(make_planted(tmp_path, tiny_data, trials=20).path)
        trial = to_study(results).trials[0]
        assert trial.distributions == {
            "teacher_forcing_ratio": optuna.distributions.FloatDistribution(0.0, 1.0),
            "clip": optuna.distributions.IntDistribution(0, 100),
            "optimizer": optuna.distributions.CategoricalDistribution(("adam", "sgd")),
            "learning_rate": optuna.distributions.FloatDistribution(1e-5, 0.1, log=True),
        }
        assert trial.value == pytest.approx(planted(trial.params))

    def test_some_of_them(self, tmp_path, tiny_data):
        results = Results.open(make_planted(tmp_path, tiny_data, trials=20).path)
        study = to_study(results, parameters=["optimizer", "clip"])
        assert list(study.trials[0].params) == ["clip", "optimizer"]  # as in the sweep file

    def test_one_that_is_not_searched(self, tmp_path, tiny_data):
        results = Results.open(make_planted(tmp_path, tiny_data, trials=3).path)
        message = r"planted: optimiser: is not searched, did you mean 'optimizer'\?"
        with pytest.raises(ConfigurationError, match=message):
            to_study(results, parameters=["optimiser"])

    def test_one_that_never_varied_is_left_out(self, tmp_path, tiny_data):
        experiment = make_planted(tmp_path, tiny_data, trials=1)
        assert to_study(Results.open(experiment.path)).trials[0].params == {}

    def test_values_keep_their_kind(self, tmp_path, tiny_data):
        """A column of 0 and 25.5 is a column of floats to pandas; the sweep said 0."""
        sweep = {
            "method": "grid",
            "parameters": {"clip": {"values": [0, 25.5]}, "corpus": {"value": "tiny"}},
        }
        experiment = make_experiment(tmp_path, tiny_data, sweep)
        configs = [{"clip": 0, "corpus": "tiny"}, {"clip": 25.5, "corpus": "tiny"}]
        rows = [r for i, c in enumerate(configs) for r in rows_of_trial(i, c, {4: (1.0, 1.0)})]
        values = configurations(Results.open(write_journal(experiment, rows).path))["clip"]
        assert [(value, type(value)) for value in values] == [(0, int), (25.5, float)]

    def test_a_value_outside_the_space(self, by_hand):
        results = Results.open(by_hand([proposed(0, 1.0), proposed(1, 50.0)]).path)
        message = r"hand: trial 1: clip is 50.0, which is not in the sweep's space \(0.0 to 9.0"
        with pytest.raises(ExperimentError, match=message):
            to_study(results)


def sweep_of(parameters, /, **extension):
    parameters = {**parameters, "corpus": {"value": "tiny"}}
    return {"method": "random", "parameters": parameters, "dialogue_tune": extension}


def finished_with(tmp_path, tiny_data, sweep, configs):
    """An experiment whose trials had these configurations, with their number as their value."""
    experiment = make_experiment(tmp_path, tiny_data, sweep, trials=len(configs))
    rows = [
        row
        for number, config in enumerate(configs)
        for row in rows_of_trial(number, {**config, "corpus": "tiny"}, {4: (number, 0.0)})
    ]
    return Results.open(write_journal(experiment, rows).path)


class TestEveryDistribution:
    def test_without_ends_it_has_those_of_the_trials(self, tmp_path, tiny_data):
        sweep = sweep_of({"learning_rate": {"distribution": "log_normal", "mu": -6, "sigma": 1}})
        configs = [{"learning_rate": rate} for rate in (0.002, 0.0005, 0.003)]
        study = to_study(finished_with(tmp_path, tiny_data, sweep, configs))
        expected = optuna.distributions.FloatDistribution(0.0005, 0.003, log=True)
        assert [t.distributions for t in study.trials] == [{"learning_rate": expected}] * 3
        assert [t.params for t in study.trials] == configs

    def test_quantised_numbers_stay_whole(self, tmp_path, tiny_data):
        sweep = sweep_of(
            {"hidden_size": {"distribution": "q_uniform", "min": 16, "max": 64, "q": 16}}
        )
        configs = [{"hidden_size": size} for size in (16, 64, 48)]
        results = finished_with(tmp_path, tiny_data, sweep, configs)
        trial = to_study(results).trials[0]
        assert trial.distributions["hidden_size"] == optuna.distributions.IntDistribution(
            16, 64, step=16
        )
        sizes = configurations(results)["hidden_size"]
        assert [(size, type(size)) for size in sizes] == [(16, int), (64, int), (48, int)]

    def test_what_was_not_active_is_no_parameter(self, tmp_path, tiny_data):
        sweep = sweep_of(
            {
                "optimizer": {"values": ["adam", "sgd"]},
                "decoder_learning_ratio": {"min": 1.0, "max": 3.0},
            },
            parameters={"decoder_learning_ratio": {"when": "optimizer == 'adam'"}},
        )
        default = DEFAULTS["decoder_learning_ratio"]
        assert default > 3.0, "the default is to be outside of the range"
        configs = [
            {"optimizer": "adam", "decoder_learning_ratio": 2.0},
            {"optimizer": "sgd", "decoder_learning_ratio": default},
            {"optimizer": "adam", "decoder_learning_ratio": 1.5},
            {"optimizer": "sgd", "decoder_learning_ratio": default},
        ]
        results = finished_with(tmp_path, tiny_data, sweep, configs)
        trials = to_study(results).trials
        assert [trial.params for trial in trials] == [
            configs[0],
            {"optimizer": "sgd"},
            configs[2],
            {"optimizer": "sgd"},
        ]
        assert trials[0].distributions["decoder_learning_ratio"].high == 3.0
        for measured in importances(results, bootstraps=0):  # it has a place for the default
            assert len(measured.frame) >= 2

    def test_as_the_search_wrote_it(self, tmp_path, tiny_data):
        """Two readings of one journal: the study in memory, and the one on file."""
        results = Results.open(make_planted(tmp_path, tiny_data, trials=8).path)
        file = bring_up_to_date(results.experiment)
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        live = optuna.load_study(
            study_name="planted", storage=optuna.storages.JournalStorage(backend)
        )
        for one, other in zip(to_study(results).trials, live.trials, strict=True):
            assert (one.params, one.distributions) == (other.params, other.distributions)
            assert one.intermediate_values == other.intermediate_values
            assert one.user_attrs.items() >= other.user_attrs.items()


class TestOptuna:
    @pytest.mark.parametrize("plot", ["optimization_history", "slice"])
    def test_visualisations_draw_every_finished_trial(self, plot, tmp_path, tiny_data):
        study = to_study(Results.open(make_planted(tmp_path, tiny_data, trials=8).path))
        with quiet_optuna():
            figure = getattr(optuna.visualization, f"plot_{plot}")(study)
        assert sorted(figure.data[0].y) == sorted(trial.value for trial in study.trials)

    def test_curves_and_timeline(self, finished):
        study = to_study(Results.open(finished.path))
        with quiet_optuna():
            curves = optuna.visualization.plot_intermediate_values(study).data
            bars = optuna.visualization.plot_timeline(study).data
        assert len(curves) == 3  # Optuna draws what is COMPLETE, PRUNED or RUNNING
        assert curves[0].x == (4, 8, 12)
        assert {bar.name for bar in bars} >= {"COMPLETE", "PRUNED", "FAIL"}

    def test_logs_nothing(self, finished, capsys):
        to_study(Results.open(finished.path))
        assert capsys.readouterr().err == ""
        assert optuna.logging.get_verbosity() == optuna.logging.INFO

    def test_names_are_kept(self, tmp_path, tiny_data):
        results = Results.open(make_planted(tmp_path, tiny_data, trials=8).path)
        frame = to_study(results).trials_dataframe()
        assert {f"params_{name}" for name in PARAMETERS} <= set(frame)
        assert frame["value_val_loss"].tolist() == results.trials["val_loss"].tolist()
