"""Population-based training, by hand: who is replaced, by whom, and with what configuration.

Jaderberg et al. 2017, "Population Based Training of Neural Networks" (arXiv:1711.09846).
"""

import math
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from model.config import RULES
from model.errors import ConfigurationError
from model.validation import Problems
from tuning.distributions import (
    Categorical,
    Constant,
    IntUniform,
    LogUniform,
    Ordinal,
    Uniform,
    WeightedCategorical,
    parse_distribution,
)
from tuning.scheduling import CHANGEABLE, Decision, PbtScheduler, make_scheduler
from tuning.scheduling.explore import FACTORS, explored, multiplied
from tuning.searchers import Outcome
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.sweep_file import parse_sweep

CONTINUE, CLONE = Decision.CONTINUE, Decision.CLONE

RATES = SearchSpace({"learning_rate": Uniform(0.0, 1000.0), "hidden_size": Constant(8)})


def population(members, **options):
    """A scheduler and trials with learning rates 100, 101, ...; nothing is drawn anew."""
    scheduler = PbtScheduler(RATES, **{"seed": 3, "resample_probability": 0.0, **options})
    for trial in range(members):
        scheduler.started(trial, {"learning_rate": 100.0 + trial, "hidden_size": 8})
    return scheduler


# Exploit: truncation selection (section 4.1.1)


def test_the_worst_quarter_goes_on_from_the_best_quarter():
    """Eight at report 2 with values 1, ..., 8: of those 7 and 8 are the worst, 1 and 2 the best."""
    scheduler = population(8)
    for trial in range(7):
        scheduler.report(trial, 1, 9.0)
    # Each but the first is the best so far when it comes, and so never among the worst.
    for trial, value in enumerate((8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)):
        assert scheduler.report(trial, 2, value) is CONTINUE
    assert scheduler.report(7, 2, 7.0) is CLONE
    clone = scheduler.clone_of(7)
    assert clone.source in (5, 6)
    rate = 100.0 + clone.source
    assert clone.configuration["learning_rate"] in [rate * factor for factor in FACTORS]
    assert clone.configuration["hidden_size"] == 8


def test_the_sixth_of_eight_goes_on_as_it_is():
    scheduler = population(8)
    for trial, value in enumerate((8.0, 7.0, 1.0, 2.0, 3.0, 4.0, 5.0)):
        scheduler.report(trial, 2, value)
    assert scheduler.report(7, 2, 6.0) is CONTINUE


def test_weights_that_were_given_up_are_not_taken_over():
    """Trial 1 is to go on from 0, and is not the one that was judged any more."""
    scheduler = population(4, quantile_fraction=0.5)
    assert scheduler.report(0, 2, 1.0) is CONTINUE
    assert scheduler.report(1, 2, 2.0) is CLONE
    assert scheduler.report(2, 2, 3.0) is CLONE
    for seed in range(20):
        again = population(4, quantile_fraction=0.5, seed=seed)
        for trial in range(3):
            again.report(trial, 2, trial + 1.0)
        assert again.report(3, 2, 4.0) is CLONE
        assert again.clone_of(3).source == 0


@pytest.mark.parametrize(
    ("members", "fraction", "replaced"),
    [
        # Rounded up, but at most half: ceil(4 * 0.25), ceil(5 * 0.25), floor(3 / 2), 0 of 1.
        (4, 0.25, [3]),
        (5, 0.25, [3, 4]),
        (3, 0.5, [2]),
        (1, 0.5, []),
        (8, 0.0, []),
    ],
)
def test_how_many_are_replaced(members, fraction, replaced):
    found = []
    for last in range(members):  # who of them is replaced, if it comes last
        scheduler = population(members, quantile_fraction=fraction)
        others = [trial for trial in reversed(range(members)) if trial != last]
        for trial in others:  # the worst first, so that none of them is replaced
            assert scheduler.report(trial, 2, float(trial)) is CONTINUE
        if scheduler.report(last, 2, float(last)) is CLONE:
            found.append(last)
    assert found == replaced


def test_both_members_of_the_best_share_are_copied():
    sources = set()
    for seed in range(20):
        scheduler = population(8, seed=seed)
        for trial in reversed(range(7)):
            scheduler.report(trial, 2, float(trial))
        assert scheduler.report(7, 2, 7.0) is CLONE
        sources.add(scheduler.clone_of(7).source)
    assert sources == {0, 1}


def test_an_equal_one_is_not_better():
    scheduler = population(4)
    assert {scheduler.report(trial, 2, 5.0) for trial in range(4)} == {CONTINUE}


