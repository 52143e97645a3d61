"""Choosing trials and reports in Python: ``Results.select``."""

import pandas as pd
import pytest

from analysis import Results
from model.errors import ConfigurationError


class TestTrials:
    def test_everything_is_the_frame_itself(self, finished):
        results = Results.open(finished.path)
        pd.testing.assert_frame_equal(results.select(), results.trials)
        pd.testing.assert_frame_equal(results.select(history=True), results.history)

    def test_where_and_state(self, finished):
        results = Results.open(finished.path)
        assert results.select(where="learning_rate > 0.015")["trial"].tolist() == [1, 3, 4]
        assert results.select(state="finished")["trial"].tolist() == [0, 1]
        assert results.select(state=["failed", "stopped"])["trial"].tolist() == [2, 4]
        both = results.select(where="learning_rate > 0.015", state=["finished", "failed"])
        assert both["trial"].tolist() == [1, 4]

    def test_sort_columns_and_top(self, finished):
        results = Results.open(finished.path)
        found = results.select(sort="learning_rate", columns=["learning_rate", "trial"], top=3)
        assert found.columns.tolist() == ["learning_rate", "trial"]
        assert found["trial"].tolist() == [2, 0, 1]
        found = results.select(sort="val_loss", descending=True)
        assert found["trial"].tolist()[-1] == 3  # missing, so last either way
        assert found["val_loss"].dropna().is_monotonic_decreasing

    def test_the_top_ones_are_the_best(self, finished):
        results = Results.open(finished.path)
        expected = results.ranked()["trial"].tolist()
        assert results.select(top=2)["trial"].tolist() == expected[:2]
        assert results.select(top=99)["trial"].tolist() == [*expected, 3]

    def test_nothing_is_left(self, finished):
        results = Results.open(finished.path)
        assert results.select(where="val_loss > 100", sort="val_loss", top=3).empty


class TestHistory:
    def test_is_chosen_by_its_own_columns_and_by_the_state_of_trials(self, finished):
        results = Results.open(finished.path)
        found = results.select(where="iteration > 4 and val_loss is not None", history=True)
        assert set(found["trial"]) == {0, 1}
        found = results.select(state="stopped", history=True)
        assert set(found["trial"]) == {2}
        found = results.select(history=True, top=2, columns=["trial", "iteration"])
        assert found.to_numpy().tolist() == [[0, 4], [0, 8]]


def test_everything_wrong_is_said_at_once(finished):
    with pytest.raises(ConfigurationError) as error:
        Results.open(finished.path).select(
            where="val_los < 3", state=["done"], sort="lerning_rate", columns=["trial", "optimiser"]
        )
    assert str(error.value).splitlines() == [
        "selection: state: unknown state 'done'; valid: diverged, failed, finished, interrupted, "
        "running, stopped.",
        "selection: sort: unknown column 'lerning_rate', did you mean 'learning_rate'?",
        "selection: columns: unknown column 'optimiser', did you mean 'optimizer'?",
        "selection: where: unknown column 'val_los', did you mean 'val_loss'? (texts need quotes)",
    ]
    with pytest.raises(ConfigurationError, match="descending: needs a column to sort by"):
        Results.open(finished.path).select(descending=True)
