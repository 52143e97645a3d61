"""What each searcher does of its own; see test_searcher_contract for what all of them keep to."""

import math
import random
import statistics

import cmaes
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy.stats import qmc

from model.errors import ConfigurationError
from tuning.distributions import Categorical, Constant, IntUniform, LogUniform, Ordinal, Uniform
from tuning.searchers import (
    SEARCHERS,
    CMAESSearcher,
    GPSearcher,
    GridSearcher,
    Outcome,
    PastTrial,
    RandomSearcher,
    SobolSearcher,
    TPESearcher,
    derived_seed,
    make_searcher,
)
from tuning.searchers.optuna_space import OptunaSpace
from tuning.spaces.expressions import Expression
from tuning.spaces.points import Points
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.sweep_file import parse_sweep

DISCRETE = SearchSpace(
    {
        "clip": Categorical((0, 25, 50.0)),
        "optimizer": Categorical(("adam", "sgd")),
        "embedding_size": Categorical((None, 16)),
        "hidden_size": Constant(8),
        "encoder_layers": IntUniform(1, 3),
    }
)
SQUARE = SearchSpace({"dropout": Uniform(0, 1), "teacher_forcing_ratio": Uniform(0, 1)})
RATE = SearchSpace({"learning_rate": LogUniform(1e-5, 1e-3)})
CLIP = SearchSpace({"clip": Categorical((0, 50))})


def finish(searcher, loss, trials):
    """Runs trials one after the other; returns their losses."""
    losses = []
    for _ in range(trials):
        losses.append(loss(searcher.ask()))
        searcher.tell(searcher.asked - 1, Outcome("finished", losses[-1], 1))
    return losses


def bowl(configuration):
    """A bowl whose lowest point is at (0.3, 0.8), and twenty times steeper in one direction."""
    x, y = configuration["dropout"] - 0.3, configuration["teacher_forcing_ratio"] - 0.8
    return x**2 + 20 * y**2


# The registry


def test_names_of_the_searchers():
    assert list(SEARCHERS) == ["random", "grid", "tpe", "gp", "cmaes", "sobol"]
    assert all(kind.name == name for name, kind in SEARCHERS.items())


def sweep_of(method="random", searcher=None, **parameters):
    extension = {} if searcher is None else {"dialogue_tune": {"searcher": searcher}}
    return parse_sweep(
        {
            "method": method,
            "metric": {"name": "val_token_accuracy", "goal": "maximize"},
            "parameters": parameters or {"clip": {"values": [10, 50]}},
            **extension,
        },
        "sweep.yaml",
    )


@pytest.mark.parametrize(
    ("method", "in_file", "name", "kind"),
    [
        ("random", None, None, RandomSearcher),
        ("grid", None, None, GridSearcher),
        ("bayes", None, None, TPESearcher),
        ("random", "gp", None, GPSearcher),
        ("random", "gp", "tpe", TPESearcher),
        ("grid", None, "bayes", TPESearcher),
    ],
)
def test_make_searcher(method, in_file, name, kind):
    searcher = make_searcher(sweep_of(method, in_file), 3, name)
    assert type(searcher) is kind
    assert (searcher.seed, searcher.goal) == (3, "maximize")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sobl", "searcher: unknown searcher 'sobl', did you mean 'sobol'?"),
        ("xyz", "searcher: unknown searcher 'xyz'; valid: cmaes, gp, grid, random, sobol, tpe."),
    ],
)
def test_unknown_searchers_are_refused(name, said):
    with pytest.raises(ConfigurationError) as raised:
        make_searcher(sweep_of(), 0, name)
    assert str(raised.value) == f"sweep.yaml: {said}"


def test_a_searcher_that_cannot_search_the_sweep_is_refused_by_file_and_field():
    with pytest.raises(ConfigurationError) as raised:
        make_searcher(sweep_of(), 0, "sobol")
    assert str(raised.value).startswith("sweep.yaml: parameters.clip: has no order, and sobol")


def test_derived_seed_is_pinned():
    # Changing these changes every search that is resumed or repeated.
    assert [derived_seed(0, 0), derived_seed(0, 1), derived_seed(1, 0)] == [
        2893166218,
        4011020074,
        2791857979,
    ]
    assert derived_seed(0, 1, 2) not in (derived_seed(0, 1), derived_seed(0, 12))


