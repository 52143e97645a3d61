"""Several experiments together."""

import json

import pandas as pd
import pytest

from analysis import Results
from analysis.comparison import compare
from model.errors import ConfigurationError, ExperimentError
from tests.analysis.conftest import proposed, reported

#: Two experiments of the same objective, and one of another.
FIRST = [
    *(proposed(0, 1.0), reported(0, 1, val_loss=3.0), reported(0, 2, "finished", val_loss=2.5)),
    *(proposed(1, 2.0), reported(1, 1, "stopped", val_loss=4.0)),
]
SECOND = [proposed(0, 3.0), reported(0, 5, "finished", val_loss=2.0)]
ACCURACY = {"name": "val_token_accuracy", "goal": "maximize"}


@pytest.fixture
def pair(by_hand):
    return [by_hand(FIRST, name="first").path, by_hand(SECOND, name="second").path]


def test_trials_of_all_below_one_another(pair):
    both = compare(pair)
    trials = both.trials
    assert trials.columns[0] == "experiment"
    assert trials["experiment"].tolist() == ["first", "first", "second"]
    assert trials["trial"].tolist() == [0, 1, 0]
    assert trials["val_loss"].tolist() == [2.5, 4.0, 2.0]
    one = Results.open(pair[0]).trials
    assert trials.columns.tolist()[1:] == one.columns.tolist()
    told = [name for name in one if one[name].notna().any()]
    pd.testing.assert_frame_equal(trials.iloc[:2][told], one[told], check_dtype=True)
    assert both.history["experiment"].tolist() == ["first"] * 3 + ["second"]


def test_summary_by_hand(pair):
    first, second = compare(pair).summary.to_dict("records")
    assert (first["experiment"], first["trials"], first["best"]) == ("first", 2, 2.5)
    assert (first["finished"], first["stopped"], first["failed"]) == (1, 1, 0)
    assert (first["best_trial"], json.loads(first["best_configuration"])) == (0, {"clip": 1.0})
    assert first["iterations"] == 2 + 1
    assert (first["objective"], first["goal"]) == ("val_loss", "minimize")
    assert second["iterations"] == 5
    assert first["data_fingerprint"] == second["data_fingerprint"]
    assert len(first["data_fingerprint"]) > 12


def test_an_experiment_without_trials(by_hand, pair):
    empty = by_hand([], name="empty").path
    summary = compare([pair[0], empty]).summary
    assert summary["best"].isna().tolist() == [False, True]
    assert summary["trials"].tolist() == [2, 0]
    alone = compare([empty])
    assert alone.trials.empty and "val_loss" in alone.trials and "experiment" in alone.trials
    assert alone.select(where="val_loss < 3").empty


class TestWarnings:
    def test_the_same_can_be_compared(self, pair):
        assert compare(pair).warnings == []

    def test_objectives(self, by_hand, pair):
        other = by_hand([proposed(0)], ACCURACY, "other").path
        (warning,) = compare([pair[0], other]).warnings
        assert warning == (
            "objectives differ (first: minimize val_loss; other: maximize val_token_accuracy); "
            "their best values say different things."
        )

    def test_data_and_validation_subsets(self, pair):
        manifest = pair[1] / "experiment.json"
        changed = json.loads(manifest.read_text())
        changed["data"]["fingerprint"] = "another"
        changed["sweep"]["parameters"]["val_examples"] = {"value": 7}
        manifest.write_text(json.dumps(changed))
        data, subset = compare(pair).warnings
        assert data.startswith("data fingerprints differ (first: ")
        assert data.endswith("second: another); losses on different data cannot be compared.")
        assert subset == (
            "numbers of validation examples differ (first: 1024; second: 7); values on different "
            "subsets differ by chance."
        )


class TestSelect:
    def test_over_all(self, pair):
        both = compare(pair)
        found = both.select(where="clip > 1.5", sort="val_loss", columns=["experiment", "trial"])
        assert found.to_numpy().tolist() == [["second", 0], ["first", 1]]
        assert both.select(where="experiment == 'first'", state="stopped")["trial"].tolist() == [1]

    def test_unknown_column(self, pair):
        with pytest.raises(ConfigurationError, match="sort: unknown column 'val_los', did you"):
            compare(pair).select(sort="val_los")


class TestNames:
    def test_the_same_name_twice(self, by_hand, pair, tmp_path):
        """By their paths, then."""
        import shutil

        copy = tmp_path / "elsewhere" / "first"
        shutil.copytree(pair[0], copy)
        assert list(compare([pair[0], copy]).results) == [str(pair[0]), str(copy)]

    def test_the_same_experiment_twice(self, pair):
        with pytest.raises(ExperimentError, match="first: is named twice; name each experiment"):
            compare([pair[0], str(pair[0])])

    def test_unknown(self, pair):
        with pytest.raises(ExperimentError, match="frst: unknown experiment, did you mean 'first'"):
            compare(["frst"], pair[0].parent)

    def test_problems_say_whose_they_are(self, pair):
        (pair[1] / "data.safetensors").unlink()
        both = compare(pair)
        assert any(p.startswith("second: ") and "data set is missing" in p for p in both.problems)
        assert not any(p.startswith("first: ") and "data set" in p for p in both.problems)
