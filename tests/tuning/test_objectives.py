"""Several objectives: in sweep files, in the coordinator, with searchers and in a search."""

import math

import pytest

import model.latency
import tuning
from analysis import Results
from model.decoding import Stepper
from model.errors import ConfigurationError, ExperimentError
from model.latency import reply_milliseconds
from model.training import Trainer
from tuning.coordinator import Coordinator
from tuning.distributions import Uniform
from tuning.going_on import _check_open
from tuning.journal import Journal, read_journal
from tuning.objective import Objective, all_reached, best_values
from tuning.outcome import Outcome
from tuning.scheduling import FifoScheduler, make_scheduler
from tuning.searchers import CMAESSearcher, RandomSearcher, TPESearcher, make_searcher
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.sweep_file import parse_sweep

LOSS = Objective("val_loss", "minimize")
SIZE = Objective("parameters", "minimize")
ACCURACY = Objective("val_token_accuracy", "maximize")
TWO = {
    "method": "bayes",
    "metrics": [{"name": "val_loss", "goal": "minimize"}, {"name": "parameters"}],
    "parameters": {"learning_rate": {"min": 0.001, "max": 0.1}},
}


class TestSweepFile:
    def test_in_order_with_goals_and_targets(self):
        metrics = [
            {"name": "val_loss", "target": 3},
            {"name": "val_token_accuracy", "goal": "maximize"},
            {"name": "latency_ms", "goal": "minimize", "target": 9.5},
        ]
        sweep = parse_sweep(TWO | {"metrics": metrics})
        assert sweep.objectives == (
            Objective("val_loss", "minimize", 3),
            ACCURACY,
            Objective("latency_ms", "minimize", 9.5),
        )
        assert sweep.objective is sweep.objectives[0]
        assert parse_sweep(sweep.to_mapping()).objectives == sweep.objectives

    def test_a_list_of_one_is_one_objective(self):
        sweep = parse_sweep(
            TWO
            | {
                "metrics": TWO["metrics"][:1],
                "early_terminate": {"type": "hyperband", "s": 1, "max_iter": 9},
            }
        )
        assert sweep.objectives == (LOSS,)

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (
                {"metrics": []},
                "metrics: must be a list of mappings with name and goal, but got [].",
            ),
            ({"metrics": {"name": "val_loss"}}, "metrics: must be a list of mappings"),
            ({"metrics": ["val_loss"]}, "metrics[0]: must be a mapping with name and goal"),
            ({"metric": {"name": "val_loss"}}, "metrics: cannot stand beside metric; give one."),
            (
                {"metrics": [{"name": "parameters"}, {"name": "val_loss"}]},
                "metrics[0].name: parameters cannot be the only or first one: which weights of a "
                "trial count is decided by the first, one of val_loss, val_perplexity, "
                "val_token_accuracy; put parameters after it, under metrics.",
            ),
            (
                {"metrics": [{"name": "val_loss"}, {"name": "latency"}]},
                "metrics[1].name: unknown metric 'latency', did you mean 'latency_ms'?",
            ),
            (
                {"metrics": [{"name": "val_loss"}, {"name": "val_loss"}]},
                "metrics[1].name: val_loss stands there already.",
            ),
            (
                {"metrics": [{"name": "val_loss"}, {"name": "parameters", "goal": "maximize"}]},
                "metrics[1].goal: must be minimize for parameters, but is maximize.",
            ),
            (
                {"metrics": [{"name": "val_loss"}, {"name": "parameters", "weight": 2}]},
                "metrics[1].weight: unknown key",
            ),
            (
                {"early_terminate": {"type": "hyperband", "min_iter": 2}},
                "early_terminate: cannot stop trials of several objectives: one that is worse by "
                "the first may be better by another. Leave it out.",
            ),
            (
                {"dialogue_tune": {"scheduler": {"type": "median"}}},
                "dialogue_tune.scheduler: cannot stop trials of several objectives",
            ),
        ],
    )
    def test_faults(self, change, fault):
        with pytest.raises(ConfigurationError) as raised:
            parse_sweep(TWO | change)
        assert fault in str(raised.value)

    def test_a_cost_alone_is_refused_with_what_to_do(self):
        with pytest.raises(ConfigurationError, match="metric.name: parameters cannot be the only"):
            parse_sweep({**TWO, "metrics": None, "metric": {"name": "parameters"}})

    def test_no_scheduler_may_be_said_to_stop_nothing(self):
        sweep = parse_sweep(TWO | {"dialogue_tune": {"scheduler": {"type": "none"}}})
        assert isinstance(make_scheduler(sweep), FifoScheduler)


