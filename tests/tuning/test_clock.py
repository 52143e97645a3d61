"""Steady times: by hand, in rows against in columns, from a driver, and what a worker measures."""

import json
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.clocks import BEGUN, FakeTime
from tests.tuning.coordinator_support import GOAL
from tests.tuning.test_saving import CONFIG
from tests.tuning.trainable_support import local_trainable
from tuning.journal import Journal, Row, compact, read_journal
from tuning.journal.clock import SteadyClock, steady_rows, steady_times
from tuning.journal.columns import read_journal_table, table_of_rows
from tuning.study.trials import StudyTrials

HOUR = 3600.0


def row(time, elapsed=None, kind="report"):
    return Row(kind=kind, time=time, elapsed=elapsed)


def times(rows):
    return [each.time for each in steady_rows(rows)]


class TestByHand:
    def test_a_clock_that_is_set_back_and_forward(self):
        rows = [
            row(1000.0, 1.0, "session"),
            row(1010.0, 11.0),
            row(1020.0 - HOUR, 21.0),
            row(1025.0 - HOUR, 26.0),
            row(1030.0 + HOUR, 31.0),
        ]
        assert times(rows) == [0.0, 10.0, 20.0, 25.0, 30.0]

    def test_rows_of_earlier_versions_have_the_machines_clock(self):
        rows = [row(1000.0, kind="session"), row(1010.0), row(1030.5)]
        assert times(rows) == [0.0, 10.0, 30.5]

    def test_which_goes_on_from_where_it_was_when_it_was_set_back(self):
        rows = [row(1000.0), row(1010.0), row(1012.0 - HOUR), row(1015.0 - HOUR)]
        assert times(rows) == [0.0, 10.0, 10.0, 13.0]

    def test_between_sessions_only_the_machines_clock_counts(self):
        """The next driver was killed early, and had read for longer than the first one ran."""
        rows = [
            row(1000.0, 2.0, "session"),
            row(1005.0 + HOUR, 7.0),
            row(1105.0 + HOUR, 60.0, "session"),
            row(1106.0 + HOUR, 61.0),
        ]
        assert times(rows) == [0.0, 5.0, 105.0, 106.0]

    def test_a_driver_on_a_machine_whose_clock_is_late_begins_at_once(self):
        rows = [row(1000.0, 2.0, "session"), row(1005.0, 7.0), row(400.0, 1.0, "session")]
        assert times([*rows, row(401.0, 2.0)]) == [0.0, 5.0, 5.0, 6.0]

    def test_a_session_whose_first_row_is_lost(self):
        rows = [row(1000.0, 2.0, "session"), row(1050.0, 52.0), row(1100.0, 4.0)]
        assert times(rows) == [0.0, 50.0, 100.0]

    def test_a_search_that_a_later_version_goes_on_with(self):
        rows = [row(1000.0, kind="session"), row(1010.0), row(1100.0, 3.0, "session")]
        assert times([*rows, row(1000.0, 5.0)]) == [0.0, 10.0, 100.0, 102.0]

    def test_no_rows(self):
        assert steady_rows([]) == []
        assert steady_times(table_of_rows([]).table).tolist() == []


ROWS = st.lists(
    st.builds(
        row,
        st.floats(0.0, 2e9),
        st.none() | st.floats(0.0, 1e7),
        st.sampled_from(["session", "report", "proposed"]),
    ),
    max_size=20,
)


@given(ROWS)
def test_they_never_go_back(rows):
    assert all(now >= before for before, now in pairwise(times(rows)))


@given(ROWS)
def test_in_columns_they_are_the_same(rows):
    assert steady_times(table_of_rows(rows).table) == pytest.approx(times(rows))