def test_goal_is_checked():
    with pytest.raises(ValueError, match="goal must be minimize or maximize, but got 'max'"):
        RandomSearcher(DISCRETE, 0, "max")


# Points


def test_the_last_points_are_drawn_from_a_list():
    points, rng = Points(DISCRETE), random.Random(0)
    drawn = [points.draw(rng)]
    for _ in range(35):
        points.add(drawn[-1])
        drawn.append(points.draw(rng))
    assert sorted(map(str, drawn)) == sorted(map(str, DISCRETE.grid_points()))
    points.add(drawn[-1])
    assert points.exhausted
    assert points.draw(rng) is None


def test_draws_follow_the_distributions():
    space = SearchSpace({"learning_rate": LogUniform(1e-4, 1e-2), "clip": Ordinal((0, 25))})
    rng = random.Random(0)
    drawn = [Points(space).draw(rng) for _ in range(4000)]
    assert statistics.median(c["learning_rate"] for c in drawn) == pytest.approx(1e-3, rel=0.1)
    assert sum(c["clip"] == 0 for c in drawn) == pytest.approx(2000, abs=150)


def test_true_is_not_one():
    points = Points(SearchSpace({"clip": Categorical((True, 1, 1.5))}))
    points.add({"clip": True})
    assert points.is_new({"clip": 1})
    points.add({"clip": 1})
    assert not points.is_new({"clip": 1.0})


def test_a_range_of_next_to_nothing_may_come_twice():
    space = SearchSpace({"dropout": Uniform(0.0, 5e-324)})
    assert {c["dropout"] for c in (RandomSearcher(space, 0).ask() for _ in range(4))} <= {0, 5e-324}
    searcher = RandomSearcher(space, 0)
    assert all(searcher.ask() is not None for _ in range(4))


# Grid and random


def test_grid_proposes_every_point_once_in_order():
    searcher = GridSearcher(DISCRETE)
    points = [searcher.ask() for _ in range(36)]
    assert points == list(DISCRETE.grid_points())
    assert searcher.ask() is None
    assert searcher.ask() is None
    assert searcher.asked == 36


def test_grid_refuses_what_it_cannot_enumerate():
    fields = {"learning_rate": LogUniform(1e-4, 1e-2), "clip": Ordinal((0, 25))}
    with pytest.raises(ConfigurationError) as raised:
        GridSearcher(SearchSpace({**fields, "dropout": Uniform(0.25, 0.25)}))
    assert str(raised.value) == (
        "searcher grid: parameters.learning_rate: a grid cannot enumerate log_uniform_values; "
        "name its values, or use random, tpe, gp or sobol."
    )


def test_random_search_draws_from_the_prior():
    searcher = RandomSearcher(SQUARE, 0)
    drawn = [searcher.ask()["dropout"] for _ in range(1000)]
    assert statistics.fmean(drawn) == pytest.approx(0.5, abs=0.03)


# Sobol


def test_sobol_is_scipys_sequence():
    searcher = SobolSearcher(SQUARE, 7)
    proposed = [tuple(searcher.ask().values()) for _ in range(16)]
    reference = qmc.Sobol(2, scramble=True, rng=derived_seed(7)).random(16)
    assert proposed == [pytest.approx(point) for point in reference]


def test_sobol_goes_through_the_quantiles():
    space = SearchSpace({"learning_rate": LogUniform(1e-4, 1e-2), "clip": Ordinal((0, 25, 50, 75))})
    searcher = SobolSearcher(space, 0)
    proposed = [searcher.ask() for _ in range(16)]
    # Each sixteenth of the logarithmic range and each quarter of the values once, and evenly.
    sixteenths = {int(8 * (math.log10(c["learning_rate"]) + 4)) for c in proposed}
    assert sixteenths == set(range(16))
    assert [sum(c["clip"] == clip for c in proposed) for clip in (0, 25, 50, 75)] == [4] * 4


def test_sobol_fills_the_space_more_evenly_than_random():
    sobol, drawn = SobolSearcher(SQUARE, 0), RandomSearcher(SQUARE, 0)
    discrepancies = [
        qmc.discrepancy([list(searcher.ask().values()) for _ in range(64)])
        for searcher in (sobol, drawn)
    ]
    assert discrepancies[0] < discrepancies[1] / 5


def test_points_given_from_outside_use_up_none_of_the_sequence():
    plain, given = SobolSearcher(SQUARE, 0), SobolSearcher(SQUARE, 0)
    given.enqueue([{"dropout": 0.5, "teacher_forcing_ratio": 0.25}])
    given.ask()
    assert [given.ask() for _ in range(5)] == [plain.ask() for _ in range(5)]


