"""The coordinator without Ray: a loop in place of the workers, deaths at every possible moment."""

import random

import pytest

from model.errors import ExperimentError
from tests.tuning.coordinator_support import (
    REPORTS,
    SCHEDULERS,
    SEARCHERS,
    Killed,
    coordinator,
    drive,
    summary,
)
from tuning.coordinator import MOST_LOSSES
from tuning.journal import Journal, read_journal
from tuning.journal.row import NODE_LOST, PREEMPTED
from tuning.scheduling import Decision


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
class TestDeath:
    def test_killed_anywhere_and_resumed_is_as_if_never_killed(self, tmp_path, searcher, scheduler):
        quiet = coordinator(tmp_path / "quiet", searcher, scheduler)
        total = drive(quiet, {})
        expected = summary(quiet)
        for kill_after in random.Random(0).sample(range(total), 6):
            directory, checkpoints = tmp_path / f"killed{kill_after}", {}
            with pytest.raises(Killed):
                drive(coordinator(directory, searcher, scheduler), checkpoints, kill_after)
            resumed = coordinator(directory, searcher, scheduler)
            drive(resumed, checkpoints)
            assert summary(resumed) == expected
            self.check_journal(directory)

    def test_killed_again_and_again(self, tmp_path, searcher, scheduler):
        quiet = coordinator(tmp_path / "quiet", searcher, scheduler)
        drive(quiet, {})
        checkpoints, directory = {}, tmp_path / "killed"
        deaths = 0
        while True:
            resumed = coordinator(directory, searcher, scheduler)
            try:
                drive(resumed, checkpoints, kill_after=3)
                break
            except Killed:
                deaths += 1
        assert deaths > 5
        assert summary(resumed) == summary(quiet)
        self.check_journal(directory)

    def test_any_beginning_of_a_journal_leads_to_the_same_end(self, tmp_path, searcher, scheduler):
        """Cut behind any row, and all checkpoints lost: trials that had not ended begin anew."""
        quiet = coordinator(tmp_path / "quiet", searcher, scheduler)
        drive(quiet, {})
        rows = read_journal(tmp_path / "quiet").rows
        for cut in random.Random(1).sample(range(1, len(rows)), 4):
            journal = Journal(tmp_path / f"cut{cut}")
            for row in rows[:cut]:
                journal.append(row)
            journal.close()
            resumed = coordinator(tmp_path / f"cut{cut}", searcher, scheduler)
            drive(resumed, {})
            assert summary(resumed) == summary(quiet)
            self.check_journal(tmp_path / f"cut{cut}")

    def check_journal(self, directory):
        """Unique ids, monotone progress within an attempt, nothing after a trial's end."""
        rows = read_journal(directory).rows
        proposed = [r.trial for r in rows if r.kind == "proposed"]
        assert proposed == list(range(len(proposed)))
        assert [r.seq for r in rows] == list(range(len(rows)))
        last, ended = {}, set()
        for row in rows:
            if row.trial is None:
                continue
            assert row.trial not in ended
            if row.kind == "report":
                assert row.iteration > last.get((row.trial, row.attempt), 0)
                last[row.trial, row.attempt] = row.iteration
            if row.state not in ("running", None):
                ended.add(row.trial)


def test_value_is_the_running_minimum(tmp_path):
    c = coordinator(tmp_path, trials=1)
    c.next_assignment()
    for iteration, value in enumerate([3.0, 2.0, float("nan"), 2.5, None], start=1):
        c.report(0, iteration, {"val_loss": value})
    assert [r.values for r in read_journal(tmp_path).rows if r.kind == "report"] == [
        [3.0],
        [2.0],
        [2.0],
        [2.0],
        [2.0],
    ]
    assert c.best == (0, 2.0)


def test_a_diverged_trial_is_stopped_and_keeps_its_best(tmp_path):
    c = coordinator(tmp_path, trials=1)
    c.next_assignment()
    c.report(0, 1, {"val_loss": 3.0})
    assert c.report(0, 2, {"val_loss": 3.0}, state="diverged") is Decision.STOP
    assert (c.trials[0].state, c.trials[0].value) == ("diverged", 3.0)
    assert c.done


def test_failures_are_retried_and_then_given_up(tmp_path):
    c = coordinator(tmp_path, trials=1, max_failures=2)
    assert c.next_assignment().attempt == 1
    c.report(0, 1, {"val_loss": 3.0})
    c.failed(0, "ValueError: first")
    assert not c.done
    assert c.next_assignment().attempt == 2
    c.failed(0, "ValueError: second")
    assert c.next_assignment() is None
    assert c.done
    assert c.trials[0].state == "failed"
    reasons = [r.reason for r in read_journal(tmp_path).rows if r.kind == "failed"]
    assert reasons == ["ValueError: first", "ValueError: second"]


