import json
import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from model.errors import ExperimentError
from tuning.distributions import Categorical, Constant, IntUniform, LogUniform, Uniform
from tuning.search import GridSearcher, Outcome, RandomSearcher, derived_seed, make_searcher
from tuning.search_space import SearchSpace
from tuning.sweep_file import parse_sweep
from tuning.tpe import TPESearcher, optuna_distributions

DISCRETE = SearchSpace(
    {
        "clip": Categorical((0, 25, 50.0)),
        "optimizer": Categorical(("adam", "sgd")),
        "embedding_size": Categorical((None, 16)),
        "hidden_size": Constant(8),
        "encoder_layers": IntUniform(1, 3),
    }
)
MIXED = SearchSpace(
    {
        "learning_rate": LogUniform(1e-4, 1e-2),
        **DISCRETE.parameters,
        "teacher_forcing_ratio": Uniform(0.5, 1),
        "dropout": Uniform(0.25, 0.25),
    }
)
ONE_POINT = SearchSpace({"clip": Categorical((50,)), "hidden_size": Constant(8)})

FRESH = {
    "grid": lambda space=DISCRETE, seed=0: GridSearcher(space),
    "random": lambda space=MIXED, seed=0: RandomSearcher(space, seed),
    "tpe": lambda space=MIXED, seed=0: TPESearcher(space, seed, startup_trials=4),
    "tpe-maximize": lambda space=MIXED, seed=0: TPESearcher(
        space, seed, "maximize", startup_trials=2
    ),
}


def value_of(configuration, iteration):
    """A made-up loss that falls with the iterations."""
    rate = configuration.get("learning_rate", 1e-3)
    clip = configuration["clip"]
    return abs(math.log10(rate) + 3) + clip / 100 + 10 / iteration


def events(trials=16, concurrency=3):
    """What a driver does to a searcher, as (method, *arguments), with every kind of outcome.

    Trial t is asked for before t - concurrency + 1 has ended. The values of reports are left to
    the configuration, which is known once the trial was asked for.
    """
    for trial in range(trials):
        yield "ask", trial
        ended = trial - concurrency + 1
        if ended >= 0:
            state = ("finished", "stopped", "finished", "diverged", "finished", "failed")[ended % 6]
            for iteration in (50, 100, 150)[: 1 if state == "stopped" else 3]:
                yield "report", ended, iteration
            yield "tell", ended, state


def drive(searcher, script, configurations):
    """Applies events; adds what is asked to the configurations, replays those already there."""
    for kind, trial, *rest in script:
        if kind == "ask" and trial in configurations:
            searcher.replay(configurations[trial])
        elif kind == "ask":
            configurations[trial] = searcher.ask()
        elif kind == "report":
            searcher.report(trial, rest[0], value_of(configurations[trial], rest[0]))
        else:
            value = None if rest[0] == "failed" else value_of(configurations[trial], 150)
            searcher.tell(trial, Outcome(rest[0], value, 150))
    return configurations