def test_a_sobol_search_that_is_replayed_late_draws_as_before():
    """Nearly no point is allowed: the sequence's share of points is used up again and again."""
    rules = (Expression.parse("dropout < 0.003"),)
    space = SearchSpace(SQUARE.parameters, constraints=rules)
    whole = SobolSearcher(space, 0)
    proposed = [whole.ask() for _ in range(20)]
    for cut in (5, 19):
        replayed = SobolSearcher(space, 0)
        for configuration in proposed[:cut]:
            replayed.replay(configuration)
        assert [replayed.ask() for _ in range(20 - cut)] == proposed[cut:]


# CMA-ES


def test_cmaes_is_the_packages_own():
    """The same generations as a loop that asks and tells `cmaes.CMA`."""
    searcher = CMAESSearcher(SQUARE, 3)
    bounds = np.array([[0.0, 1.0], [0.0, 1.0]])
    reference = cmaes.CMA(mean=np.full(2, 0.5), sigma=0.3, bounds=bounds)
    solutions = []
    for trial in range(40):
        reference.reseed_rng(derived_seed(3, trial))
        point = reference.ask()
        configuration = searcher.ask()
        assert list(configuration.values()) == pytest.approx(point.tolist(), abs=1e-9)
        searcher.tell(trial, Outcome("finished", bowl(configuration), 1))
        solutions.append((point, bowl(configuration)))
        if len(solutions) == reference.population_size:
            reference.tell(solutions)
            solutions = []
    assert reference.generation == 6


def test_cmaes_learns_from_its_own_finished_trials_alone():
    searcher = CMAESSearcher(SQUARE, 0)
    searcher.enqueue([{"dropout": 0.01 * n, "teacher_forcing_ratio": 0.0} for n in range(6)])
    finish(searcher, bowl, 6)
    for state in ("stopped", "diverged", "failed"):
        for _ in range(6):
            searcher.ask()
            searcher.tell(searcher.asked - 1, Outcome(state, 1.0, 1))
    number = searcher.asked
    untaught = CMAESSearcher(SQUARE, 0)
    for configuration in searcher._configurations:
        untaught.replay(configuration)
    assert searcher.ask() == untaught.ask()
    finish(searcher, bowl, 6)
    finish(untaught, lambda configuration: -bowl(configuration), 6)
    assert searcher.asked == untaught.asked == number + 7
    assert searcher.ask() != untaught.ask()


def test_cmaes_begins_where_past_trials_were_best():
    past = [
        PastTrial(c, Outcome("finished", bowl(c), 1))
        for c in (SQUARE.sample(random.Random(n)) for n in range(60))
    ]
    cold, warm = CMAESSearcher(SQUARE, 0), CMAESSearcher(SQUARE, 0)
    warm.warm_start(past)
    losses = [[bowl(searcher.ask()) for _ in range(20)] for searcher in (cold, warm)]
    assert statistics.median(losses[1]) < statistics.median(losses[0]) / 5
    few = CMAESSearcher(SQUARE, 0)
    few.warm_start(past[:1])
    assert SQUARE.contains(few.ask())


def test_cmaes_draws_fields_without_order_at_random():
    space = SearchSpace({**SQUARE.parameters, "optimizer": Categorical(("adam", "sgd"))})
    searcher = CMAESSearcher(space, 0)
    drawn = [searcher.ask()["optimizer"] for _ in range(40)]
    assert 10 < drawn.count("adam") < 30


# TPE and Gaussian process: what the study says


def studied(searcher):
    """The trials of the study, but for the first: samples are drawn for it, and it never runs."""
    draft, *trials = searcher.study.trials
    assert (draft.state, draft.params) == (TrialState.WAITING, {})
    return trials


def told(outcome, kind=TPESearcher):
    searcher = kind(DISCRETE, 0)
    searcher.ask()
    searcher.report(0, 100, 4.0)
    searcher.tell(0, outcome)
    return studied(searcher)[0]


