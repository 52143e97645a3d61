"""Frames against a plain loop over the same rows, whatever happened in a search."""

import math
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.frames import SHOWN, Frames, configuration_frame, standing
from tests.analysis.conftest import proposed, reported
from tuning.coordinator import Objective
from tuning.journal import Row, current_reports
from tuning.journal.columns import table_of_rows

MINIMIZE, MAXIMIZE = Objective("val_loss", "minimize"), Objective("val_loss", "maximize")


def numbered(rows):
    return [Row(**{**row.__dict__, "seq": i, "time": 100.0 + 3 * i}) for i, row in enumerate(rows)]


class TestStanding:
    def test_by_hand(self):
        """Attempt 2 of trial 0 goes on from iteration 20, which it reports again."""
        trial = pd.Series([0, 0, 1, 0, 0, 0, 0])
        iteration = pd.Series([10, 20, 10, 30, 20, 30, 40])
        assert standing(trial, iteration).tolist() == [True, False, True, False, True, True, True]

    def test_none(self):
        empty = pd.Series([], dtype="int64")
        assert standing(empty, empty).tolist() == []

    def test_keeps_the_index(self):
        found = standing(pd.Series([1, 1], index=[5, 9]), pd.Series([2, 1], index=[5, 9]))
        assert found.to_dict() == {5: False, 9: True}

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=25))
    def test_is_the_plain_rule(self, reports):
        rows = numbered(reported(trial, iteration) for trial, iteration in reports)
        found = standing(
            pd.Series([t for t, _ in reports], dtype="int64"),
            pd.Series([i for _, i in reports], dtype="int64"),
        )
        assert found[found].index.tolist() == [row.seq for row in current_reports(rows)]


values = st.sampled_from([None, 1.0, 2.0, 3.0, math.nan, math.inf])
events = st.one_of(
    st.builds(
        reported,
        st.integers(0, 2),
        st.integers(1, 5),
        st.sampled_from(["running", "finished"]),
        val_loss=values,
        loss=values,
        train_seconds=st.sampled_from([None, 1.5]),
        step_seconds=st.sampled_from([None, 0.5, 2.0, 60.0]),
        peak_memory_mb=st.sampled_from([None, 100.0, 200.0]),
    ),
    st.builds(proposed, st.integers(0, 2)),
    st.builds(
        Row,
        kind=st.sampled_from(["restarted", "failed"]),
        trial=st.integers(0, 2),
        attempt=st.integers(1, 4),
        state=st.sampled_from(["running", "failed"]),
        reason=st.sampled_from([None, "", "boom"]),
        worker=st.sampled_from([None, "a:1", "b:2"]),
    ),
    st.just(Row(kind="session", reason="x", metrics={"startup_seconds": 1.0})),
)


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(events, max_size=30), objective=st.sampled_from([MINIMIZE, MAXIMIZE]))
def test_trials_and_history_are_those_of_a_plain_loop(rows, objective):
    rows = numbered(rows)
    frames = Frames(table_of_rows(rows), [objective])
    trials, history = frames.trials(), frames.history()
    current = current_reports(rows)
    expected = sorted(current, key=lambda row: (row.trial, row.iteration))
    told = list(zip(history["trial"], history["iteration"], strict=True))
    assert told == [(row.trial, row.iteration) for row in expected]
    assert trials.index.tolist() == sorted({row.trial for row in rows if row.trial is not None})
    for trial, found in trials.iterrows():
        own = [row for row in rows if row.trial == trial]
        reports = [row for row in current if row.trial == trial]
        assert_trial(found, own, reports, objective)


def assert_trial(found, own, reports, objective):
    """One trial, as a loop over its rows has it."""
    best = None
    for row in reports:
        than = best.metrics["val_loss"] if best else None
        if objective.better(row.metrics.get("val_loss"), than):
            best = row
    same(found["best_iteration"], best and best.iteration)
    for name in SHOWN:
        same(found[name], best and best.metrics.get(name))
        same(found[f"last_{name}"], reports[-1].metrics.get(name) if reports else None)
    assert found["iteration"] == (reports[-1].iteration if reports else 0)
    same(found["state"], own[-1].state)
    same(found["attempts"], own[-1].attempt)
    same(found["reason"], next((r.reason for r in reversed(own) if r.reason), None))
    same(found["worker"], next((r.worker for r in reversed(own) if r.worker), None))
    seconds = sum(
        now.time - before.time
        for before, now in pairwise(own)
        if now.kind not in ("proposed", "restarted")
    )
    assert found["seconds"] == pytest.approx(seconds)
    spent = [r.metrics.get("train_seconds") for r in own if r.kind == "report"]
    said = [value for value in spent if value is not None]
    same(found["train_seconds"], sum(said) if said else None)
    same(found["wait_seconds"], waited(own))
    peaks = [row.metrics.get("peak_memory_mb") for row in own if row.kind == "report"]
    same(found["peak_memory_mb"], max((peak for peak in peaks if peak), default=None))
    assert found["started"].timestamp() == own[0].time
    assert found["updated"].timestamp() == own[-1].time


def waited(own):
    """From each proposal or restart to the step of the report that comes next."""
    found = [
        max(0.0, now.time - before.time - now.metrics["step_seconds"])
        for before, now in pairwise(own)
        if before.kind in ("proposed", "restarted")
        and now.kind == "report"
        and now.metrics.get("step_seconds") is not None
    ]
    return sum(found) if found else None


def same(found, expected):
    if expected is None or expected != expected:
        assert pd.isna(found)
    else:
        assert found == expected


class TestConfiguration:
    def frame(self, configs, fixed=None):
        return configuration_frame(sorted(configs), configs, fixed or {}, ["clip"])

    def test_types_are_those_of_the_fields(self):
        config = {"clip": 5, "embedding_size": None, "threads": 2, "optimizer": "adam"}
        frame = self.frame({0: config, 1: config | {"clip": 2.5, "embedding_size": 8}})
        assert frame.dtypes.astype(str).to_dict() == {
            **{"clip": "float64", "embedding_size": "Int64", "threads": "int64"},
            "optimizer": "str",
        }
        assert frame["clip"].tolist() == [5.0, 2.5]
        assert frame["embedding_size"].isna().tolist() == [True, False]

    def test_what_a_trial_does_not_say_is_fixed_but_never_searched(self):
        frame = self.frame({0: {"clip": 1.0}, 1: {}}, {"clip": 50.0, "batch_size": 64})
        assert frame["batch_size"].tolist() == [64, 64]
        assert frame["clip"].isna().tolist() == [False, True]

    def test_a_value_that_does_not_fit_is_shown_as_it_is(self):
        frame = self.frame({0: {"clip": "much"}, 1: {"clip": 1.0, "unknown": True}})
        assert frame["clip"].tolist() == ["much", 1.0]
        assert frame["unknown"].tolist()[1] is True