@pytest.mark.parametrize("fresh", FRESH.values(), ids=FRESH.keys())
class TestEverySearcher:
    def test_proposals_lie_in_the_space_and_are_plain(self, fresh):
        searcher = fresh()
        for configuration in drive(searcher, events(), {}).values():
            assert searcher.space.contains(configuration)
            assert list(configuration) == list(searcher.space.parameters)
            assert all(type(v) in (int, float, str, type(None)) for v in configuration.values())
            assert json.loads(json.dumps(configuration)) == configuration

    def test_same_seed_same_proposals(self, fresh):
        assert drive(fresh(), events(), {}) == drive(fresh(), events(), {})

    def test_replayed_journal_leads_to_the_same_proposals(self, fresh):
        script = list(events())
        whole = drive(fresh(), script, {})
        for cut in (0, 7, 21, 40, len(script)):
            asked = [event[1] for event in script[:cut] if event[0] == "ask"]
            known = {trial: json.loads(json.dumps(whole[trial])) for trial in asked}
            assert drive(fresh(), script, known) == whole

    def test_saved_and_restored(self, fresh):
        script = list(events())
        whole = drive(fresh(), script, {})
        for cut in (0, 7, 21, 40):
            before, after = fresh(), fresh()
            configurations = drive(before, script[:cut], {})
            after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
            assert after.asked == before.asked
            assert json.dumps(after.state_dict()) == json.dumps(before.state_dict())
            assert drive(after, script[cut:], configurations) == whole

    def test_values_that_are_not_finite(self, fresh):
        searcher = fresh()
        for trial, value in enumerate([math.nan, math.inf, -math.inf, None] * 3):
            searcher.ask()
            if value is not None:
                searcher.report(trial, 10, value)
            state = ("finished", "stopped", "diverged", "failed")[trial // 3]
            searcher.tell(trial, Outcome(state, value, 10))
        assert searcher.space.contains(searcher.ask())
        json.dumps(searcher.state_dict(), allow_nan=False)

    def test_one_point_space(self, fresh):
        searcher = fresh(ONE_POINT)
        for trial in range(1 if isinstance(searcher, GridSearcher) else 6):
            assert searcher.ask() == {"clip": 50, "hidden_size": 8}
            searcher.report(trial, 1, 1.0)
            searcher.tell(trial, Outcome("finished", 1.0, 1))

    def test_reports_may_come_twice_and_late(self, fresh):
        searcher = fresh()
        searcher.ask()
        searcher.report(0, 10, 2.0)
        searcher.report(0, 10, 1.0)
        searcher.tell(0, Outcome("stopped", 1.0, 20))
        searcher.report(0, 30, 0.5)

    def test_unknown_trials_are_refused(self, fresh):
        searcher = fresh()
        searcher.ask()
        with pytest.raises(ValueError, match="trial 1 was never asked for; there are 1 so far"):
            searcher.tell(1, Outcome("failed", None, 0))
        with pytest.raises(ValueError, match="trial -1 was never asked for"):
            searcher.report(-1, 1, 1.0)

    def test_replay_outside_the_space_is_refused(self, fresh):
        searcher = fresh()
        with pytest.raises(ExperimentError, match="trial 0 of the journal is outside the search"):
            searcher.replay({**fresh().ask(), "clip": 7})
        assert searcher.asked == 0

    def test_refuses_a_foreign_state(self, fresh):
        with pytest.raises(ExperimentError, match="its searcher is 'Other', but must be"):
            fresh().load_state_dict({**fresh().state_dict(), "searcher": "Other"})
        with pytest.raises(ExperimentError, match="its format is 2, but must be 1"):
            fresh().load_state_dict({**fresh().state_dict(), "format": 2})


@pytest.fixture(scope="module")
def proposals_of_another_process():
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:];"
        "from test_search import FRESH, drive, events;"
        "print(json.dumps({k: drive(f(), events(), {}) for k, f in FRESH.items()}))"
    )
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", code, str(here), str(here.parent.parent)],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", FRESH)
def test_same_proposals_in_another_process(name, proposals_of_another_process):
    there = proposals_of_another_process[name]
    assert {int(trial): configuration for trial, configuration in there.items()} == drive(
        FRESH[name](), events(), {}
    )


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_another_seed_gives_other_proposals(name):
    assert FRESH[name](seed=1).ask() != FRESH[name](seed=2).ask()
    with pytest.raises(ExperimentError, match="its seed is 1, but must be 2"):
        FRESH[name](seed=2).load_state_dict(FRESH[name](seed=1).state_dict())


def test_derived_seed_is_pinned():
    # Changing these changes every search that is resumed or repeated.
    assert [derived_seed(0, 0), derived_seed(0, 1), derived_seed(1, 0)] == [
        2893166218,
        4011020074,
        2791857979,
    ]


def test_grid_proposes_every_point_once_in_order():
    searcher = GridSearcher(DISCRETE)
    points = [searcher.ask() for _ in range(36)]
    assert points == list(DISCRETE.grid_points())
    assert searcher.ask() is None
    assert searcher.ask() is None
    assert searcher.asked == 36


def test_grid_refuses_a_continuous_range():
    with pytest.raises(ValueError, match="a grid cannot enumerate a continuous range"):
        GridSearcher(MIXED)


def test_random_search_covers_a_discrete_space():
    searcher = RandomSearcher(DISCRETE, 0)
    assert len({tuple(searcher.ask().values()) for _ in range(400)}) == 36


def told(outcome, reports=()):
    searcher = TPESearcher(MIXED, 0)
    searcher.ask()
    for iteration, value in reports:
        searcher.report(0, iteration, value)
    searcher.tell(0, outcome)
    return searcher.study.trials[0]


