"""What every scheduler promises, whatever its rule; ``test_scheduling.py`` has the rules."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ExperimentError
from model.validation import Problems
from tuning.distributions import Categorical, Constant, LogUniform, Uniform
from tuning.scheduling import (
    SCHEDULERS,
    AshaScheduler,
    Decision,
    FifoScheduler,
    HyperbandScheduler,
    MedianScheduler,
    PbtScheduler,
    parse_scheduler,
)
from tuning.searchers import Outcome
from tuning.spaces.search_space import SearchSpace

CONTINUE, STOP, CLONE = Decision.CONTINUE, Decision.STOP, Decision.CLONE

TRIALS = 8
LAST = 12  # reports that a trial makes

SPACE = SearchSpace(
    {
        "learning_rate": LogUniform(1e-5, 1e-2),
        "clip": Uniform(0.0, 50.0),
        "teacher_forcing_ratio": Categorical((0.5, 1.0)),
        "optimizer": Constant("adam"),
    }
)
#: Of trial 0, 1, and so on.
CONFIGURATIONS = [
    {
        "learning_rate": 1e-5 * 2**trial,
        "clip": 5.0 * trial,
        "teacher_forcing_ratio": 0.5 + 0.5 * (trial % 2),
        "optimizer": "adam",
    }
    for trial in range(TRIALS)
]

FRESH = {
    "none": lambda goal: FifoScheduler(),
    "asha": lambda goal: AshaScheduler((1, 3, 9), 3, goal),
    "asha-strict": lambda goal: AshaScheduler((2, 4), 2, goal, strict=True),
    "hyperband": lambda goal: HyperbandScheduler(1, LAST, 3, goal),
    "hyperband-eta-2.5": lambda goal: HyperbandScheduler(2, LAST, 2.5, goal, strict=False),
    "median": lambda goal: MedianScheduler(2, 2, goal, reports=LAST),
    "median-open-end": lambda goal: MedianScheduler(1, 1, goal),
    "pbt": lambda goal: PbtScheduler(SPACE, 5, 2, goal, reports=LAST),
    "pbt-half-open-end": lambda goal: PbtScheduler(SPACE, 5, 3, goal, quantile_fraction=0.5),
}
every = pytest.mark.parametrize("fresh", FRESH.values(), ids=FRESH.keys())


def started(fresh, goal="minimize"):
    scheduler = fresh(goal)
    for trial, configuration in enumerate(CONFIGURATIONS):
        scheduler.started(trial, configuration)
    return scheduler


def answer(scheduler, trial, report, best, latest):
    """A decision, with what it says of a clone."""
    decision = scheduler.report(trial, report, best, latest=latest)
    return decision, scheduler.clone_of(trial) if decision is CLONE else None


def best_so_far(reports, goal="minimize"):
    """Adds each trial's best value so far to (trial, report, value): what the coordinator says."""
    best = {}
    for trial, report, value in reports:
        before = best.get(trial, math.nan)
        better = value < before if goal == "minimize" else value > before
        if math.isfinite(value) and (better or math.isnan(before)):
            best[trial] = value
        yield trial, report, best.get(trial, math.nan), value


def run(scheduler, reports, goal="minimize"):
    """The answers to reports, those of trials already stopped left out."""
    stopped, answers = set(), []
    for trial, report, best, latest in best_so_far(reports, goal):
        if trial in stopped:
            continue
        answers.append((trial, report, *answer(scheduler, trial, report, best, latest)))
        if answers[-1][2] is STOP:
            stopped.add(trial)
            scheduler.tell(trial, Outcome("stopped", None if math.isnan(best) else best, report))
    return answers


#: Eight trials that report in turns, on curves that cross.
REPORTS = [
    (trial, report, 5.0 - (trial * 7 % 5) / 4 - report / (8 + trial) + (report - 6) ** 2 / 64)
    for report in range(1, LAST)
    for trial in range(TRIALS)
]

#: Eighths, so that sums and negation are exact; now and then no number.
values = st.one_of(
    st.integers(-80, 80).map(lambda n: n / 8),
    st.integers(0, 24).map(lambda n: n / 8),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)


def histories(gaps):
    """Random (trial, report, value): the report numbers of each trial rise by the gaps."""

    def numbered(steps):
        reached, reports = {}, []
        for trial, gap, value in steps:
            reached[trial] = reached.get(trial, 0) + gap
            reports.append((trial, reached[trial], value))
        return [report for report in reports if report[1] < LAST]

    step = st.tuples(st.integers(0, TRIALS - 1), gaps, values)
    return st.lists(step, max_size=90).map(numbered)


dense = histories(st.just(1))
sparse = histories(st.integers(1, 5))


