"""The rules of the schedulers that stop trials, by hand and against other implementations.

``test_scheduler_contract.py`` has what all of them promise, ``test_pbt.py`` the one that clones.
"""

import math
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from model.errors import ConfigurationError, ExperimentError
from model.validation import Problems
from tuning.scheduling import (
    SCHEDULERS,
    AshaScheduler,
    BracketSettings,
    Decision,
    FifoScheduler,
    FifoSettings,
    HyperbandScheduler,
    HyperbandSettings,
    MedianScheduler,
    MedianSettings,
    PbtScheduler,
    PbtSettings,
    make_scheduler,
    parse_scheduler,
)
from tuning.searchers import Outcome
from tuning.sweeps.sweep_file import parse_sweep

CONTINUE, STOP = Decision.CONTINUE, Decision.STOP


def decisions_at_one_rung(values, **settings):
    scheduler = AshaScheduler((1,), 3, **settings)
    return [scheduler.report(trial, 1, value) for trial, value in enumerate(values)]


def test_cut_off_by_hand():
    # recorded:  1         2     3         4         5         6     7
    # may pass:  1         1     2         2         2         3     3       floor(n / 3) + 1
    # is better: 0         1     1         0         1 (tie)   3     2
    values = [5.0, 6.0, 5.5, 4.0, 5.0, 5.2, 5.0]
    expected = [CONTINUE, STOP, CONTINUE, CONTINUE, CONTINUE, STOP, CONTINUE]
    assert decisions_at_one_rung(values) == expected
    assert decisions_at_one_rung([-v for v in values], goal="maximize") == expected


def test_strict_cut_off_by_hand():
    # recorded:  1         2     3     4         5     6     7             8
    # may pass:  1         1     1     1         1     2     2             2   max(1, floor(n / 3))
    # is better: 0         1     1     0         1     3     1             1 (tie)
    values = [5.0, 6.0, 5.5, 4.0, 5.0, 5.2, 4.5, 4.5]
    expected = [CONTINUE, STOP, STOP, CONTINUE, STOP, STOP, CONTINUE, CONTINUE]
    assert decisions_at_one_rung(values, strict=True) == expected
    assert decisions_at_one_rung([-v for v in values], goal="maximize", strict=True) == expected


@given(
    values=st.lists(st.integers(0, 20).map(float), min_size=1, max_size=30),
    eta=st.sampled_from([1.5, 2, 3, 4]),
)
def test_default_cut_off_is_wandbs(values, eta):
    """A trial goes on if it is no worse than the value in place int(n / eta), counted from 0."""
    scheduler = AshaScheduler((1,), eta)
    for trial, value in enumerate(values):
        threshold = sorted(values[: trial + 1])[int((trial + 1) / eta)]
        assert (scheduler.report(trial, 1, value) is CONTINUE) == (value <= threshold)


def test_reports_between_rungs_continue_whatever_the_value():
    scheduler = AshaScheduler((3, 9), 3)
    assert scheduler.report(0, 3, 1.0) is CONTINUE
    for report in (1, 2):
        assert scheduler.report(1, report, 99.0) is CONTINUE
        assert scheduler.report(2, report, math.nan) is CONTINUE
    assert scheduler.report(0, 4, 99.0) is CONTINUE
    assert scheduler.report(1, 3, 99.0) is STOP


def test_no_number_at_a_rung_stops_and_counts_as_the_worst():
    assert decisions_at_one_rung([math.nan])[0] is STOP
    assert decisions_at_one_rung([-math.inf])[0] is STOP
    assert decisions_at_one_rung([math.nan, math.inf, 7.0, 6.0])[2:] == [CONTINUE, CONTINUE]
    # A NaN counts among those recorded: of three, two may pass.
    assert decisions_at_one_rung([5.0, math.nan, 6.0]) == [CONTINUE, STOP, CONTINUE]
    assert decisions_at_one_rung([5.0, 6.0]) == [CONTINUE, STOP]