@pytest.mark.parametrize("kind", [TPESearcher, GPSearcher])
class TestStudies:
    def test_finished_trial_is_complete_with_its_best_value(self, kind):
        trial = told(Outcome("finished", 3.5, 200), kind)
        assert (trial.state, trial.value) == (TrialState.COMPLETE, 3.5)

    def test_stopped_trial_is_pruned_with_the_step_it_reached(self, kind):
        trial = told(Outcome("stopped", 3.5, 200), kind)
        assert (trial.state, trial.value) == (TrialState.PRUNED, 3.5)
        assert trial.intermediate_values == {200: 3.5}

    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome("diverged", 3.5, 100),
            Outcome("failed", None, 0),
            Outcome("finished", math.nan, 100),
            Outcome("finished", None, 100),
        ],
    )
    def test_diverged_and_failed_trials_are_failed(self, kind, outcome):
        trial = told(outcome, kind)
        assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.FAIL, None, {})

    def test_nothing_runs_but_trials_that_do(self, kind):
        searcher = kind(DISCRETE, 0, startup_trials=3)
        finish(searcher, lambda configuration: configuration["clip"], 12)
        assert [trial.state for trial in studied(searcher)] == [TrialState.COMPLETE] * 12
        searcher.ask()
        states = [trial.state for trial in studied(searcher)]
        assert states == [TrialState.COMPLETE] * 12 + [TrialState.RUNNING]

    def test_a_trial_that_runs_again_is_running(self, kind):
        searcher = kind(DISCRETE, 0)
        configuration = searcher.ask()
        searcher.tell(0, Outcome("failed", None, 10))
        searcher.retried(0)
        first, second = studied(searcher)
        assert (first.state, second.state) == (TrialState.FAIL, TrialState.RUNNING)
        assert first.params == second.params == OptunaSpace(DISCRETE).params(configuration)
        searcher.tell(0, Outcome("finished", 2.0, 10))
        assert studied(searcher)[1].value == 2.0

    def test_past_trials_are_in_the_study_with_their_curves(self, kind):
        searcher = kind(DISCRETE, 0)
        points = list(DISCRETE.grid_points())
        searcher.warm_start(
            [
                PastTrial(points[0], Outcome("finished", 2.0, 200), [(100, 3.0), (200, 2.0)]),
                PastTrial(points[1], Outcome("diverged", 2.0, 200)),
                PastTrial(points[2], Outcome("stopped", 4.0, 100), [(50, math.inf), (100, 4.0)]),
            ]
        )
        complete, *pruned = studied(searcher)
        assert (complete.state, complete.value) == (TrialState.COMPLETE, 2.0)
        assert complete.intermediate_values == {100: 3.0, 200: 2.0}
        assert [(t.state, t.intermediate_values) for t in pruned] == (
            [(TrialState.PRUNED, {100: 4.0})] if kind is TPESearcher else []
        )

    def test_past_trials_stand_for_the_random_ones_at_the_start(self, kind):
        """With ten good past trials the first proposal is a learned one."""
        past = [
            PastTrial({"learning_rate": rate}, Outcome("finished", -math.log10(rate), 1))
            for rate in np.geomspace(1.1e-5, 0.9e-3, 20).tolist()
        ]
        searcher = kind(RATE, 0)
        searcher.warm_start(past)
        assert searcher.ask()["learning_rate"] > 5e-4
        assert kind(RATE, 0).ask()["learning_rate"] < 5e-4

    @pytest.mark.parametrize("goal", ["minimize", "maximize"])
    def test_learns(self, kind, goal):
        """Soon most proposals for |log10(rate) + 3| lie near its best end; at first they do not."""
        searcher, trials = kind(RATE, 0, goal), 20 if kind is GPSearcher else 40
        losses = finish(searcher, lambda c: abs(math.log10(c["learning_rate"]) + 3), trials)
        assert 0.5 < statistics.median(losses[:10]) < 1.5
        late = statistics.median(losses[-8:])
        assert late < 0.3 if goal == "minimize" else late > 1.7

    def test_keeps_quiet_and_leaves_optunas_logging_alone(self, kind, capfd):
        before = optuna.logging.get_verbosity()
        space = SearchSpace(DISCRETE.parameters, when={"clip": Expression.parse("hidden_size > 8")})
        if kind is TPESearcher:  # whose groups Optuna calls experimental
            finish(kind(space, 0, startup_trials=3), lambda c: c["encoder_layers"], 6)
        searcher = kind(RATE, 0)  # of which it says that it has converged
        for trial, rate in enumerate(np.geomspace(1e-5, 1e-3, 12).tolist()):
            searcher.replay({"learning_rate": rate})
            searcher.tell(trial, Outcome("finished", abs(math.log10(rate) + 3), 1))
        searcher.ask()
        assert capfd.readouterr() == ("", "")
        assert optuna.logging.get_verbosity() == before

    def test_startup_trials_are_checked(self, kind):
        with pytest.raises(ValueError, match="startup_trials must be at least 1, but got 0"):
            kind(DISCRETE, 0, startup_trials=0)