def test_a_trial_whose_nodes_are_lost_again_and_again_is_given_up(tmp_path):
    """It may be the one that ends them; progress begins the count anew."""
    c = coordinator(tmp_path, trials=1)
    for lost in range(1, 2 * MOST_LOSSES):
        c.next_assignment()
        if lost == MOST_LOSSES - 1:
            c.report(0, 1, {"val_loss": 3.0})
        c.failed(0, NODE_LOST)
        if lost == MOST_LOSSES + 2:
            c = coordinator(tmp_path, trials=1)  # a resume counts on
    assert c.trials[0].state == "failed"
    assert c.done
    rows = [row for row in read_journal(tmp_path).rows if row.kind == "failed"]
    assert len(rows) == 2 * MOST_LOSSES - 2


def test_nothing_is_written_where_the_search_must_not_go_on(tmp_path):
    c = coordinator(tmp_path, trials=2)
    c.next_assignment()
    before = len(read_journal(tmp_path).rows)

    def refuse():
        raise ExperimentError("was taken over")

    c.check = refuse
    for action in (
        c.next_assignment,
        lambda: c.report(0, 1, {"val_loss": 3.0}),
        lambda: c.failed(0, "ValueError: x"),
    ):
        with pytest.raises(ExperimentError, match="was taken over"):
            action()
    assert len(read_journal(tmp_path).rows) == before


@pytest.mark.parametrize("reason", [NODE_LOST, PREEMPTED])
def test_a_lost_node_is_no_failure_of_the_trial(tmp_path, reason):
    c = coordinator(tmp_path, trials=1, max_failures=2)
    for attempt in range(1, 5):
        assert c.next_assignment().attempt == attempt
        c.failed(0, reason)
        assert c.trials[0].failures == 0
    assert c.next_assignment().attempt == 5
    c.failed(0, "ValueError: first")
    c = coordinator(tmp_path, trials=1, max_failures=2)
    assert c.trials[0].failures == 1
    assert c.next_assignment().attempt == 6
    c.failed(0, reason)
    assert c.next_assignment().attempt == 7
    c.failed(0, "ValueError: second")
    assert c.done


def test_a_failure_before_a_death_is_remembered_after_it(tmp_path):
    c = coordinator(tmp_path, trials=1, max_failures=2)
    c.next_assignment()
    c.failed(0, "first")
    c = coordinator(tmp_path, trials=1, max_failures=2)
    assert c.next_assignment().attempt == 2
    c.failed(0, "second")
    assert c.done


def test_a_rolled_back_trial_gets_the_decisions_it_got_before(tmp_path):
    """Checkpoints rarer than reports: iterations 2 and 3 are run again, and told to nobody."""
    c = coordinator(tmp_path, trials=1)
    told = []
    c.searcher.report = lambda *arguments: told.append(arguments)
    c.next_assignment()
    for iteration in (1, 2, 3):
        c.report(0, iteration, {"val_loss": 4.0 - iteration})
    c.failed(0, "node lost")
    c.next_assignment()
    for iteration in (1, 2, 3, 4):
        c.report(0, iteration, {"val_loss": 4.0 - iteration})
    assert [iteration for _, iteration, _ in told] == [1, 2, 3, 4]


def test_the_grid_ends_by_itself(tmp_path):
    c = coordinator(tmp_path, "grid", trials=None)
    drive(c, {})
    assert c.done
    assert len(c.trials) == 6


def test_listeners_hear_a_row_after_it_was_written(tmp_path):
    c = coordinator(tmp_path, trials=1)
    heard = []

    class Listener:
        def heard(self, row):
            heard.append((row.kind, len(read_journal(tmp_path).rows)))

    c.listeners = [Listener()]
    c.next_assignment()
    c.report(0, 1, {"val_loss": 1.0})
    assert heard == [("proposed", 1), ("report", 2)]


def test_progress_forgives_earlier_failures(tmp_path):
    """A trial on machines that come and go fails often, and gets on all the same."""
    c = coordinator(tmp_path, trials=1, max_failures=2)
    for iteration in range(1, REPORTS):
        c.next_assignment()
        c.report(0, iteration, {"val_loss": 3.0})
        c.failed(0, "node lost")
    c = coordinator(tmp_path, trials=1, max_failures=2)
    c.next_assignment()
    c.report(0, REPORTS, {"val_loss": 3.0}, state="finished")
    assert c.trials[0].state == "finished"
    assert c.trials[0].attempt == REPORTS


def test_what_would_fail_again_is_not_retried(tmp_path):
    c = coordinator(tmp_path, trials=2, max_failures=3)
    c.next_assignment()
    c.failed(0, "ConfigurationError: no GPU", retry=False)
    assert c.trials[0].state == "failed"
    assert c.next_assignment().trial == 1


def test_a_hopeless_search_ends(tmp_path):
    c = coordinator(tmp_path, max_failures=1)
    for _ in range(2):
        c.failed(c.next_assignment().trial, "ImportError: no module")
    trial = c.next_assignment().trial
    with pytest.raises(ExperimentError, match="the first 3 trials .* all failed .*: ImportError"):
        c.failed(trial, "ImportError: no module")
    assert [c.trials[i].state for i in range(3)] == ["failed"] * 3
