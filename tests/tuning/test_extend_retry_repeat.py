"""Asking a search for more, without Ray: extensions, retries, targets, clones, and deaths."""

import random

import pytest

from tests.tuning.coordinator_support import (
    GOAL,
    REPORTS,
    SCHEDULERS,
    SEARCHERS,
    SPACE,
    Killed,
    coordinator,
    drive,
    summary,
)
from tuning.coordinator import Coordinator, Objective
from tuning.journal import Journal, compact, read_journal, trials_asked_for
from tuning.scheduling import Clone, Decision, FifoScheduler, PbtScheduler
from tuning.searchers import RandomSearcher


def kinds(directory):
    return [row.kind for row in read_journal(directory).rows]


def fail(c, trial, times=1):
    """Lets the next attempts, which must be at this trial, fail before a report."""
    for _ in range(times):
        assert c.next_assignment().trial == trial
        c.failed(trial, "OSError: a disk was away")


@pytest.mark.parametrize("searcher", [name for name in SEARCHERS if name != "grid"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
class TestExtend:
    def test_an_extended_search_is_one_that_was_longer_from_the_start(
        self, tmp_path, searcher, scheduler
    ):
        long = coordinator(tmp_path / "long", searcher, scheduler, trials=12)
        drive(long, {})
        short = coordinator(tmp_path / "short", searcher, scheduler, trials=7)
        drive(short, {})
        short.end_session()
        compact(tmp_path / "short")
        again = coordinator(tmp_path / "short", searcher, scheduler, trials=7)
        assert again.done
        again.extend(5)
        assert not again.done
        drive(again, {})
        assert again.done
        assert summary(again) == summary(long)

    def test_killed_in_the_extension_and_resumed(self, tmp_path, searcher, scheduler):
        long = coordinator(tmp_path / "long", searcher, scheduler, trials=12)
        drive(long, {})
        checkpoints = {}
        drive(coordinator(tmp_path / "short", searcher, scheduler, trials=9), checkpoints)
        extended = coordinator(tmp_path / "short", searcher, scheduler, trials=9)
        extended.extend(3)
        with pytest.raises(Killed):
            drive(extended, checkpoints, kill_after=random.Random(searcher).randrange(3))
        resumed = coordinator(tmp_path / "short", searcher, scheduler, trials=9)
        assert resumed.target == 12
        drive(resumed, checkpoints)
        assert summary(resumed) == summary(long)


def test_extensions_add_up(tmp_path):
    c = coordinator(tmp_path, trials=1)
    c.extend(2)
    c.extend(3)
    rows = read_journal(tmp_path).rows
    assert [row.metrics for row in rows] == [{"trials": 2}, {"trials": 3}]
    assert trials_asked_for(1, rows) == c.target == 6
    assert trials_asked_for(None, rows) is None
    assert coordinator(tmp_path, trials=1).target == 6


def test_an_extended_grid_ends_with_its_points(tmp_path):
    drive(coordinator(tmp_path, "grid", trials=4), {})
    c = coordinator(tmp_path, "grid", trials=4)
    c.extend(9)
    drive(c, {})
    assert (len(c.trials), c.done, c.exhausted) == (6, True, True)


class TestRetry:
    @pytest.fixture
    def failed(self, tmp_path):
        """A search of three trials, the second of which failed for good, after two reports."""
        c = coordinator(tmp_path, "tpe", trials=3, max_failures=1)
        for trial in range(3):
            c.next_assignment()
            for iteration in (1, 2, 3):
                if trial == 1 and iteration == 3:
                    c.failed(1, "MemoryError")
                    break
                state = "finished" if iteration == 3 else "running"
                c.report(trial, iteration, {"val_loss": 4.0 - iteration}, state=state)
        c.end_session()
        assert [record.state for record in c.trials.values()] == ["finished", "failed", "finished"]
        return tmp_path

    def again(self, directory):
        return coordinator(directory, "tpe", trials=3, max_failures=1)

    def test_a_failed_trial_goes_on_as_a_further_attempt(self, failed):
        c = self.again(failed)
        told = []
        c.searcher.report = lambda *arguments: told.append(arguments)
        c.retry(c.ended_badly())
        assert not c.done
        assignment = c.next_assignment()
        assert (assignment.trial, assignment.attempt) == (1, 2)
        assert c.next_assignment() is None, "the others have ended"
        assert c.report(1, 2, {"val_loss": 2.0}) is Decision.CONTINUE  # from its checkpoint
        assert c.report(1, 3, {"val_loss": 1.0}, state="finished") is Decision.STOP
        assert [iteration for _, iteration, _ in told] == [3], "iteration 2 was told before"
        assert (c.trials[1].state, c.trials[1].value, c.trials[1].attempt) == ("finished", 1.0, 2)
        assert c.done
        assert kinds(failed)[-4:] == ["retried", "restarted", "report", "report"]

    def test_killed_in_between(self, failed):
        """After the row that asks for it, and after the restart."""
        c = self.again(failed)
        c.retry([1])
        for attempt in (2, 3):
            c = self.again(failed)
            assert c.live == [1]
            assert c.next_assignment().attempt == attempt
        c.report(1, 3, {"val_loss": 1.0}, state="finished")
        c = self.again(failed)
        assert c.done
        assert summary(c)[1][1:] == ("finished", 3, 1.0)

    def test_it_may_fail_again_and_be_retried_again(self, failed):
        for attempt in (2, 3):
            c = self.again(failed)
            c.retry(c.ended_badly())
            assert c.next_assignment().attempt == attempt
            c.failed(1, "MemoryError")
            assert c.trials[1].state == "failed"
        assert self.again(failed).ended_badly() == [1]

    def test_what_the_searcher_proposes_next_is_the_same_after_a_death(self, failed):
        c = self.again(failed)
        c.retry([1])
        c.next_assignment()
        c.report(1, 3, {"val_loss": 0.5}, state="finished")
        c.extend(20)
        drive(c, {})
        again = self.again(failed)
        again.extend(1)
        c.extend(1)
        assert c.next_assignment().config == again.next_assignment().config

    def test_diverged_trials_only_where_asked_for(self, tmp_path):
        c = coordinator(tmp_path, trials=1)
        c.next_assignment()
        c.report(0, 1, {"val_loss": 3.0})
        c.report(0, 2, {"val_loss": 3.0}, state="diverged")
        assert c.ended_badly() == []
        assert c.ended_badly(diverged=True) == [0]

    @pytest.mark.parametrize("this_time", ["diverged", "running"])
    def test_a_diverged_trial_is_judged_anew(self, tmp_path, this_time):
        """It begins anew; the reports before are known, the one where it ended is not."""
        c = coordinator(tmp_path, trials=1)
        c.next_assignment()
        c.report(0, 1, {"val_loss": 3.0})
        c.report(0, 2, {"val_loss": 3.0}, state="diverged")
        c.retry([0])
        c.next_assignment()
        assert c.report(0, 1, {"val_loss": 3.0}) is Decision.CONTINUE
        decision = c.report(0, 2, {"val_loss": 2.0}, state=this_time)
        if this_time == "diverged":
            assert decision is Decision.STOP
            assert c.done
        else:
            assert decision is Decision.CONTINUE
            assert (c.trials[0].state, c.trials[0].value) == ("running", 2.0)
        again = coordinator(tmp_path, trials=1)
        assert summary(again) == summary(c)


class TestTarget:
    GOAL = Objective("val_loss", "minimize", target=1.0)

    def search(self, directory, trials=9):
        return coordinator(directory, trials=trials, goal=self.GOAL)

    @pytest.mark.parametrize(
        ("goal", "value", "reached"),
        [
            ("minimize", 1.0, True),
            ("minimize", 0.5, True),
            ("minimize", 1.5, False),
            ("maximize", 1.0, True),
            ("maximize", 0.5, False),
            ("maximize", 1.5, True),
            ("minimize", None, False),
            ("minimize", float("nan"), False),
            ("maximize", float("inf"), False),
        ],
    )
    def test_at_least_as_good(self, goal, value, reached):
        assert Objective("x", goal, 1.0).reached(value) is reached
        assert not Objective("x", goal).reached(value)

    def test_the_search_ends_and_live_trials_are_stopped(self, tmp_path):
        c = self.search(tmp_path)
        for _ in range(3):
            c.next_assignment()
        assert c.report(0, 1, {"val_loss": 1.5}) is Decision.CONTINUE
        c.failed(2, "a node was lost")  # waits to be restarted
        assert c.report(0, 2, {"val_loss": 1.0}) is Decision.STOP
        assert c.next_assignment() is None
        assert not c.done, "trial 1 still runs"
        assert c.report(1, 1, {"val_loss": 2.0}) is Decision.STOP
        assert c.done
        assert [record.state for record in c.trials.values()] == ["stopped"] * 3
        c.end_session()
        rows = read_journal(tmp_path).rows
        assert (rows[-1].kind, rows[-1].reason, rows[-1].completes) == (
            "ended",
            "target reached",
            True,
        )
        assert [row.kind for row in rows if row.state == "stopped"] == [
            "report",
            "stopped",
            "report",
        ]
        assert {row.reason for row in rows if row.state == "stopped"} == {"target reached"}

    def test_a_finished_trial_that_reaches_it_is_finished(self, tmp_path):
        c = self.search(tmp_path)
        c.next_assignment()
        c.report(0, 1, {"val_loss": 0.5}, state="finished")
        assert (c.trials[0].state, c.done) == ("finished", True)

    def test_killed_before_the_others_were_stopped(self, tmp_path):
        c = self.search(tmp_path)
        c.next_assignment()
        c.next_assignment()
        c.report(0, 1, {"val_loss": 0.5})
        resumed = self.search(tmp_path)
        assert resumed.target_reached
        assert not resumed.done
        assert resumed.next_assignment() is None
        assert resumed.done
        assert self.search(tmp_path).done

    def test_without_a_target_nothing_ends_early(self, tmp_path):
        c = coordinator(tmp_path, trials=2)
        c.next_assignment()
        assert c.report(0, 1, {"val_loss": -1e9}) is Decision.CONTINUE


class OnceCloning(FifoScheduler):
    """Tells trial 1 to go on from trial 0 at its second report."""

    def report(self, trial, report_number, value, *, latest=None):
        return Decision.CLONE if (trial, report_number) == (1, 2) else Decision.CONTINUE

    def clone_of(self, trial):
        return Clone(0, {"x": 0.25, "y": 3})


class TestClone:
    def search(self, directory):
        rows = read_journal(directory).rows if directory.exists() else []
        c = Coordinator(
            RandomSearcher(SPACE, seed=1),
            OnceCloning(),
            Journal(directory, next_seq=len(rows)),
            [GOAL],
            trials=2,
        )
        c.kept = []
        c.keep_weights = lambda *arguments: c.kept.append(arguments)
        c.replay(rows)
        return c

    def begin(self, directory):
        c = self.search(directory)
        c.next_assignment()
        c.next_assignment()
        for iteration in (4, 8, 12):
            c.report(0, iteration, {"val_loss": 1.0})
        assert c.report(1, 4, {"val_loss": 3.0}) is Decision.CONTINUE
        assert c.report(1, 8, {"val_loss": 2.5}) is Decision.CLONE
        return c

    def test_the_attempt_ends_and_the_next_one_is_the_clone(self, tmp_path):
        c = self.begin(tmp_path)
        assert c.kept == [(0, 1, 8)], "before the decision took effect"
        assignment = c.next_assignment()
        assert (assignment.trial, assignment.attempt, assignment.cloned_at) == (1, 2, 8)
        assert assignment.config == {"x": 0.25, "y": 3}
        row = read_journal(tmp_path).rows[-1]
        assert (row.kind, row.source, row.source_iteration) == ("restarted", 0, 12)
        assert (row.iteration, row.config) == (8, {"x": 0.25, "y": 3})

    def test_its_row_is_kept_safe_before_it_begins(self, tmp_path):
        """From then on its files are of another configuration than the rows before."""
        c, safe = self.begin(tmp_path), []
        c.keep_safe = lambda: safe.append(read_journal(tmp_path).rows[-1])
        c.failed(0, "the worker process died")
        assert c.next_assignment().trial == 1
        assert [(row.kind, row.trial, row.source) for row in safe] == [("restarted", 1, 0)]
        assert c.next_assignment().trial == 0
        assert len(safe) == 1, "another attempt of the same configuration can wait"

    def test_it_repeats_its_report_and_goes_on_with_its_own_figures(self, tmp_path):
        c = self.begin(tmp_path)
        c.next_assignment()
        assert c.report(1, 8, {"val_loss": 2.5}) is Decision.CONTINUE
        assert c.report(1, 12, {"val_loss": 2.0}, state="finished") is Decision.STOP
        assert (c.trials[1].value, c.trials[0].value) == (2.0, 1.0)
        assert read_journal(tmp_path).rows[-1].config == {"x": 0.25, "y": 3}

    def test_killed_before_the_clone_began(self, tmp_path):
        self.begin(tmp_path)
        c = self.search(tmp_path)
        assert c.next_assignment().trial == 0
        assignment = c.next_assignment()
        assert (assignment.trial, assignment.cloned_at) == (1, 8)
        assert assignment.config == {"x": 0.25, "y": 3}
        assert read_journal(tmp_path).rows[-1].source == 0

    def test_killed_after_the_clone_began(self, tmp_path):
        self.begin(tmp_path).next_assignment()
        c = self.search(tmp_path)
        c.next_assignment()
        assignment = c.next_assignment()
        assert (assignment.attempt, assignment.cloned_at) == (3, 8)
        assert assignment.config == {"x": 0.25, "y": 3}
        assert read_journal(tmp_path).rows[-1].source is None, "nothing is copied again"
        assert c.report(1, 8, {"val_loss": 2.5}) is Decision.CONTINUE

    def test_a_worker_that_dies_as_it_is_stopped_is_no_failure(self, tmp_path):
        c = self.begin(tmp_path)
        c.failed(1, "the worker process died")
        assert "failed" not in kinds(tmp_path)
        assert c.next_assignment().trial == 1
        assert c.next_assignment() is None

    def test_the_compacted_journal_keeps_the_source(self, tmp_path):
        c = self.begin(tmp_path)
        c.next_assignment()
        before = read_journal(tmp_path).rows
        c.journal.close()
        compact(tmp_path)
        assert read_journal(tmp_path).rows == before


def test_a_population_trains_on_and_is_replayed(tmp_path):
    """The real scheduler: some trials take over from others, and a replay gives the same state."""

    def search():
        rows = read_journal(tmp_path).rows if tmp_path.exists() else []
        c = Coordinator(
            RandomSearcher(SPACE, seed=1),
            PbtScheduler(SPACE, seed=3, interval=2, reports=REPORTS),
            Journal(tmp_path, next_seq=len(rows)),
            [GOAL],
            trials=6,
        )
        c.replay(rows)
        return c

    c, done = search(), dict.fromkeys(range(6), 0)
    running = [c.next_assignment() for _ in range(6)]
    while running:
        assignment = running.pop(0)
        trial = assignment.trial
        done[trial] += 1
        value = assignment.config["x"] + 1 / done[trial]
        state = "finished" if done[trial] == REPORTS else "running"
        decision = c.report(trial, done[trial], {"val_loss": value}, state=state)
        if decision is Decision.CLONE:
            running.append(c.next_assignment())
        elif decision is Decision.CONTINUE:
            running.append(assignment)
    rows = read_journal(tmp_path).rows
    clones = [row for row in rows if row.source is not None]
    assert clones
    assert all(row.source != row.trial for row in clones)
    assert {record.state for record in c.trials.values()} == {"finished"}
    again = search()
    assert summary(again) == summary(c)
    assert again.scheduler.state_dict() == c.scheduler.state_dict()