def test_the_driver_says_how_long_it_has_been(tmp_path, monkeypatch):
    clock = FakeTime(monkeypatch)
    clock.now = 3.0
    journal = Journal(tmp_path)
    written = []
    for set_by in (0.0, -HOUR, HOUR):
        clock.now += 0.25
        clock.set_by = set_by
        written.append(journal.append(row(0.0)))
    journal.close()
    assert [each.elapsed for each in written] == [0.25, 0.5, 0.75]
    assert [each.time - BEGUN for each in written] == [3.25, 3.5 - HOUR, 3.75 + HOUR]
    assert times(written) == [0.0, 0.25, 0.5]
    assert read_journal(tmp_path).rows == written
    compact(tmp_path)
    assert read_journal(tmp_path).rows == written


def without_elapsed(journal):
    """Makes a journal what an earlier version would have written."""
    for segment in journal.glob("*.jsonl"):
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        for line in lines:
            line.pop("elapsed", None)
        segment.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("compacted", [False, True], ids=["segments", "compacted"])
def test_a_journal_of_an_earlier_version_opens_and_goes_on(tmp_path, compacted, monkeypatch):
    import pyarrow.parquet as pq

    clock = FakeTime(monkeypatch)
    first = Journal(tmp_path)
    first.append(row(0.0, kind="session"))
    clock.now = 10.0
    first.append(row(0.0))
    first.close()
    without_elapsed(tmp_path)
    if compacted:
        compact(tmp_path)
        file = tmp_path / "compacted.parquet"
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["elapsed"]), file)
    old = read_journal(tmp_path).rows
    assert [each.elapsed for each in old] == [None, None]
    assert times(old) == [0.0, 10.0]

    second = Journal(tmp_path, next_seq=2)
    second.append(row(0.0, kind="session"))
    clock.now, clock.set_by = 15.0, HOUR
    second.append(row(0.0))
    second.close()
    for _ in range(2):  # as it is, and compacted
        rows = read_journal(tmp_path).rows
        assert [each.elapsed for each in rows] == [None, None, 0.0, 5.0]
        assert times(rows) == [0.0, 10.0, 10.0, 15.0]
        in_columns = steady_times(read_journal_table(tmp_path).table)
        assert in_columns.tolist() == [0.0, 10.0, 10.0, 15.0]
        compact(tmp_path)


def test_a_trial_of_the_study_takes_as_long_as_it_took():
    """Optuna shows the difference of both times as its duration."""
    said = {"trial": 0, "attempt": 1, "config": {"x": 1.0}}
    trials = StudyTrials(None, [GOAL])
    trials.take(row(BEGUN, 0.0, "session"))
    trials.take(replace(row(BEGUN + 1, 1.0, "proposed"), **said, state="running"))
    trials.take(replace(row(BEGUN + 9 - HOUR, 9.0, "failed"), **said, state="failed"))
    (trial,) = trials
    assert trial.started == BEGUN + 1
    assert trial.updated - trial.started == pytest.approx(8.0)


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_what_a_worker_measures_has_no_jump(tmp_path, tiny_data, monkeypatch, jump):
    """Its machine's clock is set whenever anybody asks for it."""
    worker = local_trainable(tmp_path, tiny_data)({"trial": 0, "attempt": 1, "config": CONFIG})
    true, asked = time.time, [0]

    def jumping():
        asked[0] += 1
        return true() + jump * asked[0]

    began = time.monotonic()
    monkeypatch.setattr(time, "time", jumping)
    reports = [worker.step()["report"], worker.step()["report"]]
    worker.cleanup()
    monkeypatch.undo()
    long = time.monotonic() - began
    for report in reports:
        seconds = {n: v for n, v in report.metrics.items() if n.endswith("_seconds")}
        assert {"step_seconds", "train_seconds", "eval_seconds", "save_seconds"} <= set(seconds)
        assert all(0 <= value <= long for value in seconds.values()), seconds
    assert sum(report.metrics["step_seconds"] for report in reports) <= long


def test_a_clock_may_be_asked_row_by_row():
    clock = SteadyClock()
    assert [clock.time_of(each) for each in (row(10.0, 1.0), row(5.0, 4.0))] == [0.0, 3.0]