def test_tpe_does_not_mix_budgets():
    """A trial stopped early ranks behind those that went further, however good its value is."""
    space = SearchSpace({"clip": Categorical((0, 50)), "dropout": Uniform(0, 1)})
    searcher = TPESearcher(space, 0, startup_trials=2)
    for trial in range(40):
        stopped = trial % 2 == 1
        searcher.replay({"clip": 0 if stopped else 50, "dropout": trial / 40})
        outcome = Outcome("stopped", 1.0, 1) if stopped else Outcome("finished", 5.0, 9)
        searcher.tell(trial, outcome)
    proposals = []
    for trial in range(40, 60):
        proposals.append(searcher.ask()["clip"])
        searcher.tell(trial, Outcome("failed", None, 0))
    assert proposals.count(50) > 15


def test_gp_learns_from_finished_trials_alone():
    """Stopped trials with the best values leave it random."""
    searcher = GPSearcher(RATE, 0, startup_trials=5)
    plain = RandomSearcher(RATE, 0)
    for trial in range(12):
        assert searcher.ask() == plain.ask()
        searcher.tell(trial, Outcome("stopped", 0.0, 1))


def test_tpe_models_what_is_searched_together_in_groups():
    """A rate that matters with adam alone is learned there, in spite of as many sgd trials."""
    adam = {"learning_rate": Expression.parse("optimizer == 'adam'")}
    optimizers = {"optimizer": Categorical(("adam", "sgd")), "dropout": Uniform(0, 1)}
    space = SearchSpace({**optimizers, **RATE.parameters}, when=adam)
    searcher = TPESearcher(space, 0)

    def loss(configuration):
        if configuration["optimizer"] == "sgd":
            return 1.0
        return abs(math.log10(configuration["learning_rate"]) + 5)

    losses = finish(searcher, loss, 60)
    names = {frozenset(t.params) for t in searcher.study.trials if t.state is TrialState.COMPLETE}
    assert names == {
        frozenset({"optimizer", "dropout"}),
        frozenset({"optimizer", "dropout", "learning_rate"}),
    }
    assert statistics.median(losses[40:]) < 0.3


def test_tpe_asks_for_joint_densities_and_the_constant_liar(monkeypatch):
    asked = []
    sampler = optuna.samplers.TPESampler
    monkeypatch.setattr(
        "optuna.samplers.TPESampler", lambda **options: asked.append(options) or sampler(**options)
    )
    searcher = TPESearcher(DISCRETE, 0, startup_trials=1)
    finish(searcher, lambda configuration: configuration["encoder_layers"], 2)
    assert asked[-1]["multivariate"] and asked[-1]["constant_liar"]


def test_fields_under_one_condition_are_a_group():
    when = {
        "learning_rate": Expression.parse("optimizer == 'adam'"),
        "clip": Expression.parse("optimizer == 'sgd'"),
        "dropout": Expression.parse("optimizer == 'adam'"),
    }
    parameters = {**DISCRETE.parameters, **RATE.parameters, "dropout": Uniform(0, 1)}
    groups = OptunaSpace(SearchSpace(parameters, when=when)).groups
    assert {frozenset(group) for group in groups} == {
        frozenset({"optimizer", "embedding_size", "encoder_layers"}),
        frozenset({"learning_rate", "dropout"}),
        frozenset({"clip"}),
    }
    together = OptunaSpace(SearchSpace(parameters))
    assert together.groups == [together.distributions]


@pytest.mark.parametrize("kind", [TPESearcher, GPSearcher])
def test_a_proposal_leaves_nothing_in_the_study(kind):
    """Or what runs, and what was known when it began, would depend on proposals not taken."""
    searcher = kind(RATE, 0, startup_trials=2)
    finish(searcher, lambda configuration: configuration["learning_rate"], 3)
    before = searcher.study.trials
    proposal = searcher._propose(3)
    assert searcher._propose(3) == proposal
    assert studied(searcher) == before[1:]