def recorded(scheduler):
    return [tuple(entry) for entry in scheduler.state_dict()["recorded"]]


def test_jump_over_rungs_is_recorded_at_the_highest_only_and_once():
    scheduler = AshaScheduler((1, 3, 9), 3)
    assert scheduler.report(0, 4, 2.0) is CONTINUE
    assert recorded(scheduler) == [(3, 0, 2.0)]
    scheduler.report(0, 5, 1.0)
    scheduler.report(0, 2, 0.5)  # a restarted trial may come with an earlier report
    assert recorded(scheduler) == [(3, 0, 2.0)]
    scheduler.report(0, 10, 0.25)
    assert recorded(scheduler) == [(3, 0, 2.0), (9, 0, 0.25)]


def test_stopped_trial_stays_stopped():
    scheduler = AshaScheduler((1, 3), 3)
    scheduler.report(0, 1, 1.0)
    assert scheduler.report(1, 1, 2.0) is STOP
    assert scheduler.report(1, 2, 0.1) is STOP
    assert scheduler.report(1, 3, 0.1) is STOP
    assert recorded(scheduler) == [(1, 0, 1.0), (1, 1, 2.0)]


def test_trials_that_ended_are_still_compared_with():
    scheduler = AshaScheduler((1,), 3)
    scheduler.report(0, 1, 1.0)
    scheduler.tell(0, Outcome("failed", 1.0, 1))
    assert scheduler.report(1, 1, 2.0) is STOP


def test_state_of_other_settings_is_refused():
    state = AshaScheduler((1, 3), 3).state_dict()
    for other in (AshaScheduler((1, 2), 3), AshaScheduler((1, 3), 4)):
        with pytest.raises(ExperimentError, match=r"its (rungs|eta) is"):
            other.load_state_dict(state)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="eta must be greater than 1, but got 1"):
        AshaScheduler((1,), 1)
    with pytest.raises(ValueError, match="rungs must be report numbers of at least 1"):
        AshaScheduler((), 3)
    with pytest.raises(ValueError, match="goal must be minimize or maximize, but got 'lower'"):
        AshaScheduler((1,), 3, "lower")


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        # The two examples of W&B's documentation.
        ({"min_iter": 3}, (3, 9, 27, 81)),
        ({"max_iter": 27, "s": 2}, (3, 9)),
        ({"max_iter": 27, "s": 9}, (1, 3, 9)),
        ({"max_iter": 5, "s": 2, "eta": 2}, (1, 2)),
        ({"min_iter": 1, "eta": 1.5}, (1, 2, 3, 5)),
        ({"min_iter": 4, "max_iter": 27, "s": 1}, (9,)),
        ({"max_iter": 2, "s": 3}, ()),
    ],
)
def test_rungs_are_wandbs(settings, rungs):
    assert HyperbandSettings(**settings).rungs()[:4] == rungs


# HyperBand: Li et al. 2017, JMLR 18(185)


def test_hyperband_brackets_by_hand():
    """Algorithm 1 with R = 81, eta = 3: s_max = 4, and n_s = ceil(5 * 3^s / (s + 1)), r_s = 3^-s R.

    s = 4: 5 * 81 / 5 = 81 from 1;  3: 5 * 27 / 4 = 33.75 from 3;  2: 5 * 9 / 3 = 15 from 9;
    1: 5 * 3 / 2 = 7.5 from 27;  0: 5 from 81, which is the end.
    """
    scheduler = HyperbandScheduler(1, 81, 3)
    assert scheduler.shares == (81, 34, 15, 8, 5)
    assert [bracket and bracket.rungs for bracket in scheduler.brackets] == [
        (1, 3, 9, 27),
        (3, 9, 27),
        (9, 27),
        (27,),
        None,
    ]
    assert scheduler.stops_at == {1, 3, 9, 27}