def test_fitness_is_the_reports_own_value():
    """The weights of trial 0 were good once, and are not now."""
    scheduler = population(2)
    assert scheduler.report(0, 2, 1.0, latest=9.0) is CONTINUE
    assert scheduler.report(1, 2, 5.0, latest=5.0) is CONTINUE
    scheduler = population(2)
    assert scheduler.report(1, 2, 5.0, latest=5.0) is CONTINUE
    assert scheduler.report(0, 2, 1.0, latest=9.0) is CLONE


def test_only_trials_at_the_same_report_are_compared():
    scheduler = population(3)
    for report in range(1, 9):
        scheduler.report(0, report, 1.0)
    assert scheduler.report(1, 2, 9.0) is CONTINUE  # 0 is far ahead: longer trained
    assert scheduler.report(2, 2, 10.0) is CLONE
    assert scheduler.clone_of(2).source == 1
    for report in range(3, 9):
        decision = scheduler.report(1, report, 9.0)
    assert decision is CLONE and scheduler.clone_of(1).source == 0


def test_a_trial_is_judged_every_interval_and_then_only():
    scheduler = population(2, interval=3, reports=9)
    assert scheduler.stops_at == {3, 6}
    decisions = []
    for report in range(1, 9):
        scheduler.report(0, report, 1.0)
        decisions.append(scheduler.report(1, report, 2.0))
    assert [n for n, decision in enumerate(decisions, 1) if decision is CLONE] == [3, 6]
    with pytest.raises(LookupError):
        population(2).clone_of(1)


def test_a_clones_configuration_is_what_the_next_clone_starts_from():
    scheduler = population(3)
    scheduler.report(0, 2, 1.0)
    scheduler.report(1, 2, 2.0)
    first = scheduler.clone_of(1).configuration["learning_rate"]
    assert first in (80.0, 120.0)
    scheduler.report(1, 4, 0.5)
    assert scheduler.report(2, 4, 3.0) is CLONE
    assert scheduler.clone_of(2).source == 1
    second = scheduler.clone_of(2).configuration["learning_rate"]
    assert second in [first * factor for factor in FACTORS]


def test_trials_that_ended_are_not_copied():
    scheduler = population(3)
    scheduler.report(0, 2, 1.0)
    scheduler.tell(0, Outcome("diverged", 1.0, 2))
    assert scheduler.report(1, 2, 9.0) is CONTINUE
    assert scheduler.report(2, 2, 10.0) is CLONE
    assert scheduler.clone_of(2).source == 1


def test_a_value_that_is_no_number_is_replaced_and_never_copied():
    scheduler = population(2)
    scheduler.report(0, 2, math.nan)
    assert scheduler.report(1, 2, math.inf) is CONTINUE
    scheduler = population(2)
    scheduler.report(0, 2, 99.0)
    assert scheduler.report(1, 2, math.nan) is CLONE


def test_draws_are_of_seed_trial_and_report_alone():
    """Whatever was decided before, and in whatever order."""

    def clone(seed, report, before):
        scheduler = population(4, seed=seed, resample_probability=0.5)
        for number in range(2, before + 1, 2):
            scheduler.report(3, number, 0.0)
            scheduler.report(2, number, 5.0)
        scheduler.started(1, {"learning_rate": 101.0, "hidden_size": 8})
        scheduler.report(1, report, 1.0)
        scheduler.report(0, report, 2.0)
        return scheduler.clone_of(0)

    assert clone(1, 8, 0) == clone(1, 8, 6)
    assert len({clone(seed, 8, 0).configuration["learning_rate"] for seed in range(10)}) > 2
    assert len({clone(1, n, 0).configuration["learning_rate"] for n in range(2, 40, 2)}) > 2


def test_a_trial_must_have_started():
    with pytest.raises(ValueError, match="trial 5 reports, but never started"):
        population(5).report(5, 1, 1.0)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="interval must be at least 1, but got 0"):
        population(1, interval=0)
    with pytest.raises(ValueError, match="quantile_fraction must be between 0 and 0.5, but got 1"):
        population(1, quantile_fraction=1)


# Explore (section 4.1.1)


