import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigurationError, ExperimentError
from tuning.scheduling import (
    AshaScheduler,
    Decision,
    FifoScheduler,
    HyperbandSettings,
    make_scheduler,
)
from tuning.search import Outcome
from tuning.sweep_file import parse_sweep

CONTINUE, STOP = Decision.CONTINUE, Decision.STOP

FRESH = {
    "fifo": FifoScheduler,
    "asha": lambda: AshaScheduler((1, 3, 9), 3),
    "asha-strict-maximize": lambda: AshaScheduler((2, 4), 2, "maximize", strict=True),
}

#: (trial, report number, value) of five trials that report in turns.
REPORTS = [
    (trial, report, 5.0 - (trial * 7 % 5) / 3 - report / 10)
    for report in range(1, 10)
    for trial in range(5)
]


def run(scheduler, reports):
    """Decisions on the reports, those of trials already stopped left out."""
    stopped, decisions = set(), []
    for trial, report, value in reports:
        if trial not in stopped:
            decision = scheduler.report(trial, report, value)
            decisions.append((trial, report, decision))
            if decision is STOP:
                stopped.add(trial)
                scheduler.tell(trial, Outcome("stopped", value, report))
    return decisions


@pytest.mark.parametrize("fresh", FRESH.values(), ids=FRESH.keys())
class TestEveryScheduler:
    def test_same_reports_same_decisions(self, fresh):
        assert run(fresh(), REPORTS) == run(fresh(), REPORTS)

    def test_saved_and_restored_at_any_report(self, fresh):
        whole = run(fresh(), REPORTS)
        for cut in range(0, len(whole), 3):
            before = fresh()
            for trial, report, decision in whole[:cut]:
                value = next(v for t, r, v in REPORTS if (t, r) == (trial, report))
                assert before.report(trial, report, value) is decision
            after = fresh()
            after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
            assert after.state_dict() == before.state_dict()
            for trial, report, decision in whole[cut:]:
                value = next(v for t, r, v in REPORTS if (t, r) == (trial, report))
                assert after.report(trial, report, value) is decision

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_takes_values_that_are_not_finite(self, fresh, value):
        scheduler = fresh()
        for report in range(1, 12):
            assert scheduler.report(0, report, value) in (CONTINUE, STOP)
        json.dumps(scheduler.state_dict(), allow_nan=False)

    def test_hears_every_outcome(self, fresh):
        scheduler = fresh()
        for trial, state in enumerate(("finished", "stopped", "diverged", "failed")):
            scheduler.report(trial, 1, 1.0)
            scheduler.tell(trial, Outcome(state, 1.0, 1))
        scheduler.tell(9, Outcome("failed", None, 0))

    def test_a_single_trial_runs_to_its_end(self, fresh):
        scheduler = fresh()
        assert {scheduler.report(0, report, 1.0) for report in range(1, 30)} == {CONTINUE}

    def test_stops_trials_where_it_says(self, fresh):
        """Workers rely on it: before any other report they do not wait for their files."""
        scheduler = fresh()
        stops = {report for _, report, decision in run(scheduler, REPORTS) if decision is STOP}
        assert stops <= scheduler.stops_at
        assert stops or not scheduler.stops_at

    def test_refuses_a_foreign_state(self, fresh):
        with pytest.raises(ExperimentError, match="this saved state is of another search"):
            fresh().load_state_dict({"format": 1, "scheduler": "median"})
        with pytest.raises(ExperimentError, match="its format is 2, but must be 1"):
            fresh().load_state_dict({**fresh().state_dict(), "format": 2})


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


def sweep(early_terminate, **constants):
    values = {"iterations": 800, "report_every": 50, **constants}
    return parse_sweep(
        {
            "method": "random",
            "metric": {"name": "val_token_accuracy", "goal": "maximize"},
            "parameters": {name: {"value": value} for name, value in values.items()},
            "early_terminate": early_terminate,
        },
        "x.yaml",
    )


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