def test_trials_take_turns_in_brackets_by_hand():
    """r = 1, R = 4, eta = 2: n = 4, 3, 3. Credits, before the largest pays 10, the sum:

    4 3 3 | -2 6 6 | -2+4 -4+3 9 | 6 2 2 | 0 5 5 | 4 -2 8 | 8 1 1 | 2 4 4 | 6 -3 7 | 10 0 0
    """
    scheduler = HyperbandScheduler(1, 4, 2)
    assert scheduler.shares == (4, 3, 3)
    assert [scheduler.bracket_of(trial) for trial in range(10)] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@given(
    first=st.integers(1, 4),
    last=st.integers(4, 300),
    eta=st.sampled_from([2, 2.5, 3, 4]),
    start=st.integers(0, 200),
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_brackets_have_their_shares_of_any_trials_on_end(first, last, eta, start):
    scheduler = HyperbandScheduler(first, last, eta)
    trials = range(start, start + sum(scheduler.shares))
    taken = [scheduler.bracket_of(trial) for trial in trials]
    assert tuple(taken.count(b) for b in range(len(scheduler.shares))) == scheduler.shares


def test_the_bracket_of_a_trial_is_its_numbers_alone():
    one, other = HyperbandScheduler(1, 27), HyperbandScheduler(1, 27)
    assert [one.bracket_of(t) for t in (30, 3, 17)] == [other.bracket_of(t) for t in (30, 3, 17)]
    assert one.bracket_of(3) == HyperbandScheduler(1, 27).bracket_of(3)


@pytest.mark.parametrize(
    ("first", "last", "eta"), [(1, 81, 3), (1, 16, 2), (2, 100, 4), (1, 50, 3), (3, 100, 2)]
)
def test_shares_are_optunas(first, last, eta):
    from optuna.pruners import HyperbandPruner

    pruner = HyperbandPruner(first, last, eta)
    pruner._try_initialization(study=None)
    scheduler = HyperbandScheduler(first, last, eta)
    assert list(scheduler.shares) == pruner._trial_allocation_budgets


def test_brackets_are_counted_exactly():
    """log_3(243) is 5, but 4.999... in floating point, which loses a bracket."""
    assert math.floor(math.log(243, 3)) == 4
    assert len(HyperbandScheduler(1, 243, 3).brackets) == 6


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_decisions_within_brackets_are_optunas(goal):
    """With the trials in the same brackets: Optuna hashes their numbers."""
    import optuna

    ours = HyperbandScheduler(1, 16, 2, goal)

    class SameBrackets(optuna.pruners.HyperbandPruner):
        def _get_bracket_id(self, study, trial):
            return ours.bracket_of(trial.number)

    sign = 1 if goal == "minimize" else -1
    study = optuna.create_study(direction=goal, pruner=SameBrackets(1, 16, 2))
    live, stopped = [study.ask() for _ in range(24)], 0
    for report in range(1, 16):
        for trial in list(live):
            value = sign * ((trial.number * 7 % 24) / 4 + 5 / report)
            trial.report(value, report)
            decision = ours.report(trial.number, report, value)
            assert (decision is STOP) == trial.should_prune()
            if decision is STOP:
                stopped += 1
                live.remove(trial)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert 0 < stopped < 24


def test_trials_are_compared_within_their_bracket():
    scheduler = HyperbandScheduler(1, 4, 2)  # trials 0, 3 in bracket 0; 1, 4 in 1; 2, 5 in 2
    assert scheduler.report(0, 1, 5.0) is CONTINUE
    assert scheduler.report(1, 2, 9.0) is CONTINUE  # first of its bracket
    assert scheduler.report(3, 1, 6.0) is STOP  # the second best of two
    assert scheduler.report(4, 1, 99.0) is CONTINUE  # its bracket judges at report 2
    assert scheduler.report(4, 2, 10.0) is STOP
    assert scheduler.report(2, 3, 99.0) is CONTINUE  # its bracket judges at 4 only: the end
    assert scheduler.report(5, 3, 100.0) is CONTINUE


def test_hyperband_that_makes_no_sense():
    with pytest.raises(ValueError, match=r"min_reports must be from 1 to max_reports \(4\), .* 5"):
        HyperbandScheduler(5, 4)
    with pytest.raises(ValueError, match="eta must be at least 2, but got 1.5"):
        HyperbandScheduler(1, 4, 1.5)


# Median stopping: Golovin et al. 2017, "Google Vizier"


def with_three_others(**options):
    """Others with values 6 4 2 (averages 6 5 4), 8 6 4 (8 7 6) and 10 8 6 (10 9 8)."""
    scheduler = MedianScheduler(min_trials=3, **options)
    for report in (1, 2, 3):
        for trial, first in enumerate((6.0, 8.0, 10.0)):
            value = first - 2 * (report - 1)
            assert scheduler.report(trial, report, value, latest=value) is CONTINUE
    return scheduler


def test_median_by_hand():
    scheduler = with_three_others(min_reports=1)  # medians of the averages: 8, 7, 6
    assert scheduler.report(3, 1, 9.0) is STOP
    assert scheduler.report(4, 1, 8.0) is CONTINUE  # no worse than the median

    scheduler = with_three_others(min_reports=1)
    assert scheduler.report(5, 1, 7.0, latest=7.0) is CONTINUE
    assert scheduler.report(5, 2, 7.0, latest=9.0) is CONTINUE  # judged by its best, 7
    assert scheduler.report(5, 3, 7.0, latest=9.0) is STOP  # 6 is better


def test_averages_begin_where_judging_does():
    scheduler = with_three_others(min_reports=2)  # averages at 2: 4 6 8; at 3: 3 5 7
    assert scheduler.report(3, 1, 99.0) is CONTINUE
    assert scheduler.report(3, 2, 6.0) is CONTINUE
    assert scheduler.report(3, 3, 5.5) is STOP


def test_averages_are_of_the_reports_themselves():
    """A curve that rose again counts with what it was at each report."""
    for latest, decision in ((8.0, CONTINUE), (2.0, STOP)):
        scheduler = MedianScheduler(1, 1)
        scheduler.report(0, 1, 2.0, latest=2.0)
        scheduler.report(0, 2, 2.0, latest=latest)  # average 5, or 2
        scheduler.report(1, 1, 2.0, latest=2.0)
        assert scheduler.report(1, 2, 4.0, latest=4.0) is decision


def test_nothing_is_judged_before_enough_others_came_as_far():
    scheduler = MedianScheduler(1, 3)
    assert scheduler.report(0, 1, 1.0) is CONTINUE
    assert scheduler.report(1, 1, 2.0) is CONTINUE
    assert scheduler.report(2, 1, 9.0) is CONTINUE
    assert scheduler.report(3, 1, 9.0) is STOP
    assert scheduler.report(2, 2, 9.0) is CONTINUE  # nobody else is at report 2


def test_an_average_that_is_no_number_is_none():
    scheduler = MedianScheduler(1, 2)
    scheduler.report(0, 1, math.nan, latest=math.nan)
    scheduler.report(1, 1, 1.0)
    assert scheduler.report(2, 1, 9.0) is CONTINUE  # one average alone
    assert scheduler.report(3, 1, 9.0) is STOP  # 1 and 9: 5
    assert scheduler.report(4, 1, math.nan) is STOP


def test_the_last_report_is_not_judged():
    scheduler = MedianScheduler(1, 1, reports=3)
    assert scheduler.stops_at == {1, 2}
    scheduler.report(0, 3, 1.0)
    assert scheduler.report(1, 3, 9.0) is CONTINUE


@given(
    curves=st.lists(
        st.lists(st.integers(0, 40).map(lambda n: n / 8), min_size=1, max_size=8),
        min_size=2,
        max_size=8,
    ),
    min_reports=st.integers(1, 4),
    min_trials=st.integers(1, 3),
    goal=st.sampled_from(["minimize", "maximize"]),
)
@hypothesis_settings(deadline=None, max_examples=150)
def test_median_is_rays(curves, min_reports, min_trials, goal):
    """Ray's rule on the same reports, in turns; eighths, so that no average is rounded."""
    from ray.tune.schedulers import MedianStoppingRule

    class Trial:
        trial_id = "any"

    class Controller:
        def get_live_trials(self):
            return []

    rule = MedianStoppingRule(
        time_attr="report",
        metric="value",
        mode=goal[:3],
        grace_period=min_reports,
        min_samples_required=min_trials,
    )
    ours, rays, stopped = MedianScheduler(min_reports, min_trials, goal), {}, set()
    best = min if goal == "minimize" else max
    for report in range(1, 9):
        for trial, curve in enumerate(curves):
            if report > len(curve) or trial in stopped:
                continue
            result = {"report": report, "value": curve[report - 1]}
            theirs = rule.on_trial_result(Controller(), rays.setdefault(trial, Trial()), result)
            decision = ours.report(trial, report, best(curve[:report]), latest=curve[report - 1])
            assert decision.name == theirs
            if decision is STOP:
                stopped.add(trial)


def test_median_that_makes_no_sense():
    with pytest.raises(ValueError, match="min_reports must be at least 1, but got 0"):
        MedianScheduler(0)
    with pytest.raises(ValueError, match="min_trials must be at least 1, but got 0"):
        MedianScheduler(1, 0)


# From sweep files and names


def sweep(early_terminate=None, scheduler=None, method="random", searched=None, **constants):
    values = {"iterations": 800, "report_every": 50, **constants}
    parameters = {name: {"value": value} for name, value in values.items()}
    mapping = {
        "method": method,
        "metric": {"name": "val_token_accuracy", "goal": "maximize"},
        "parameters": {**parameters, **(searched or {})},
        "early_terminate": early_terminate,
    }
    if scheduler is not None:
        mapping["dialogue_tune"] = {"scheduler": scheduler}
    return parse_sweep(mapping, "x.yaml")


def test_make_scheduler():
    assert isinstance(make_scheduler(sweep(None)), FifoScheduler)
    scheduler = make_scheduler(sweep({"type": "hyperband", "min_iter": 2, "strict": True}))
    assert isinstance(scheduler, AshaScheduler)
    assert (scheduler.rungs, scheduler.eta, scheduler.goal) == ((2, 6), 3, "maximize")
    assert scheduler.strict


def test_rungs_end_before_the_last_report():
    block = {"type": "hyperband", "min_iter": 4, "eta": 2}
    assert sweep(block).rungs == (4, 8)  # 16 is the last report
    assert sweep(block, iterations=801).rungs == (4, 8, 16)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ([], r"early_terminate: must be a mapping with type and min_iter, but got \[\]"),
        ({"min_iter": 3}, "early_terminate.type: is required; supported: hyperband"),
        (
            {"type": "hyperban", "min_iter": 3},
            "early_terminate.type: unknown type 'hyperban', did you mean 'hyperband'",
        ),
        ({"type": "hyperband"}, "early_terminate: needs min_iter, or max_iter and s"),
        ({"type": "hyperband", "max_iter": 9}, "early_terminate: max_iter needs s"),
        ({"type": "hyperband", "min_iter": 9, "s": 2}, "early_terminate: s needs max_iter"),
        (
            {"type": "hyperband", "min_iter": 0},
            "early_terminate.min_iter: must be a whole number of at least 1, but got 0",
        ),
        (
            {"type": "hyperband", "min_iter": 1, "eta": 1},
            "early_terminate.eta: must be a number greater than 1, but got 1",
        ),
        (
            {"type": "hyperband", "min_iter": 1, "strict": "no"},
            "early_terminate.strict: must be true or false, but got 'no'",
        ),
        (
            {"type": "hyperband", "mini_iter": 1},
            "early_terminate.mini_iter: unknown key, did you mean 'min_iter'",
        ),
        ({"type": "hyperband", "max_iter": 2, "s": 1}, "early_terminate: has no rung"),
    ],
)
def test_faulty_early_terminate(block, problem):
    with pytest.raises(ConfigurationError, match=f"x.yaml: {problem}"):
        sweep(block)


