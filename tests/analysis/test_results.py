"""Results: every figure compared with the journal's own lines, read in a plain loop."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis import Results
from model.checkpoint import read_checkpoint
from model.errors import ExperimentError
from tests.analysis.conftest import (
    FAILURES,
    Killed,
    drive,
    make_experiment,
    proposed,
    reported,
)
from tuning.journal import compact, read_journal
from tuning.trials.trial_files import best_file

ROOT = Path(__file__).resolve().parents[2]


def lines_of(experiment):
    """The rows of the journal, as plain mappings."""
    segments = sorted(experiment.journal.glob("*.jsonl"))
    lines = [json.loads(line) for s in segments for line in s.read_text().splitlines()]
    return [line for line in lines if "kind" in line]


def curves_of(experiment):
    """val_loss by iteration, by trial; a later row of an iteration and what follows it wins."""
    curves: dict[int, dict[int, float | None]] = {}
    for line in lines_of(experiment):
        if line["kind"] == "report":
            curve = curves.setdefault(line["trial"], {})
            for later in [i for i in curve if i >= line["iteration"]]:
                del curve[later]
            curve[line["iteration"]] = line["metrics"].get("val_loss")
    return curves


class TestTrials:
    def test_the_fixture_has_every_kind_of_end(self, finished):
        kinds = [(line["kind"], line.get("trial")) for line in lines_of(finished)]
        assert ("restarted", 1) in kinds
        assert kinds.count(("failed", 4)) == 2
        trials = Results.open(finished.path).trials
        assert trials["state"].tolist() == [
            *("finished", "finished", "stopped", "diverged", "failed"),
        ]
        assert trials["attempts"].tolist() == [1, 2, 1, 1, 2]

    def test_figures_are_those_of_the_journal(self, finished):
        trials = Results.open(finished.path).trials.set_index("trial")
        for trial, curve in curves_of(finished).items():
            row = trials.loc[trial]
            assert row["iteration"] == max(curve)
            values = {i: v for i, v in curve.items() if v is not None}
            if not values:
                assert trial == 3
                assert pd.isna(row["best_iteration"])
                assert math.isnan(row["val_loss"])
                assert math.isnan(row["last_val_loss"])
                continue
            best = min(values, key=values.__getitem__)
            assert (row["val_loss"], row["best_iteration"]) == (values[best], best)
            assert row["last_val_loss"] == values[max(values)]

    def test_other_columns(self, finished):
        trials = Results.open(finished.path).trials
        lines = lines_of(finished)
        for _, row in trials.iterrows():
            own = [line for line in lines if line.get("trial") == row["trial"]]
            begins = [line["kind"] in ("proposed", "restarted") for line in own]
            between = sum(  # from the end of an attempt to the next one's beginning
                now["elapsed"] - before["elapsed"]
                for before, now, begin in zip(own, own[1:], begins[1:], strict=False)
                if begin
            )
            expected = own[-1]["elapsed"] - own[0]["elapsed"] - between
            assert row["seconds"] == pytest.approx(expected)
            assert {name: row[name] for name in own[0]["config"]} == own[0]["config"]
        assert trials["learning_rate"].tolist() == [0.01, 0.02, 1e-6, 1e6, 0.03]
        assert trials["iterations"].tolist() == [12] * 5  # as configured, not as done
        assert trials["iteration"].tolist() == [12, 12, 4, 4, 4]
        assert trials["reason"].tolist()[-1] == "ValueError: on purpose"
        assert trials["worker"].tolist() == ["host:1", "host:2", "host:1", "host:1", "host:2"]

    def test_the_metrics_at_the_best_are_of_that_report(self, finished):
        trials = Results.open(finished.path).trials.set_index("trial")
        for line in lines_of(finished):
            if line["kind"] == "report" and line["iteration"] == 12:
                metrics, row = line["metrics"], trials.loc[line["trial"]]
                assert row["best_iteration"] == 12
                for name in ("val_perplexity", "val_token_accuracy", "loss"):
                    assert row[name] == metrics[name]

    def test_weights_are_of_the_best_report(self, finished):
        trials = Results.open(finished.path).trials
        assert trials["weights"].isna().tolist() == [False, False, False, True, False]
        for _, row in trials[trials["weights"].notna()].iterrows():
            checkpoint = read_checkpoint(Path(row["weights"]))
            assert checkpoint["iteration"] == row["best_iteration"]
            assert checkpoint["best_val_loss"] == row["val_loss"]
            assert Path(row["weights"]) == best_file(finished.path, row["trial"])

    def test_searched_fields_come_first_of_the_configuration(self, finished):
        results = Results.open(finished.path)
        columns = results.trials.columns.tolist()
        assert results.searched == ["learning_rate"]
        others = [columns.index(n) for n in ("hidden_size", "iterations", "device")]
        assert columns.index("learning_rate") < min(others)
        assert len(set(columns)) == len(columns)

    def test_dtypes(self, finished):
        types = Results.open(finished.path).trials.dtypes.astype(str).to_dict()
        for name in ("trial", "best_iteration", "iteration", "attempts"):
            assert types[name] == "Int64", name
        for name in ("val_loss", "last_val_loss", "loss", "seconds", "learning_rate"):
            assert types[name] == "float64", name
        for name in ("hidden_size", "iterations"):
            assert types[name] == "int64", name
        for name in ("state", "worker", "device", "reason"):
            assert types[name] in ("str", "object"), name

    def test_a_restarted_trial_equals_one_that_never_was(self, finished, tmp_path, tiny_data):
        quiet = make_experiment(tmp_path, tiny_data)
        drive(quiet, tiny_data, {k: v for k, v in FAILURES.items() if k[0] != 1})
        columns = ["trial", "state", "val_loss", "best_iteration", "last_val_loss", "iteration"]
        pd.testing.assert_frame_equal(
            Results.open(quiet.path).trials[columns], Results.open(finished.path).trials[columns]
        )


class TestBest:
    ROWS = (
        *(proposed(0, 1.0), proposed(1, 2.0), proposed(2, 3.0)),
        *(reported(0, 1, val_loss=3.0), reported(0, 2, val_loss=2.0)),
        *(reported(1, 1, val_loss=2.5), reported(2, 1, state="diverged", diverged_loss=None)),
        *(reported(0, 3, val_loss=2.75), reported(0, 4, "finished", val_loss=2.5)),
        *(reported(1, 2, val_loss=float("nan")), reported(1, 3, "stopped", val_loss=2.25)),
    )

    def test_is_the_running_minimum_not_the_last(self, by_hand):
        results = Results.open(by_hand(self.ROWS).path)
        best = results.best()
        assert (best["trial"], best["val_loss"], best["best_iteration"]) == (0, 2.0, 2)
        assert (best["last_val_loss"], best["iteration"]) == (2.5, 4)
        assert results.ranked()["trial"].tolist() == [0, 1]
        assert results.trials["clip"].tolist() == [1.0, 2.0, 3.0]

    def test_a_goal_to_maximise(self, by_hand):
        rows = [
            *(proposed(0), proposed(1), proposed(2)),
            *(reported(0, 1, val_token_accuracy=0.5), reported(0, 2, val_token_accuracy=0.25)),
            *(reported(1, 1, val_token_accuracy=0.625, val_loss=4.0), reported(2, 1)),
        ]
        metric = {"name": "val_token_accuracy", "goal": "maximize"}
        results = Results.open(by_hand(rows, metric).path)
        assert results.objective == "val_token_accuracy"
        assert not results.ascending
        assert results.ranked()["trial"].tolist() == [1, 0]
        assert results.best()["val_token_accuracy"] == 0.625
        assert results.best()["val_loss"] == 4.0

    def test_equal_values_go_to_the_earlier_trial(self, by_hand):
        rows = [proposed(0), proposed(1), reported(1, 1, val_loss=2.0), reported(0, 1, val_loss=2)]
        assert Results.open(by_hand(rows).path).best()["trial"] == 0

    def test_superseded_reports_do_not_count(self, by_hand):
        """Attempt 2 was restored to iteration 2: what attempt 1 reported at 3 never was."""
        rows = [
            *(proposed(0), reported(0, 1, val_loss=3.0), reported(0, 2, val_loss=2.5)),
            reported(0, 3, val_loss=1.0),
            *(reported(0, 2, attempt=2, val_loss=2.5), reported(0, 3, attempt=2, val_loss=2.75)),
        ]
        results = Results.open(by_hand(rows).path)
        assert results.best()["val_loss"] == 2.5
        assert results.history["val_loss"].tolist() == [3.0, 2.5, 2.75]
        assert results.history["attempt"].tolist() == [1, 2, 2]

    def test_no_result_yet(self, by_hand):
        results = Results.open(by_hand([proposed(0), reported(0, 1, state="diverged")]).path)
        with pytest.raises(ExperimentError, match="hand: no trial has a result yet"):
            results.best()
        assert results.ranked().empty


class TestHistory:
    def test_one_row_for_each_report_that_stands(self, finished):
        history = Results.open(finished.path).history
        curves = curves_of(finished)
        expected = [(trial, i) for trial, curve in curves.items() for i in sorted(curve)]
        assert list(zip(history["trial"], history["iteration"], strict=True)) == expected
        assert history["attempt"].tolist()[3:6] == [2, 2, 2]  # trial 1, all superseded
        values = [value for curve in curves.values() for value in curve.values()]
        assert history["val_loss"].isna().tolist() == [v is None for v in values]
        assert history["val_loss"].dropna().tolist() == [v for v in values if v is not None]

    def test_dtypes_and_times(self, finished):
        history = Results.open(finished.path).history
        types = history.dtypes.astype(str).to_dict()
        assert [types[n] for n in ("trial", "attempt", "iteration")] == ["Int64"] * 3
        assert types["time"].startswith("datetime64[") and types["time"].endswith(", UTC]")
        metrics = set(types) - {"trial", "attempt", "iteration", "time", "decision", "worker"}
        assert {types[name] for name in metrics} == {"float64"}
        assert {"loss", "val_loss", "grad_norm", "tokens_per_second", "epoch"} <= metrics
        seconds = [line["time"] for line in lines_of(finished) if line["kind"] == "report"]
        assert history["time"].max().timestamp() == pytest.approx(max(seconds), abs=1e-3)


class TestReading:
    def test_by_directory_name_and_latest(self, experiment):
        storage = experiment.path.parent
        for reference in (experiment.path, str(experiment.path), "small", "latest"):
            assert Results.open(reference, storage).experiment.path == experiment.path

    def test_compacted_reads_the_same(self, experiment):
        before = Results.open(experiment.path)
        trials, history = before.trials, before.history
        compact(experiment.journal)
        assert [p.name for p in experiment.journal.iterdir()] == ["compacted.parquet"]
        after = Results.open(experiment.path)
        pd.testing.assert_frame_equal(after.trials, trials)
        pd.testing.assert_frame_equal(after.history, history)

    def test_a_torn_last_row_is_skipped_and_named(self, experiment):
        segment = experiment.journal / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        count = len(Results.open(experiment.path).rows)
        segment.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])  # "ended", and half a row
        torn = Results.open(experiment.path)
        assert torn.torn == [str(segment)]
        assert len(torn.rows) == count - 2
        assert torn.trials["state"].tolist()[-1] == "interrupted"

    def test_every_prefix_of_a_journal_can_be_read(self, experiment):
        """What a reader sees at any moment of a running search."""
        segment = experiment.journal / "000001.jsonl"
        content = segment.read_bytes()
        for size in range(0, len(content), 997):
            segment.write_bytes(content[:size])
            results = Results.open(experiment.path)
            assert len(results.trials) <= 5
            assert len(results.history) <= len(results.rows)

    def test_a_damaged_row_is_left_out_and_named(self, experiment):
        """But a search does not go on from it."""
        segment = experiment.journal / "000001.jsonl"
        whole = Results.open(experiment.path)
        count = len(whole.rows)
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join([*lines[:3], b"{damaged\n", *lines[4:]]))
        results = Results.open(experiment.path)
        assert results.problems[0].startswith(f"{segment}:4: damaged row: ")
        assert len(results.history) == len(whole.history) - 1
        assert len(results.rows) == count - 1
        assert len(results.trials) == len(whole.trials)
        with pytest.raises(ExperimentError, match=r"000001.jsonl:4: damaged row"):
            read_journal(experiment.journal)

    def test_no_trials_yet(self, by_hand):
        results = Results.open(by_hand([]).path)
        for frame in (results.trials, results.history, results.ranked()):
            assert len(frame) == 0
        expected = ["trial", "state", "val_loss", "best_iteration", "last_val_loss", "clip"]
        assert set(expected) <= set(results.trials)
        assert str(results.trials["val_loss"].dtype) == "float64"
        with pytest.raises(ExperimentError, match="no trial has a result yet"):
            results.best()

    def test_no_journal_yet(self, tmp_path, tiny_data):
        experiment = make_experiment(tmp_path, tiny_data)
        assert not experiment.journal.exists()
        assert Results.open(experiment.path).trials.empty

    def test_a_running_search_is_read_without_disturbing_it(self, tmp_path, tiny_data, locked):
        """Its open trial is running; once its driver is dead, it is interrupted."""
        experiment = make_experiment(tmp_path, tiny_data)
        with pytest.raises(Killed):
            drive(experiment, tiny_data, reports=2)
        assert Results.open(experiment.path).trials["state"].tolist() == ["interrupted"]
        locked(experiment)
        results = Results.open(experiment.path)
        assert results.trials["state"].tolist() == ["running"]
        assert results.trials["iteration"].tolist() == [8]
        assert results.best()["trial"] == 0
        with pytest.raises(ExperimentError, match="is being run by"):
            experiment.lock()

    def test_unknown(self, experiment):
        with pytest.raises(ExperimentError, match="smal: unknown experiment, did you mean 'small'"):
            Results.open("smal", experiment.path.parent)

    def test_needs_no_ray(self, finished):
        """On a laptop: neither Ray nor W&B is loaded."""
        code = (
            "import sys; sys.modules['ray'] = sys.modules['wandb'] = None\n"
            "from analysis import Results\n"
            f"print(Results.open({str(finished.path)!r}).best()['trial'])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert int(result.stdout) == Results.open(finished.path).best()["trial"]


def test_the_package_exports_what_it_says():
    assert set(analysis.__all__) == {"Results", "compare", "confirm", "promote"}
    assert all(hasattr(analysis, name) for name in analysis.__all__)