@every
class TestEveryScheduler:
    @given(reports=sparse)
    @settings(max_examples=25, deadline=None)
    def test_same_reports_same_decisions_and_state(self, fresh, reports):
        one, other = started(fresh), started(fresh)
        assert run(one, reports) == run(other, reports)
        assert one.state_dict() == other.state_dict()

    @given(reports=sparse, cut=st.integers(0, 90))
    @settings(max_examples=30, deadline=None)
    def test_saved_and_restored_in_the_middle(self, fresh, reports, cut):
        whole, before, after = started(fresh), started(fresh), fresh("minimize")
        expected = run(whole, reports)
        told = list(best_so_far(reports))
        made = iter(expected)
        position = next(made, None)
        scheduler = before
        for number, (trial, report, best, latest) in enumerate(told):
            if number == cut:
                state = json.loads(json.dumps(before.state_dict(), allow_nan=False))
                after.load_state_dict(state)
                assert after.state_dict() == before.state_dict()
                scheduler = after
            if position is None or (trial, report) != position[:2]:
                continue  # of a trial that was stopped
            assert answer(scheduler, trial, report, best, latest) == position[2:]
            if position[2] is STOP:
                scheduler.tell(trial, Outcome("stopped", None, report))
            position = next(made, None)
        assert position is None
        assert scheduler.state_dict() == whole.state_dict()

    def test_the_fixed_reports_make_it_decide(self, fresh):
        """Or the tests that use them would show nothing."""
        decided = {decision for _, _, decision, _ in run(started(fresh), REPORTS)}
        scheduler = fresh("minimize")
        if isinstance(scheduler, FifoScheduler):
            assert decided == {CONTINUE}
        else:
            assert decided == {CONTINUE, CLONE if isinstance(scheduler, PbtScheduler) else STOP}

    @given(reports=sparse)
    @settings(max_examples=30, deadline=None)
    def test_both_goals_mirror_each_other(self, fresh, reports):
        mirrored = [(trial, report, -value) for trial, report, value in reports]
        assert run(started(fresh), reports) == run(started(fresh, "maximize"), mirrored, "maximize")

    @given(reports=dense)
    @settings(max_examples=50, deadline=None)
    def test_stops_trials_where_it_says(self, fresh, reports):
        """Workers rely on it: before any other report they do not wait for their files."""
        scheduler = started(fresh)
        left = {report for _, report, d, _ in run(scheduler, reports) if d is not CONTINUE}
        assert scheduler.stops_at is None or left <= scheduler.stops_at

    @given(reports=sparse)
    @settings(max_examples=50, deadline=None)
    def test_reports_that_skip_numbers_stop_where_they_pass_one(self, fresh, reports):
        scheduler = started(fresh)
        before = {}
        for trial, report, decision, _ in run(scheduler, reports):
            passed = range(before.get(trial, 0) + 1, report + 1)
            before[trial] = report
            if decision is not CONTINUE and scheduler.stops_at is not None:
                assert scheduler.stops_at & set(passed)

    @given(reports=sparse)
    @settings(max_examples=25, deadline=None)
    def test_an_earlier_report_again_changes_nothing(self, fresh, reports):
        scheduler = started(fresh)
        run(scheduler, reports)
        before = scheduler.state_dict()
        ended = {trial for trial, _, d, _ in run(started(fresh), reports) if d is STOP}
        for trial, report, best, latest in best_so_far(reports):
            expected = STOP if trial in ended else CONTINUE
            assert scheduler.report(trial, report, best, latest=latest) is expected
        assert scheduler.state_dict() == before

    @given(reports=sparse)
    @settings(max_examples=25, deadline=None)
    def test_stopped_trials_stay_stopped(self, fresh, reports):
        scheduler, restored = started(fresh), fresh("minimize")
        stopped = {trial for trial, _, d, _ in run(scheduler, reports) if d is STOP}
        restored.load_state_dict(scheduler.state_dict())
        for trial in stopped:
            for report in (LAST, LAST + 1, 100):
                assert scheduler.report(trial, report, -1e9, latest=-1e9) is STOP
                assert restored.report(trial, report, -1e9, latest=-1e9) is STOP

    @given(reports=sparse)
    @settings(max_examples=30, deadline=None)
    def test_clones_are_of_others_that_live_and_lie_in_the_space(self, fresh, reports):
        scheduler = started(fresh)
        ended = {0, 5}
        for trial in ended:
            scheduler.tell(trial, Outcome("finished", 1.0, LAST))
        for trial, _, decision, clone in run(scheduler, [r for r in reports if r[0] not in ended]):
            if decision is CLONE:
                assert clone.source != trial and clone.source not in ended
                assert SPACE.contains(clone.configuration)
            else:
                assert clone is None

    def test_says_of_no_clone_where_there_is_none(self, fresh):
        scheduler = started(fresh)
        assert scheduler.report(3, 1, 1.0) is CONTINUE
        with pytest.raises(LookupError, match="trial 3 was not told to go on from another"):
            scheduler.clone_of(3)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("goal", ["minimize", "maximize"])
    def test_values_that_are_no_numbers_are_the_worst(self, fresh, value, goal):
        scheduler = started(fresh, goal)
        sign = 1 if goal == "minimize" else -1
        answers = run(
            scheduler,
            [
                (trial, report, value if trial == 7 else sign * (1.0 + trial / 8))
                for report in range(1, LAST)
                for trial in range(TRIALS)
            ],
            goal,
        )
        json.dumps(scheduler.state_dict(), allow_nan=False)
        worst = [d for trial, _, d, _ in answers if trial == 7]
        best = [d for trial, _, d, _ in answers if trial == 0]
        assert set(best) == {CONTINUE}
        if not isinstance(scheduler, FifoScheduler) and 7 not in never_judged(scheduler):
            assert set(worst) - {CONTINUE}

    def test_reports_coarser_than_rungs(self, fresh):
        """Every fifth report: a trial is judged at the highest rung only, and bad ones stop."""
        scheduler = started(fresh)
        answers = run(
            scheduler,
            [(trial, report, 1.0 + trial) for report in (5, 10) for trial in range(TRIALS)],
        )
        assert {d for trial, _, d, _ in answers if trial == 0} == {CONTINUE}
        if not isinstance(scheduler, FifoScheduler):
            assert {d for _, _, d, _ in answers} - {CONTINUE}

    def test_hears_every_outcome(self, fresh):
        scheduler = started(fresh)
        for trial, state in enumerate(("finished", "stopped", "diverged", "failed")):
            scheduler.report(trial, 1, 1.0 + trial)
            scheduler.tell(trial, Outcome(state, 1.0, 1))
        scheduler.tell(7, Outcome("failed", None, 0))

    def test_a_failed_trial_may_run_again(self, fresh):
        interrupted, whole = started(fresh), started(fresh)
        for scheduler in (interrupted, whole):
            scheduler.report(1, 1, 1.0)
        interrupted.tell(1, Outcome("failed", 1.0, 1))
        for report in range(2, LAST):
            for trial in (1, 2, 3):
                told = (trial, report, float(trial), float(trial))
                assert answer(interrupted, *told) == answer(whole, *told)
        assert interrupted.state_dict() == whole.state_dict()

    def test_a_single_trial_runs_to_its_end(self, fresh):
        scheduler = started(fresh)
        assert {scheduler.report(0, report, 1.0) for report in range(1, 30)} == {CONTINUE}

    def test_refuses_a_foreign_state(self, fresh):
        with pytest.raises(ExperimentError, match="this saved state is of another search"):
            fresh("minimize").load_state_dict({"format": 1, "scheduler": "other"})
        state = fresh("minimize").state_dict()
        with pytest.raises(ExperimentError, match="its format is 2, but must be 1"):
            fresh("minimize").load_state_dict({**state, "format": 2})

    def test_refuses_the_state_of_every_other_setting(self, fresh):
        held = {"recorded", "stopped", "brackets", "sums", "configurations"}
        held |= {"judged", "clones", "ended"}
        state = fresh("minimize").state_dict()
        for key in state.keys() - held:
            with pytest.raises(ExperimentError, match=f"its {key} is 'foreign'"):
                fresh("minimize").load_state_dict({**state, key: "foreign"})

    def test_describes_itself_in_a_line(self, fresh):
        text = fresh("minimize").describe()
        assert text and "\n" not in text