@pytest.mark.parametrize(
    ("block", "note"),
    [
        (
            {"type": "hyperband", "min_iter": 500},
            "early_terminate: stops nothing: its rungs are the reports 500, .*"
            "a trial makes 16 .iterations / report_every.; lower min_iter",
        ),
        ({"type": "hyperband", "min_iter": 16}, "early_terminate: stops nothing"),
        (
            {"type": "hyperband", "max_iter": 4000, "s": 8},
            "early_terminate.max_iter: counts reports, and a trial makes 16",
        ),
    ],
)
def test_rungs_that_no_trial_reaches_are_noted(block, note):
    assert re.search(note, "\n".join(sweep(block).notes))


def test_without_a_rung_in_reach_nothing_is_stopped():
    block = {"type": "hyperband", "min_iter": 500}
    assert isinstance(make_scheduler(sweep(block)), FifoScheduler)


SEARCHED = {"learning_rate": {"min": 0.0001, "max": 0.01}}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "asha", "min_iter": 2, "eta": 4}, HyperbandSettings(min_iter=2, eta=4)),
        ({"type": "asha"}, HyperbandSettings()),
        ({"type": "hyperband", "eta": 2, "strict": False}, BracketSettings(eta=2, strict=False)),
        ({"type": "median", "min_reports": 3}, MedianSettings(min_reports=3)),
        ({"type": "pbt", "interval": 4}, PbtSettings(interval=4)),
        ({"type": "none"}, FifoSettings()),
        ("median", MedianSettings()),
    ],
)
def test_scheduler_block(block, expected):
    problems = Problems("x.yaml")
    assert parse_scheduler(block, problems) == expected
    assert not problems.found


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (3, [": must be a mapping with type (asha, hyperband, median, pbt, none), but got 3."]),
        ({"eta": 3}, [".type: is required; supported: asha, hyperband, median, pbt, none."]),
        ("medain", [".type: unknown type 'medain', did you mean 'median'?"]),
        ({"type": ["asha"]}, [".type: unknown type ['asha'], did you mean 'asha'?"]),
        (
            {"type": "median", "min_report": 2, "min_trials": 0, "eta": 3},
            [
                ".min_report: unknown key, did you mean 'min_reports'?",
                ".eta: unknown key; valid: min_reports, min_trials, type.",
                ".min_trials: must be at least 1, but got 0.",
            ],
        ),
        (
            {"type": "hyperband", "min_reports": 9, "max_reports": 9},
            [".min_reports: must be less than max_reports (9), but got 9."],
        ),
        (
            {"type": "hyperband", "eta": 1.5, "strict": "no"},
            [
                ".eta: must be at least 2, but got 1.5.",
                ".strict: must be true or false, but got 'no' (str).",
            ],
        ),
        (
            {"type": "asha", "max_iter": 3},
            [": max_iter needs s, the number of rungs below it; or give min_iter alone."],
        ),
        (
            {"type": "pbt", "interval": 0, "quantile_fraction": 0.6, "resample_probability": 2},
            [
                ".interval: must be at least 1, but got 0.",
                ".quantile_fraction: must be between 0 and 0.5, but got 0.6.",
                ".resample_probability: must be between 0 and 1, but got 2.",
            ],
        ),
    ],
)
def test_faulty_scheduler_block(block, found):
    problems = Problems("x.yaml")
    assert parse_scheduler(block, problems) is None
    assert problems.found == [f"dialogue_tune.scheduler{text}" for text in found]