class TestValues:
    def test_are_those_of_the_report_where_the_first_was_best(self):
        pair = (LOSS, ACCURACY)
        values = best_values(pair, {"val_loss": 5.0, "val_token_accuracy": 0.3})
        assert values == [5.0, 0.3]
        worse = {"val_loss": 5.5, "val_token_accuracy": 0.9}
        assert best_values(pair, worse, values) == [5.0, 0.3]
        better = {"val_loss": 4.0, "val_token_accuracy": 0.2}
        assert best_values(pair, better, values) == [4.0, 0.2]
        assert best_values(pair, {"val_loss": math.nan}, values) == [5.0, 0.3]
        assert best_values(pair, {"val_loss": math.nan}) == [None, None]
        assert best_values(pair, {"val_loss": 3.0}, values) == [3.0, None]

    def test_targets_are_reached_together(self):
        three = (
            Objective("val_loss", "minimize", 4),
            ACCURACY,
            Objective("parameters", "minimize", 9),
        )
        assert all_reached(three, [4.0, 0.1, 9])
        assert not all_reached(three, [4.0, 0.1, 10])
        assert not all_reached(three, [4.1, 0.1, 9])
        assert not all_reached(three, [4.0, 0.1, None])
        assert not all_reached((LOSS, SIZE), [1.0, 1])


class Watching(RandomSearcher):
    """Keeps what it is told."""

    def __init__(self, *arguments):
        self.told = []
        super().__init__(*arguments)

    def _learn(self, trial, outcome):
        self.told.append((trial, outcome))


class TestCoordinator:
    def make(self, directory, objectives=(LOSS, SIZE), rows=()):
        space = SearchSpace({"clip": Uniform(0, 1)})
        searcher = Watching(space, 0, "minimize", ["minimize"])
        coordinator = Coordinator(
            searcher, FifoScheduler(), Journal(directory, next_seq=len(rows)), objectives, trials=2
        )
        coordinator.replay(rows)
        return coordinator

    def test_tells_and_writes_all_values_and_replays_them(self, tmp_path):
        coordinator = self.make(tmp_path / "journal")
        coordinator.next_assignment()
        coordinator.report(0, 10, {"val_loss": 5.0, "parameters": 7})
        coordinator.report(0, 20, {"val_loss": 6.0, "parameters": 7}, state="finished")
        coordinator.journal.close()
        told = [(0, Outcome("finished", 5.0, 20, (7,)))]
        assert coordinator.searcher.told == told
        rows = read_journal(tmp_path / "journal").rows
        assert [row.values for row in rows] == [[], [5.0, 7], [5.0, 7]]
        again = self.make(tmp_path / "journal", rows=rows)
        assert again.searcher.told == told
        assert again.trials[0].values == [5.0, 7]
        assert again.best == (0, 5.0)

    def test_a_trial_that_fails_first_has_no_values(self, tmp_path):
        coordinator = self.make(tmp_path / "journal")
        coordinator.next_assignment()
        coordinator.failed(0, "ValueError: no", retry=False)
        assert coordinator.searcher.told == [(0, Outcome("failed", None, 0, (None,)))]
        assert read_journal(tmp_path / "journal").rows[-1].values == [None, None]

    def test_ends_where_a_trial_reaches_every_target(self, tmp_path):
        both = (Objective("val_loss", "minimize", 4), Objective("parameters", "minimize", 5))
        coordinator = self.make(tmp_path / "journal", both)
        coordinator.next_assignment()
        coordinator.next_assignment()
        assert coordinator.report(0, 10, {"val_loss": 3.0, "parameters": 7}).value == "continue"
        assert coordinator.report(1, 10, {"val_loss": 3.5, "parameters": 5}).value == "stop"
        assert coordinator.target_reached
        with pytest.raises(ExperimentError, match="target, val_loss 4 and parameters 5; it has"):
            _check_open(coordinator)