def test_internal_distributions():
    space = SearchSpace(
        {
            "learning_rate": LogUniform(1e-4, 1e-2),
            "optimizer": Categorical(("adam", "sgd")),
            "clip": Ordinal((0, 25, 50)),
            "hidden_size": Constant(8),
            "encoder_layers": IntUniform(1, 3),
            "dropout": Uniform(0, 0.5),
        }
    )
    internal = OptunaSpace(space)
    assert internal.distributions == {
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "optimizer": CategoricalDistribution((0, 1)),
        "clip": IntDistribution(0, 2),
        "encoder_layers": IntDistribution(1, 3),
        "dropout": FloatDistribution(0, 0.5),
    }
    configuration = {
        "learning_rate": 1e-3,
        "optimizer": "sgd",
        "clip": 25,
        "hidden_size": 8,
        "encoder_layers": 3,
        "dropout": 0.125,
    }
    params = internal.params(configuration)
    assert params == {
        "learning_rate": 1e-3,
        "optimizer": 1,
        "clip": 1,
        "encoder_layers": 3,
        "dropout": 0.125,
    }
    assert space.point(internal.quantiles(params)) == pytest.approx(configuration)


@pytest.mark.parametrize("kind", [TPESearcher, GPSearcher])
def test_where_the_model_proposes_a_known_point_one_near_it_is_tried(kind):
    """Both go on around the best point of a corner, once that itself is known."""
    searcher = kind(RATE, 0)
    for trial, rate in enumerate(np.geomspace(1e-5, 1e-3, 12).tolist()):
        searcher.replay({"learning_rate": rate})
        searcher.tell(trial, Outcome("finished", abs(math.log10(rate) + 3), 1))
    space = searcher._optuna_space
    space.quantiles = lambda params: {"learning_rate": 1.0}
    proposed = [searcher.ask()["learning_rate"] for _ in range(5)]
    assert all(10**-3.1 < rate < 1e-3 for rate in proposed)


def test_near_points():
    """Number fields are near in their quantiles; of what has no order, the first stay as is."""
    fields = {"optimizer": Categorical(("adam", "sgd")), "clip": Ordinal((0, 25, 50, 100))}
    points = Points(SearchSpace({**RATE.parameters, **fields}))
    corner = {"learning_rate": 1.0, "optimizer": 0.25, "clip": 0.125}
    near = [points.near(corner, random.Random(n)) for n in range(50)]
    assert {(c["optimizer"], c["clip"]) for c in near} == {("adam", 0)}
    assert all(10**-3.1 < c["learning_rate"] <= 1e-3 for c in near)


def test_near_points_of_a_finite_space_are_its_neighbours():
    points = Points(SearchSpace({"encoder_layers": IntUniform(1, 9), "clip": Categorical((0, 5))}))
    rng, found = random.Random(0), []
    while (point := points.near({"encoder_layers": 0.5, "clip": 0.25}, rng)) is not None:
        points.add(point)
        found.append(point)
    assert found[0] == {"encoder_layers": 5, "clip": 0}
    assert {c["encoder_layers"] for c in found[1:4]} <= {4, 5, 6}
    assert len(found) > 12  # of 18


def test_where_the_model_finds_nothing_a_new_point_is_drawn(monkeypatch):
    searcher = TPESearcher(CLIP, 0, startup_trials=1)
    first = searcher.ask()
    searcher.tell(0, Outcome("finished", 1.0, 1))
    monkeypatch.setattr(searcher.points, "near", lambda quantiles, rng: None)
    place = {"clip": (0.25, 0.75)[(0, 50).index(first["clip"])]}
    monkeypatch.setattr(searcher._optuna_space, "quantiles", lambda params: place)
    assert searcher.ask()["clip"] == 50 - first["clip"]
    assert searcher.ask() is None


@pytest.mark.parametrize("kind", [TPESearcher, GPSearcher])
def test_whole_numbers_of_a_wide_range_are_not_listed(kind):
    """Optuna's Gaussian process would list them, 32 GB of them."""
    space = SearchSpace({"seed": IntUniform(0, 2**32 - 1), "clip": Categorical((0, 50))})
    searcher = kind(space, 0, startup_trials=3)
    finish(searcher, lambda configuration: configuration["seed"] / 2**32, 6)
    assert all(space.contains(searcher.ask()) for _ in range(2))
    encoded = OptunaSpace(space).params({"seed": 2**31, "clip": 0})
    assert encoded["seed"] == pytest.approx(0.5)