def test_schedulers_are_named():
    assert list(SCHEDULERS) == ["asha", "hyperband", "median", "pbt", "none"]


def test_make_scheduler_of_the_block():
    scheduler = make_scheduler(sweep(scheduler={"type": "median", "min_trials": 5}))
    assert isinstance(scheduler, MedianScheduler)
    assert (scheduler.min_reports, scheduler.min_trials) == (3, 5)
    assert (scheduler.goal, scheduler.reports) == ("maximize", 16)

    scheduler = make_scheduler(sweep(scheduler={"type": "hyperband", "eta": 2}))
    assert isinstance(scheduler, HyperbandScheduler)
    assert (scheduler.min_reports, scheduler.max_reports, scheduler.strict) == (1, 16, True)
    assert len(scheduler.brackets) == 5

    scheduler = make_scheduler(sweep(scheduler={"type": "asha", "min_iter": 4, "eta": 2}))
    assert isinstance(scheduler, AshaScheduler)
    assert (scheduler.rungs, scheduler.goal) == ((4, 8), "maximize")

    scheduler = make_scheduler(sweep(scheduler="pbt", searched=SEARCHED), seed=7)
    assert isinstance(scheduler, PbtScheduler)
    assert (scheduler.interval, scheduler.seed, scheduler.reports) == (2, 7, 16)
    assert isinstance(make_scheduler(sweep(scheduler="none")), FifoScheduler)