class TestSearchers:
    def test_by_the_sweep(self):
        searcher = make_searcher(parse_sweep(TWO), seed=0)
        assert isinstance(searcher, TPESearcher)
        assert [d.name for d in searcher.study.directions] == ["MINIMIZE", "MINIMIZE"]

    def test_cma_es_is_refused(self):
        with pytest.raises(ConfigurationError) as raised:
            CMAESSearcher(SearchSpace({"clip": Uniform(0, 1)}), 0, "minimize", ["minimize"])
        assert str(raised.value) == (
            "searcher cmaes: metrics: cmaes learns from one objective; use tpe or gp."
        )
        with pytest.raises(ConfigurationError, match="use tpe or gp"):
            make_searcher(parse_sweep(TWO), 0, "cmaes")

    @pytest.mark.parametrize(("name", "trials"), [("tpe", 60), ("gp", 24)])
    def test_come_nearer_to_the_front_than_random_search(self, name, trials):
        """Of two paraboloids the front is the line between their minima, at y = 0.5."""
        shares = {
            "dropout": {"min": 0.0, "max": 0.9},
            "teacher_forcing_ratio": {"min": 0.0, "max": 1.0},
        }
        sweep = parse_sweep(TWO | {"parameters": shares})

        def distance(searcher):
            away = []
            for trial in range(trials):
                x, y = searcher.ask().values()
                away.append(abs(y - 0.5))
                value, other = ((x - a) ** 2 + (y - 0.5) ** 2 for a in (0.2, 0.7))
                searcher.tell(trial, Outcome("finished", value, 1, (other,)))
            return sum(away[trials // 2 :])

        learned, drawn = (distance(make_searcher(sweep, 1, n)) for n in (name, "random"))
        assert learned < 0.6 * drawn

    def test_an_incomplete_trial_teaches_nothing(self):
        searcher = TPESearcher(SearchSpace({"clip": Uniform(0, 1)}), 0, "minimize", ["minimize"])
        for trial, others in enumerate([(), (math.nan,), (None,), (2.0,)]):
            searcher.ask()
            searcher.tell(trial, Outcome("finished", 1.0, 10, others))
        states = [trial.state.name for trial in searcher.study.trials]
        assert states.count("COMPLETE") == 1
        assert states.count("FAIL") == 3


class TestLatency:
    def test_is_reported_where_it_is_asked_for(self, tiny_data, tiny_config):
        report = Trainer(tiny_data, tiny_config(), measure_latency=True).train_interval()
        assert 0 < report.metrics["latency_ms"] < 60_000
        assert "latency_ms" not in Trainer(tiny_data, tiny_config()).train_interval().metrics

    def test_parameters_are_counted_once(self, tiny_data, tiny_config):
        trainer = Trainer(tiny_data, tiny_config())
        counted = sum(p.numel() for p in trainer.model.parameters())
        assert trainer.train_interval().metrics["parameters"] == counted

    def test_changes_nothing_of_the_model(self, tiny_data, tiny_config):
        plain, measured = (
            Trainer(tiny_data, tiny_config(), measure_latency=flag) for flag in (False, True)
        )
        for _ in range(2):
            one, other = plain.train_interval(), measured.train_interval()
            assert one.metrics["val_loss"] == other.metrics["val_loss"]

    def test_is_the_fastest_of_timed_replies(self, tiny_data, tiny_config, monkeypatch):
        """Of replies that take 3, 5 and 2 ms by the clock; the first one is not timed."""
        clock = iter([0.0, 0.003, 0.0, 0.005, 0.0, 0.002])
        monkeypatch.setattr(model.latency.time, "perf_counter", lambda: next(clock))
        steps = []
        step = Stepper.step
        monkeypatch.setattr(Stepper, "step", lambda self, *a: steps.append(1) or step(self, *a))
        measured = reply_milliseconds(Trainer(tiny_data, tiny_config()).model, words=4, calls=3)
        assert measured == pytest.approx(2.0)
        assert len(steps) == (1 + 3) * 4


@pytest.mark.ray
# Ray leaves sockets and file descriptors to the garbage collector when it shuts down.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_search_for_three_objectives(search):
    import optuna

    metrics = [{"name": "val_loss"}, {"name": "parameters"}, {"name": "latency_ms"}]
    sizes = {"hidden_size": {"values": [8, 32]}, "iterations": 8}
    experiment = search(metrics=metrics, method="bayes", parameters=sizes, trials=6)
    results = Results.open(experiment.path)
    trials = results.trials
    assert results.objectives == ["val_loss", "parameters", "latency_ms"]
    assert trials["state"].tolist() == ["finished"] * 6
    assert (trials["latency_ms"] > 0).all()
    assert trials.groupby("hidden_size")["parameters"].nunique().tolist() == [1, 1]
    assert 1 <= len(results.pareto()) <= 6
    # Optuna finds the same front in the study on file.
    backend = optuna.storages.journal.JournalFileBackend(str(experiment.path / "study.log"))
    study = optuna.load_study(
        study_name=experiment.name, storage=optuna.storages.JournalStorage(backend)
    )
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    assert {t.number for t in study.best_trials} == set(results.pareto()["trial"])
    again = tuning.extend(experiment.path, trials=1)
    assert len(Results.open(again.path).trials) == 7