@pytest.mark.parametrize(
    ("distribution", "value", "down", "up"),
    [
        (Uniform(0.0, 50.0), 10.0, 8.0, 12.0),
        (Uniform(0.0, 50.0), 45.0, 36.0, 50.0),
        (Uniform(0.0, 50.0), 0.0, 0.0, 0.0),
        (Uniform(-10.0, -1.0), -1.0, -1.0, -1.2),
        (LogUniform(0.001, 0.01), 0.009, 0.0072, 0.01),
        (LogUniform(0.001, 0.01), 0.001, 0.001, 0.0012),
        (IntUniform(1, 100), 50, 40, 60),
        (IntUniform(1, 100), 2, 1, 3),  # 1.6 and 2.4 are both nearest to 2
        (IntUniform(1, 100), 100, 80, 100),
        (IntUniform(1, 100), 1, 1, 2),
        ({"distribution": "q_uniform", "min": 0, "max": 50, "q": 5}, 20, 15, 25),
        ({"distribution": "q_uniform", "min": 0, "max": 50, "q": 5}, 5, 0, 10),
        ({"distribution": "q_uniform", "min": 0, "max": 50, "q": 5}, 50, 40, 50),
        ({"distribution": "q_normal", "mu": 3, "sigma": 1, "q": 0.5}, 3.0, 2.5, 3.5),
        ({"distribution": "normal", "mu": 3, "sigma": 1}, 4.0, 3.2, 4.8),
        ({"distribution": "beta", "a": 2, "b": 2}, 0.9, 0.72, 1.0),
    ],
)
def test_numbers_are_multiplied_within_their_distribution(distribution, value, down, up):
    if isinstance(distribution, dict):
        distribution = parse_distribution(distribution, Problems("x.yaml"), "parameters.x")
    for factor, expected in ((0.8, down), (1.2, up)):
        changed = multiplied(distribution, value, factor)
        assert changed == pytest.approx(expected)
        assert type(changed) is type(value)
        assert distribution.contains(changed)


def changes(distribution, value, resample_probability, draws=400):
    space = SearchSpace({"clip": distribution})
    return [
        explored(space, {"clip": value}, random.Random(seed), resample_probability)["clip"]
        for seed in range(draws)
    ]


def test_numbers_go_up_and_down_equally_often():
    found = changes(Uniform(0.0, 50.0), 10.0, 0.0)
    assert set(found) == {8.0, 12.0}
    assert 150 < found.count(8.0) < 250  # 200 expected, 10 the standard deviation


def test_a_quarter_is_drawn_anew():
    found = changes(Uniform(0.0, 50.0), 10.0, 0.25)
    drawn = [value for value in found if value not in (8.0, 12.0)]
    assert 60 < len(drawn) < 140  # 100 expected, 8.7 the standard deviation
    assert min(drawn) < 5 and max(drawn) > 45


def test_ordinal_values_go_to_a_neighbour():
    values = Ordinal((1, 3, 10, 50))
    assert set(changes(values, 3, 0.0)) == {1, 10}
    assert set(changes(values, 1, 0.0)) == {1, 3}
    assert set(changes(values, 50, 0.0)) == {10, 50}


def test_values_without_an_order_change_only_when_drawn_anew():
    for values in (Categorical((1, 3, 10)), WeightedCategorical((1, 3, 10), (0.2, 0.3, 0.5))):
        assert set(changes(values, 3, 0.0)) == {3}
        assert set(changes(values, 3, 1.0)) == {1, 3, 10}
        assert 285 <= changes(values, 3, 0.25).count(3) < 400  # at least 3 in 4 stay


def test_constraints_hold_afterwards():
    sweep = sweep_with(
        {"clip": {"min": 1.0, "max": 100.0}, "learning_rate": {"min": 0.0001, "max": 0.01}},
        constraints=["clip * learning_rate < 0.1"],
    )
    start = {"clip": 50.0, "learning_rate": 0.0019}  # just below
    for seed in range(50):
        found = explored(sweep.space, start, random.Random(seed), 0.25)
        assert found["clip"] * found["learning_rate"] < 0.1
        assert found != start


def test_where_the_constraints_allow_nothing_else_it_stays():
    sweep = sweep_with(
        {"clip": {"values": [1, 2]}, "dropout": {"values": [0.1, 0.2]}},
        constraints=["clip == 1 and dropout == 0.1"],
    )
    start = {"clip": 1, "dropout": 0.1}
    assert explored(sweep.space, start, random.Random(0), 1.0) == start