def test_a_name_overrides_the_file():
    w_and_b = sweep({"type": "hyperband", "min_iter": 4, "eta": 2})
    assert isinstance(make_scheduler(w_and_b, name="none"), FifoScheduler)
    assert isinstance(make_scheduler(w_and_b, name="median"), MedianScheduler)
    assert make_scheduler(w_and_b, name="asha").rungs == (4, 8)
    assert make_scheduler(sweep(), name="asha").rungs == (1, 3, 9)
    assert make_scheduler(sweep(scheduler="median"), name="asha").rungs == (1, 3, 9)
    median = make_scheduler(sweep(scheduler={"type": "median", "min_trials": 9}), name="median")
    assert median.min_trials == 9
    with pytest.raises(
        ConfigurationError, match="--scheduler: unknown scheduler 'asah', did you mean 'asha'"
    ):
        make_scheduler(w_and_b, name="asah")


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ({"type": "median", "min_reports": 16}, "median stopping judges first at report 16"),
        ({"type": "hyperband", "min_reports": 20}, "hyperband judges first at report 20"),
        ({"type": "asha", "min_iter": 16}, "asha judges first at report 16"),
        ({"type": "pbt", "interval": 16}, "pbt judges first at report 16"),
    ],
)
def test_a_scheduler_that_cannot_judge_says_so(block, why):
    scheduler = make_scheduler(sweep(scheduler=block, searched=SEARCHED))
    assert isinstance(scheduler, FifoScheduler)
    assert scheduler.describe() == f"none ({why}, but a trial makes 16)"


def test_hyperband_needs_to_know_the_reports():
    searched = {"iterations": {"values": [100, 200]}}
    with pytest.raises(
        ConfigurationError, match=r"x.yaml: dialogue_tune.scheduler.max_reports: is required"
    ):
        make_scheduler(sweep(scheduler="hyperband", searched=searched))
    block = {"type": "hyperband", "max_reports": 9}
    assert make_scheduler(sweep(scheduler=block, searched=searched)).max_reports == 9
    assert make_scheduler(sweep(scheduler={**block, "max_reports": 99})).max_reports == 16
    median = make_scheduler(sweep(scheduler="median", searched=searched))
    assert median.stops_at is None


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [
        (FifoScheduler(), "none"),
        (AshaScheduler((2, 6), 3, strict=True), "at reports 2, 6, the best 1/3 of the trials "),
        (HyperbandScheduler(1, 4, 2), "3 brackets; of 10 trials judged: 4 from report 1, 3 from "),
        (MedianScheduler(), "median stopping from report 3 on, once 3 other trials came as far"),
    ],
)
def test_descriptions(scheduler, text):
    assert scheduler.describe().startswith(text)