def never_judged(scheduler):
    """Trials of a bracket that judges nobody."""
    if not isinstance(scheduler, HyperbandScheduler):
        return set()
    return {t for t in range(TRIALS) if scheduler.brackets[scheduler.bracket_of(t)] is None}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_unknown_options_are_refused_by_name(name):
    problems = Problems("x.yaml")
    assert parse_scheduler({"type": name, "grace_perod": 3, 4: 5}, problems) is None
    assert [text.split(":")[0] for text in problems.found] == [
        "dialogue_tune.scheduler.grace_perod",
        "dialogue_tune.scheduler.4",
    ]
    assert all("unknown key" in text for text in problems.found)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_defaults_are_enough(name):
    problems = Problems("x.yaml")
    by_name, by_block = (parse_scheduler(block, problems) for block in (name, {"type": name}))
    assert by_name == by_block == SCHEDULERS[name]()
    assert not problems.found


PROGRAM = """
from tests.tuning.test_scheduler_contract import FRESH, REPORTS, run, started
print([(name, run(started(fresh), REPORTS)) for name, fresh in FRESH.items()])
"""


def test_another_process_decides_the_same():
    root = Path(__file__).parents[2]
    here = str([(name, run(started(fresh), REPORTS)) for name, fresh in FRESH.items()])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == here