def test_tpe_finished_trial_is_complete_with_its_best_value():
    trial = told(Outcome("finished", 3.5, 200), [(100, 3.5), (200, 3.5)])
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 3.5)


def test_tpe_stopped_trial_is_pruned_with_every_report():
    trial = told(Outcome("stopped", 3.5, 200), [(100, 4.0), (200, 3.5)])
    assert (trial.state, trial.value) == (TrialState.PRUNED, 3.5)
    assert trial.intermediate_values == {100: 4.0, 200: 3.5}


def test_tpe_stopped_trial_keeps_the_step_it_reached():
    assert told(Outcome("stopped", 4.0, 200), [(100, 4.0)]).intermediate_values == {
        100: 4.0,
        200: 4.0,
    }


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("diverged", 3.5, 100),
        Outcome("failed", None, 0),
        Outcome("finished", math.nan, 100),
        Outcome("finished", None, 100),
    ],
)
def test_tpe_diverged_and_failed_trials_are_failed(outcome):
    assert told(outcome, [(100, 3.5), (150, math.nan)]).state is TrialState.FAIL


def test_tpe_leaves_nothing_running_that_was_told():
    searcher = FRESH["tpe"]()
    script = list(events())
    drive(searcher, script, {})
    ended = {event[1] for event in script if event[0] == "tell"}
    for trial in searcher.study.trials:
        assert (trial.state is TrialState.RUNNING) == (trial.number not in ended)
        assert trial.value is None or math.isfinite(trial.value)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_tpe_learns(goal):
    """After 30 trials of |log10(rate) + 3| most proposals lie near its best or its worst end."""
    space = SearchSpace({"learning_rate": LogUniform(1e-5, 1e-3)})
    searcher = TPESearcher(space, 0, goal)
    distances = []
    for trial in range(40):
        distances.append(abs(math.log10(searcher.ask()["learning_rate"]) + 3))
        searcher.tell(trial, Outcome("finished", distances[-1], 1))
    late = sorted(distances[30:])[5]
    assert late < 0.3 if goal == "minimize" else late > 1.7


def test_tpe_does_not_mix_budgets():
    """A trial stopped early ranks behind those that went further, however good its value is."""
    space = SearchSpace({"clip": Categorical((0, 50))})
    searcher = TPESearcher(space, 0, startup_trials=2)
    configurations = {"stopped": {"clip": 0}, "finished": {"clip": 50}}
    for trial in range(40):
        state = "stopped" if trial % 2 else "finished"
        searcher.replay(configurations[state])
        value = 1.0 if state == "stopped" else 5.0
        searcher.report(trial, 1 if state == "stopped" else 9, value)
        searcher.tell(trial, Outcome(state, value, 1 if state == "stopped" else 9))
    proposals = []
    for trial in range(40, 60):
        proposals.append(searcher.ask()["clip"])
        searcher.tell(trial, Outcome("failed", None, 0))
    assert proposals.count(50) > 15


def test_tpe_keeps_quiet_and_leaves_optunas_logging_alone(capfd):
    before = optuna.logging.get_verbosity()
    drive(FRESH["tpe"](), events(8), {})
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_optuna_distributions_of_a_space():
    made = optuna_distributions(MIXED)
    assert list(made) == [
        "learning_rate",
        "clip",
        "optimizer",
        "embedding_size",
        "encoder_layers",
        "teacher_forcing_ratio",
    ]
    assert made["learning_rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert made["encoder_layers"] == optuna.distributions.IntDistribution(1, 3)


def test_goal_and_outcome_are_checked():
    with pytest.raises(ValueError, match="goal must be minimize or maximize, but got 'min'"):
        TPESearcher(MIXED, 0, "min")
    with pytest.raises(ValueError, match=r"state must be one of finished, .*, but got 'done'"):
        Outcome("done", 1.0, 1)


@pytest.mark.parametrize(
    ("method", "kind"), [("random", RandomSearcher), ("grid", GridSearcher), ("bayes", TPESearcher)]
)
def test_make_searcher(method, kind):
    sweep = parse_sweep(
        {
            "method": method,
            "metric": {"name": "val_token_accuracy", "goal": "maximize"},
            "parameters": {"clip": {"values": [10, 50]}},
        }
    )
    searcher = make_searcher(sweep, 3)
    assert type(searcher) is kind
    if isinstance(searcher, TPESearcher):
        assert (searcher.seed, searcher.goal) == (3, "maximize")
