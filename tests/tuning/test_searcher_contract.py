"""What every searcher keeps to, each tested with fresh instances."""

import functools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.config import DEFAULTS
from model.errors import ConfigurationError, ExperimentError
from model.validation import Problems
from tuning.distributions import (
    DISTRIBUTIONS,
    Categorical,
    Constant,
    IntUniform,
    LogUniform,
    Ordinal,
    Uniform,
    parse_distribution,
)
from tuning.searchers import (
    SEARCHERS,
    STATES,
    CMAESSearcher,
    GPSearcher,
    GridSearcher,
    Outcome,
    PastTrial,
    RandomSearcher,
    SobolSearcher,
    TPESearcher,
)
from tuning.spaces.expressions import Expression
from tuning.spaces.search_space import SearchSpace

DISCRETE = SearchSpace(
    {
        "clip": Ordinal((0, 25, 50.0)),
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
THREE = SearchSpace({n: MIXED.parameters[n] for n in ("learning_rate", "clip", "optimizer")})
ONE_POINT = SearchSpace({"clip": Categorical((50,)), "hidden_size": Constant(8)})
ADAM_ONLY = {"embedding_size": Expression.parse("optimizer == 'adam'")}
CONDITIONAL = SearchSpace(MIXED.parameters, when=ADAM_ONLY)
NOT_BOTH = (Expression.parse("clip > 0 or encoder_layers < 2"),)
CONSTRAINED = SearchSpace(MIXED.parameters, constraints=NOT_BOTH)
FEWER = SearchSpace(DISCRETE.parameters, constraints=NOT_BOTH)

#: A searcher of each kind for a space and a seed; those that learn begin to early.
FRESH = {
    "random": lambda space=MIXED, seed=0: RandomSearcher(space, seed),
    "grid": lambda space=DISCRETE, seed=0: GridSearcher(space, seed),
    "tpe": lambda space=MIXED, seed=0: TPESearcher(space, seed, startup_trials=4),
    "tpe-maximize": lambda space=MIXED, seed=0: TPESearcher(
        space, seed, "maximize", startup_trials=2
    ),
    # A proposal takes it 0.1 s: fewer fields, and of a finite space it models the last few points.
    "gp": lambda space=THREE, seed=0: GPSearcher(
        space, seed, startup_trials=5 if space.size() is None else 28
    ),
    "tpe-two": lambda space=MIXED, seed=0: TPESearcher(
        space, seed, "minimize", ["maximize"], startup_trials=4
    ),
    "gp-two": lambda space=THREE, seed=0: GPSearcher(
        space, seed, "minimize", ["minimize"], startup_trials=5 if space.size() is None else 28
    ),
    "cmaes": lambda space=MIXED, seed=0: CMAESSearcher(space, seed),
    "sobol": lambda space=MIXED, seed=0: SobolSearcher(space, seed),
}
NOT_CONDITIONAL = ("gp", "gp-two", "cmaes", "sobol")
ORDERED = ("cmaes", "sobol")
PLAIN = (int, float, str, type(None))
every_searcher = pytest.mark.parametrize("fresh", FRESH.values(), ids=FRESH.keys())


def named(*names):
    """Parametrises a test by some of the searchers."""
    return pytest.mark.parametrize("fresh", [FRESH[name] for name in names], ids=names)


def value_of(configuration, iteration):
    """A made-up loss that falls with the iterations."""
    rate = configuration.get("learning_rate", 1e-3)
    clip = configuration["clip"]
    return abs(math.log10(rate) + 3) + clip / 100 + 10 / iteration


def outcome_of(searcher, state, configuration, iteration=150):
    """How a trial ended: a value of each objective, but of a failed one."""
    if state == "failed":
        return Outcome(state, None, iteration)
    others = tuple(configuration["clip"] / 10 for _ in searcher.other_goals)
    return Outcome(state, value_of(configuration, iteration), iteration, others)


def events(trials=16, concurrency=3):
    """What a driver does to a searcher, as (method, *arguments), with every kind of outcome.

    Trial t is asked for before t - concurrency + 1 has ended. The values of reports are left to
    the configuration, which is known once the trial was asked for. A trial that failed runs again
    two trials later, and then finishes.
    """
    for trial in range(trials):
        yield "ask", trial
        ended = trial - concurrency + 1
        if ended >= 0:
            state = ("finished", "stopped", "finished", "diverged", "finished", "failed")[ended % 6]
            for iteration in (50, 100, 150)[: 1 if state == "stopped" else 3]:
                yield "report", ended, iteration
            yield "tell", ended, state
        if ended > 2 and (ended - 2) % 6 == 5:
            yield "retried", ended - 2
            yield "tell", ended - 2, "finished"


def drive(searcher, script, configurations):
    """Applies events; adds what is asked to the configurations, replays those already there."""
    for kind, trial, *rest in script:
        if kind == "ask" and trial in configurations:
            searcher.replay(configurations[trial])
        elif kind == "ask":
            configurations[trial] = searcher.ask()
        elif kind == "report":
            searcher.report(trial, rest[0], value_of(configurations[trial], rest[0]))
        elif kind == "retried":
            searcher.retried(trial)
        else:
            searcher.tell(trial, outcome_of(searcher, rest[0], configurations[trial]))
    return configurations


@functools.cache
def uninterrupted(fresh, concurrency=3):
    """What a search over the searcher's own space proposes; see `events`."""
    return drive(fresh(), events(concurrency=concurrency), {})


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def proposed_by(searcher, trials):
    """The configurations of some trials, one after the other, each finished."""
    asked = []
    while len(asked) < trials and (configuration := searcher.ask()) is not None:
        searcher.tell(searcher.asked - 1, outcome_of(searcher, "finished", configuration, 100))
        asked.append(configuration)
    return asked


def distinct(configurations):
    return {tuple((type(v) is bool, v) for v in c.values()) for c in configurations}


@every_searcher
class TestEverySearcher:
    def test_proposals_lie_in_the_space_and_are_plain(self, fresh):
        space = fresh().space
        for configuration in uninterrupted(fresh).values():
            assert space.contains(configuration)
            assert list(configuration) == list(space.parameters)
            assert all(type(v) in PLAIN for v in configuration.values())
            assert through_json(configuration) == configuration

    def test_same_seed_same_proposals(self, fresh):
        assert drive(fresh(), events(), {}) == uninterrupted(fresh)

    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_replayed_journal_leads_to_the_same_proposals(self, fresh, concurrency):
        script = list(events(concurrency=concurrency))
        whole = uninterrupted(fresh, concurrency)
        cuts = random.Random(concurrency).sample(range(len(script)), 3)
        for cut in (*cuts, len(script)):
            asked = [event[1] for event in script[:cut] if event[0] == "ask"]
            known = {trial: through_json(whole[trial]) for trial in asked}
            assert drive(fresh(), script, known) == whole

    def test_replayed_search_goes_on_alike_in_a_finite_space(self, fresh):
        whole = proposed_by(fresh(DISCRETE), 36)
        for cut in (20, 34):
            searcher = fresh(DISCRETE)
            for trial, configuration in enumerate(through_json(whole[:cut])):
                searcher.replay(configuration)
                searcher.tell(trial, outcome_of(searcher, "finished", configuration, 100))
            assert proposed_by(searcher, 36) == whole[cut:]

    def test_saved_and_restored(self, fresh):
        script = list(events())
        whole = uninterrupted(fresh)
        for cut in (0, 21, 40):
            before, after = fresh(), fresh()
            configurations = drive(before, script[:cut], {})
            after.ask()
            after.load_state_dict(through_json(before.state_dict()))
            assert after.asked == before.asked
            assert through_json(after.state_dict()) == through_json(before.state_dict())
            assert drive(after, script[cut:], configurations) == whole

    def test_queue_and_past_trials_are_saved_too(self, fresh):
        before, after = fresh(), fresh()
        known = [fresh().space.sample(random.Random(n)) for n in range(3)]
        before.enqueue(known[:2])
        past = [PastTrial(known[2], Outcome("stopped", 1.5, 20), [(10, 2.0), (20, 1.5)])]
        before.warm_start(past)
        before.ask()
        after.load_state_dict(through_json(before.state_dict()))
        assert proposed_by(after, 6) == proposed_by(before, 6)

    def test_values_that_are_not_finite(self, fresh):
        searcher = fresh()
        for trial, value in enumerate([math.nan, math.inf, -math.inf, None] * 3):
            searcher.ask()
            if value is not None:
                searcher.report(trial, 10, value)
            state = ("finished", "stopped", "diverged", "failed")[trial // 3]
            searcher.tell(trial, Outcome(state, value, 10))
        assert searcher.space.contains(searcher.ask())
        through_json(searcher.state_dict())

    def test_values_of_any_size(self, fresh):
        searcher = fresh()
        for trial, value in enumerate([1e308, -1e308, 5e-324, 0.0, -0.0, 3, 1e200, 1e-200]):
            searcher.ask()
            searcher.tell(trial, Outcome("finished", value, 10))
        assert searcher.space.contains(searcher.ask())

    def test_one_point_space(self, fresh):
        searcher = fresh(ONE_POINT)
        assert searcher.ask() == {"clip": 50, "hidden_size": 8}
        searcher.tell(0, Outcome("finished", 1.0, 1))
        assert searcher.ask() is None

    def test_nothing_is_proposed_twice_and_a_finite_space_ends(self, fresh):
        searcher = fresh(DISCRETE)
        proposed = proposed_by(searcher, 50)
        assert len(proposed) == len(distinct(proposed)) == 36
        assert searcher.ask() is None
        assert searcher.asked == 36

    def test_nothing_is_proposed_twice_while_trials_run(self, fresh):
        searcher = fresh(DISCRETE)
        proposed = [searcher.ask() for _ in range(36)]
        assert len(distinct(proposed)) == 36
        assert searcher.ask() is None

    def test_constraints_are_kept_to_the_last_point(self, fresh):
        searcher = fresh(FEWER)
        proposed = proposed_by(searcher, 50)
        # Of 36 points 1/3 have clip 0, and of these 2/3 have more than one layer.
        assert len(proposed) == len(distinct(proposed)) == 28
        assert all(c["clip"] > 0 or c["encoder_layers"] < 2 for c in proposed)
        assert searcher.ask() is None

    def test_constraints_that_leave_nothing(self, fresh):
        impossible = (Expression.parse("encoder_layers > 3"),)
        assert fresh(SearchSpace(DISCRETE.parameters, constraints=impossible)).ask() is None

    def test_known_points_come_first(self, fresh):
        searcher = fresh(DISCRETE)
        known = list(DISCRETE.grid_points())[20:23]
        searcher.enqueue([known[0], {k: v for k, v in known[1].items() if k != "hidden_size"}])
        searcher.enqueue([known[2]])
        proposed = proposed_by(searcher, 50)
        assert proposed[:3] == known
        assert len(proposed) == len(distinct(proposed)) == 36

    def test_known_points_are_not_proposed_again_after_a_replay(self, fresh):
        known = list(DISCRETE.grid_points())[20:23]
        whole, resumed = fresh(DISCRETE), fresh(DISCRETE)
        whole.enqueue(known)
        resumed.enqueue(known)
        expected = proposed_by(whole, 12)
        for trial, configuration in enumerate(expected[:2]):
            resumed.replay(configuration)
            resumed.tell(trial, outcome_of(resumed, "finished", configuration, 100))
        assert proposed_by(resumed, 10) == expected[2:]

    def test_faults_of_known_points_are_told_at_once(self, fresh):
        searcher = fresh(FEWER)
        good = next(iter(FEWER.grid_points()))
        with pytest.raises(ConfigurationError) as raised:
            searcher.enqueue(
                [
                    good,
                    {**good, "optimiser": "adam"},
                    {**good, "optimizer": "adamw", "encoder_layers": 1.5},
                    {"clip": 25},
                    {**good, "clip": 0, "encoder_layers": 3},
                ],
                source="try.json",
            )
        assert raised.value.source == "try.json"
        assert raised.value.problems == (
            "configuration 2: optimiser: is no field of the search space, "
            "did you mean 'optimizer'?",
            "configuration 3: optimizer: must be one of adam, sgd, but got 'adamw'.",
            "configuration 3: encoder_layers: must be 1 to 3, whole numbers, but got 1.5.",
            "configuration 4: optimizer: is missing.",
            "configuration 4: embedding_size: is missing.",
            "configuration 4: encoder_layers: is missing.",
            "configuration 5: breaks the constraint clip > 0 or encoder_layers < 2.",
        )
        assert searcher.ask() not in (None, {"clip": 25})

    def test_past_trials_are_no_trials_and_not_proposed_again(self, fresh):
        searcher = fresh(DISCRETE)
        points = list(DISCRETE.grid_points())
        states = ("finished", "stopped", "diverged", "failed")
        past = [
            PastTrial(point, Outcome(states[n % 4], math.nan if n % 4 > 1 else float(n), 50))
            for n, point in enumerate(points[:30])
        ]
        searcher.warm_start(past)
        assert searcher.asked == 0
        proposed = proposed_by(searcher, 50)
        assert distinct(proposed) == distinct(points[30:])
        assert searcher.asked == 6

    def test_past_trials_outside_of_the_space_are_refused(self, fresh):
        point = next(iter(DISCRETE.grid_points()))
        outcome = Outcome("finished", 1.0, 50)
        searcher = fresh(DISCRETE)
        with pytest.raises(ConfigurationError) as raised:
            searcher.warm_start(
                [PastTrial({**point, "clip": 7}, outcome), PastTrial(point, outcome)],
                source="runs/a",
            )
        assert str(raised.value) == (
            "runs/a: configuration 1: clip: must be "
            f"{DISCRETE.parameters['clip'].describe()}, but got 7."
        )
        assert distinct(proposed_by(searcher, 36)) == distinct(DISCRETE.grid_points())

    def test_trials_without_a_result_run_again(self, fresh):
        searcher = fresh()
        for state in ("failed", "diverged"):
            searcher.ask()
            searcher.tell(searcher.asked - 1, Outcome(state, 5.0, 10))
        for trial in (0, 1):
            searcher.retried(trial)
            searcher.tell(trial, Outcome("finished", 1.0, 100))
            with pytest.raises(ValueError, match=f"trial {trial} finished; only trials without"):
                searcher.retried(trial)
        searcher.ask()
        with pytest.raises(ValueError, match="trial 2 runs; only trials without a result"):
            searcher.retried(2)
        assert searcher.asked == 3

    def test_a_trial_ends_once(self, fresh):
        searcher = fresh()
        searcher.ask()
        searcher.tell(0, Outcome("stopped", 1.0, 20))
        with pytest.raises(ValueError, match="trial 0 has ended already, as stopped"):
            searcher.tell(0, Outcome("failed", None, 20))

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
        with pytest.raises(ValueError, match="trial 1 was never asked for"):
            searcher.retried(1)

    def test_replay_outside_the_space_is_refused(self, fresh):
        searcher = fresh()
        with pytest.raises(ExperimentError, match="trial 0 of the journal is outside the search"):
            searcher.replay({**fresh().ask(), "clip": 7})
        assert searcher.asked == 0

    def test_refuses_a_foreign_state(self, fresh):
        with pytest.raises(ExperimentError, match="its searcher is 'Other', but must be"):
            fresh().load_state_dict({**fresh().state_dict(), "searcher": "Other"})
        with pytest.raises(ExperimentError, match="its format is 9, but must be 3"):
            fresh().load_state_dict({**fresh().state_dict(), "format": 9})
        with pytest.raises(ExperimentError, match="its seed is 1, but must be 2"):
            fresh(seed=2).load_state_dict(fresh(seed=1).state_dict())


@named(*(name for name in FRESH if name != "grid"))
class TestEverySearcherButGrid:
    def test_another_seed_gives_other_proposals(self, fresh):
        assert fresh(seed=1).ask() != fresh(seed=2).ask()

    def test_constraints_are_kept(self, fresh):
        proposed = drive(fresh(CONSTRAINED), events(), {}).values()
        assert len(distinct(proposed)) == 16
        assert all(c["clip"] > 0 or c["encoder_layers"] < 2 for c in proposed)

    @pytest.mark.parametrize("rule", ["learning_rate < 0.0001001", "learning_rate < 0.00001"])
    def test_constraints_that_leave_next_to_nothing(self, fresh, rule, monkeypatch):
        monkeypatch.setattr("tuning.spaces.points.MOST_DRAWS", 5_000)
        space = SearchSpace(MIXED.parameters, constraints=(Expression.parse(rule),))
        if rule.endswith("0.0001001"):  # 1 in 4,600
            assert fresh(space).ask()["learning_rate"] < 0.0001001
        else:
            with pytest.raises(ExperimentError, match="5,000 draws found no configuration"):
                fresh(space).ask()


@named(*(name for name in FRESH if name not in NOT_CONDITIONAL))
class TestConditionalSpaces:
    def test_what_is_not_searched_has_its_default(self, fresh):
        space = SearchSpace(DISCRETE.parameters, when=ADAM_ONLY)
        searcher = fresh(space)
        proposed = proposed_by(searcher, 50)
        # 9 points with sgd, where the embedding's size is not searched, and 18 with adam.
        assert len(proposed) == len(distinct(proposed)) == 27
        assert all(space.contains(c) for c in proposed)
        assert {c["embedding_size"] for c in proposed if c["optimizer"] == "sgd"} == {
            DEFAULTS["embedding_size"]
        }
        assert {c["embedding_size"] for c in proposed if c["optimizer"] == "adam"} == {None, 16}

    def test_replay_and_restore(self, fresh):
        space = CONDITIONAL if fresh is not FRESH["grid"] else DISCRETE
        script = list(events(24))
        whole = drive(fresh(space), script, {})
        for cut in (10, 41):
            asked = [event[1] for event in script[:cut] if event[0] == "ask"]
            known = {trial: through_json(whole[trial]) for trial in asked}
            assert drive(fresh(space), script, known) == whole
            before, after = fresh(space), fresh(space)
            configurations = drive(before, script[:cut], {})
            after.load_state_dict(through_json(before.state_dict()))
            assert drive(after, script[cut:], configurations) == whole

    def test_known_points_must_have_the_default_where_it_is_not_searched(self, fresh):
        space = SearchSpace(DISCRETE.parameters, when=ADAM_ONLY)
        point = {"clip": 0, "optimizer": "sgd", "embedding_size": 16, "encoder_layers": 1}
        with pytest.raises(ConfigurationError, match="embedding_size: not searched where the rest"):
            fresh(space).enqueue([point])


@pytest.mark.parametrize("name", ("gp", "cmaes", "sobol"))
def test_conditional_spaces_are_refused_with_what_to_use(name):
    with pytest.raises(ConfigurationError) as raised:
        SEARCHERS[name](CONDITIONAL)
    assert str(raised.value) == (
        f"searcher {name}: parameters.embedding_size: is searched only when optimizer == 'adam', "
        f"which {name} cannot do; use tpe, random or grid."
    )


@pytest.mark.parametrize("name", ORDERED)
def test_spaces_without_order_are_refused_with_what_to_use(name):
    fields = {"optimizer": Categorical(("adam", "sgd")), "clip": Categorical((0, 50))}
    with pytest.raises(ConfigurationError) as raised:
        SEARCHERS[name](SearchSpace({**fields, "hidden_size": Constant(8)}))
    assert raised.value.problems == tuple(
        f"parameters.{field}: has no order, and {name} needs a field that has one: give a range, "
        "or dialogue_tune.parameters with ordinal: true; or use tpe, random or grid."
        for field in fields
    )
    SEARCHERS[name](SearchSpace({**fields, "clip": Ordinal((0, 50))}))


#: A parameter of each distribution; with at least four values, the quantised ones too.
PARAMETERS = {
    "constant": {"value": 3},
    "categorical": {"values": [True, 1, 2.5, "two", None]},
    "categorical_w_probabilities": {"values": [1, 2, 4, 8], "probabilities": [0.1, 0.2, 0.3, 0.4]},
    "uniform": {"min": -1, "max": 1.0},
    "int_uniform": {"min": -3, "max": 3},
    "q_uniform": {"min": 0.1, "max": 1.0, "q": 0.1},
    "log_uniform": {"min": -7, "max": -2},
    "log_uniform_values": {"min": 1e-5, "max": 1},
    "q_log_uniform": {"min": 0, "max": 4, "q": 2},
    "q_log_uniform_values": {"min": 1, "max": 64, "q": 4},
    "inv_log_uniform": {"min": 1, "max": 5},
    "inv_log_uniform_values": {"min": 1e-3, "max": 1},
    "normal": {"mu": 5, "sigma": 2},
    "q_normal": {"mu": 5, "sigma": 2, "q": 0.5},
    "log_normal": {"mu": 0, "sigma": 1},
    "q_log_normal": {"mu": 1, "sigma": 1, "q": 2},
    "beta": {"a": 2, "b": 5},
    "q_beta": {"a": 2, "b": 5, "q": 0.125},
}


def distribution_of(name):
    if name == "ordinal":
        return Ordinal((0, 25, 50, 100))
    problems = Problems("test")
    made = parse_distribution({"distribution": name, **PARAMETERS[name]}, problems, "clip")
    assert problems.found == []
    return made


def test_every_distribution_is_there():
    assert set(DISTRIBUTIONS) - {"ordinal"} == set(PARAMETERS)


@pytest.mark.parametrize("distribution", [*PARAMETERS, "ordinal"])
@every_searcher
def test_every_distribution_through_every_searcher(fresh, distribution):
    drawn = distribution_of(distribution)
    space = SearchSpace({"clip": drawn, "encoder_layers": IntUniform(1, 4)})
    if fresh is FRESH["grid"] and GridSearcher.problems(space):
        with pytest.raises(ConfigurationError, match=f"a grid cannot enumerate {distribution};"):
            fresh(space)
        return
    searcher = fresh(space)
    configurations = []
    while len(configurations) < 9 and (configuration := searcher.ask()) is not None:
        assert space.contains(configuration), configuration
        assert all(type(v) in (*PLAIN, bool) for v in configuration.values())
        assert through_json(configuration) == configuration
        loss = configuration["encoder_layers"] + searcher.asked % 3
        searcher.tell(searcher.asked - 1, Outcome("finished", loss, 10))
        configurations.append(configuration)
    assert len(distinct(configurations)) == len(configurations)
    assert len(configurations) == (4 if distribution == "constant" else 9)
    resumed = fresh(space)
    for trial, configuration in enumerate(through_json(configurations[:-1])):
        resumed.replay(configuration)
        loss = configuration["encoder_layers"] + (trial + 1) % 3
        resumed.tell(trial, Outcome("finished", loss, 10))
    assert resumed.ask() == configurations[-1]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["random", "tpe", "cmaes", "sobol"]),
    distributions=st.lists(st.sampled_from([*PARAMETERS, "ordinal"]), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    states=st.lists(st.sampled_from(STATES), min_size=8, max_size=8),
    cut=st.integers(0, 8),
)
def test_any_space_with_any_outcomes_replayed_anywhere(name, distributions, seed, states, cut):
    fields = zip(("clip", "dropout", "learning_rate"), distributions, strict=False)
    space = SearchSpace({field: distribution_of(distribution) for field, distribution in fields})
    assume(not SEARCHERS[name].problems(space))

    def told(searcher, trial):
        searcher.tell(trial, Outcome(states[trial], float(seed % (trial + 3)), 1 + seed % 7))

    whole, proposed = FRESH[name](space, seed), []
    while len(proposed) < 8 and (configuration := whole.ask()) is not None:
        assert space.contains(configuration)
        proposed.append(configuration)
        told(whole, len(proposed) - 1)
    assert len(distinct(proposed)) == len(proposed)
    replayed = FRESH[name](space, seed)
    for trial, configuration in enumerate(through_json(proposed[:cut])):
        replayed.replay(configuration)
        told(replayed, trial)
    for trial in range(cut, len(proposed)):
        assert replayed.ask() == proposed[trial]
        told(replayed, trial)


@pytest.fixture(scope="module")
def proposals_of_another_process():
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:];"
        "from test_searcher_contract import FRESH, drive, events;"
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
    assert {int(trial): configuration for trial, configuration in there.items()} == (
        uninterrupted(FRESH[name])
    )