PARAMETERS = [
    {"min": 0.0, "max": 1.0},
    {"min": 0, "max": 7},
    {"values": [0.1, 0.2, 0.7]},
    {"values": [0.1, 0.7], "probabilities": [0.9, 0.1]},
    {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.9},
    {"distribution": "log_uniform", "min": -9, "max": -1},
    {"distribution": "inv_log_uniform_values", "min": 0.0001, "max": 0.9},
    {"distribution": "q_uniform", "min": 0.05, "max": 0.95, "q": 0.1},
    {"distribution": "q_log_uniform_values", "min": 1, "max": 90, "q": 2},
    {"distribution": "normal", "mu": 0.5, "sigma": 0.2},
    {"distribution": "q_normal", "mu": 5, "sigma": 3, "q": 1},
    {"distribution": "log_normal", "mu": -1, "sigma": 1},
    {"distribution": "beta", "a": 2, "b": 5},
    {"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1},
]


@given(parameter=st.sampled_from(PARAMETERS), seed=st.integers(0, 10**6), steps=st.integers(1, 30))
@hypothesis_settings(deadline=None, max_examples=200)
def test_what_is_explored_stays_in_the_space(parameter, seed, steps):
    space = sweep_with({"clip": parameter}).space
    rng = random.Random(seed)
    configuration = space.sample(rng)
    for _ in range(steps):
        configuration = explored(space, configuration, rng, 0.1)
        assert space.contains(configuration)


# What it can be used on


def sweep_with(parameters, constraints=None, when=None, method="random", **own):
    own = {**own, **({"constraints": constraints} if constraints else {})}
    own |= {"parameters": {name: {"when": text} for name, text in when.items()}} if when else {}
    mapping = {"method": method, "metric": {"name": "val_loss"}, "parameters": parameters}
    return parse_sweep({**mapping, **({"dialogue_tune": own} if own else {})}, "x.yaml")


RATE = {"learning_rate": {"min": 0.0001, "max": 0.01}}


def test_every_field_that_can_change_can_be_searched():
    parameters = {name: {"min": 0.1, "max": 0.9} for name in CHANGEABLE}
    assert isinstance(make_scheduler(sweep_with(parameters, scheduler="pbt")), PbtScheduler)
    assert set(CHANGEABLE) <= RULES.keys()


def problems_of(sweep, name=None):
    with pytest.raises(ConfigurationError) as caught:
        make_scheduler(sweep, name=name)
    return str(caught.value).splitlines()


def test_other_fields_are_refused_by_name():
    sweep = sweep_with(
        {**RATE, "hidden_size": {"values": [8, 16]}, "optimizer": {"values": ["adam", "sgd"]}},
        scheduler="pbt",
    )
    assert problems_of(sweep) == [
        "x.yaml: dialogue_tune.scheduler: hidden_size, optimizer cannot change in the middle of a "
        "run; pbt can search learning_rate, decoder_learning_ratio, clip, teacher_forcing_ratio, "
        "dropout."
    ]


def test_searchers_that_learn_are_refused():
    text = (
        "pbt works with the searchers random and grid only, but this is tpe: it changes settings "
        "in the middle of a trial, so a searcher that learns would be told results of "
        "configurations that it never proposed."
    )
    assert problems_of(sweep_with(RATE, scheduler="pbt", searcher="tpe")) == [
        f"x.yaml: dialogue_tune.scheduler: {text}"
    ]
    assert problems_of(sweep_with(RATE, searcher="tpe"), name="pbt") == [
        f"--scheduler: pbt: {text}"
    ]
    assert "but this is bayes" in problems_of(sweep_with(RATE, method="bayes"), name="pbt")[0]
    own = sweep_with(RATE, method="bayes", searcher="random", scheduler="pbt")
    assert isinstance(make_scheduler(own), PbtScheduler)
    grid = sweep_with({"clip": {"values": [1, 5]}}, method="grid", scheduler="pbt")
    assert isinstance(make_scheduler(grid), PbtScheduler)


def test_all_that_does_not_fit_is_said_at_once():
    sweep = sweep_with(
        {
            **{"hidden_size": {"values": [8, 16]}, "checkpoint_when": {"value": "end"}},
            **{"optimizer": {"values": ["adam", "sgd"]}, "clip": {"values": [1, 5]}},
        },
        when={"clip": "optimizer == 'sgd'"},
        method="bayes",
        scheduler="pbt",
    )
    found = problems_of(sweep)
    assert len(found) == 4
    assert "works with the searchers random and grid only" in found[0]
    assert "hidden_size, optimizer cannot change in the middle of a run" in found[1]
    assert "cannot change fields that are searched under a condition (when)" in found[2]
    assert "so checkpoint_when must be report, but is end" in found[3]


def test_there_must_be_something_to_change_and_to_copy():
    assert (
        "nothing is searched that pbt could change"
        in problems_of(sweep_with({"clip": {"value": 5}}), name="pbt")[0]
    )
    sweep = sweep_with({**RATE, "checkpoint_every": {"value": 5}}, scheduler="pbt")
    assert problems_of(sweep) == [
        "x.yaml: dialogue_tune.scheduler.interval: must be at least checkpoint_every (5), for "
        "there to be checkpoints to go on from, but is 2."
    ]
