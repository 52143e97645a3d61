"""``python -m analysis``: tables, files, promotion, and the exit status."""

import io
import os
import shutil

import pandas as pd
import pytest

from analysis import Results
from model.model_directory import load
from tests.analysis.conftest import proposed, reported, run


def rows_of(text):
    """The cells of a printed table, without its heading, up to the first empty line."""
    lines = text.split("\n\n")[0].splitlines()
    return [line.split() for line in lines[2:]]


class TestResults:
    def test_the_best_first_and_those_without_a_value_last(self, finished, capsys):
        assert run("results", finished.path) == 0
        out = capsys.readouterr().out
        results = Results.open(finished.path)
        assert out.splitlines()[0].split() == [
            *("trial", "state", "val_loss", "best_iteration", "iteration", "seconds"),
            *("learning_rate", "attempts"),
        ]
        expected = [str(trial) for trial in results.ranked()["trial"]]
        assert [row[0] for row in rows_of(out)] == [*expected, "3"]
        assert rows_of(out)[-1][1:5] == ["diverged", "-", "-", "4"]
        by_trial = {row[0]: row for row in rows_of(out)}
        assert by_trial["1"][1] == "finished"
        assert by_trial["1"][3:5] == ["12", "12"]
        assert by_trial["1"][6:] == ["0.02", "2"]
        assert "5 trials: 2 finished, 1 stopped early, 1 diverged, 1 failed" in out

    def test_says_how_far_below_a_unigram_model(self, finished, capsys):
        run("results", finished.path)
        out = capsys.readouterr().out
        best = Results.open(finished.path).best()["val_loss"]
        unigram = finished.manifest["data"]["unigram_val_loss"]
        share = f"{100 * (1 - best / unigram):.0f} % below"
        assert f"best val_loss {best:.4f} nats a token, {share} a unigram model's" in out

    def test_above_is_not_called_below(self, by_hand, capsys):
        experiment = by_hand([proposed(0), reported(0, 1, val_loss=100.0)])
        run("results", experiment.path)
        assert " % above a unigram model's" in capsys.readouterr().out

    def test_large_iterations_are_printed_whole(self, by_hand, capsys):
        rows = [proposed(0), reported(0, 123_456, val_loss=2.0), proposed(1)]
        run("results", by_hand(rows).path)
        first, second = rows_of(capsys.readouterr().out)
        assert first[:5] == ["0", "interrupted", "2", "123456", "123456"]
        assert second[:5] == ["1", "interrupted", "-", "-", "0"]

    def test_top(self, finished, capsys):
        assert run("results", finished.path, "--top", "2") == 0
        out = capsys.readouterr().out
        expected = [str(trial) for trial in Results.open(finished.path).ranked()["trial"][:2]]
        assert [row[0] for row in rows_of(out)] == expected
        assert "5 trials: " in out

    def test_no_trials(self, by_hand, capsys):
        assert run("results", by_hand([]).path) == 0
        assert capsys.readouterr().out == "hand: no trials yet.\n"

    def test_no_values(self, by_hand, capsys):
        assert run("results", by_hand([proposed(0)]).path) == 0
        assert rows_of(capsys.readouterr().out)[0][:3] == ["0", "interrupted", "-"]

    def test_another_objective(self, by_hand, capsys):
        rows = [proposed(0), reported(0, 1, val_token_accuracy=0.25)]
        metric = {"name": "val_token_accuracy", "goal": "maximize"}
        assert run("results", by_hand(rows, metric).path) == 0
        out = capsys.readouterr().out
        assert out.split()[2] == "val_token_accuracy"
        assert "unigram" not in out

    def test_a_torn_last_row_is_mentioned(self, experiment, capsys):
        segment = experiment.journal / "000001.jsonl"
        segment.write_bytes(segment.read_bytes()[:-5])
        assert run("results", experiment.path) == 0
        assert f"note: skipped the torn last line of {segment}\n" in capsys.readouterr().err

    def test_history(self, finished, capsys):
        assert run("results", finished.path, "--history") == 0
        history = Results.open(finished.path).history
        assert len(rows_of(capsys.readouterr().out)) == len(history)

    def test_by_name_in_a_storage_directory(self, experiment, capsys):
        storage = experiment.path.parent
        for name in ("small", "latest"):
            assert run("results", name, "--storage", storage) == 0


class TestFiles:
    @pytest.mark.parametrize("history", [False, True])
    def test_parquet(self, finished, tmp_path, capsys, history):
        file = tmp_path / "new" / "r.parquet"
        option = ["--history"] if history else []
        assert run("results", finished.path, "--parquet", file, *option) == 0
        assert capsys.readouterr().out == f"wrote {file}\n"
        results = Results.open(finished.path)
        expected = results.history if history else results.trials
        pd.testing.assert_frame_equal(
            pd.read_parquet(file), expected, check_dtype=True, check_column_type=False
        )

    @pytest.mark.parametrize("history", [False, True])
    def test_csv(self, finished, tmp_path, capsys, history):
        """Every figure to the last digit."""
        file = tmp_path / "r.csv"
        option = ["--history"] if history else []
        assert run("results", finished.path, "--csv", file, *option) == 0
        assert capsys.readouterr().out == f"wrote {file}\n"
        results = Results.open(finished.path)
        expected = results.history if history else results.trials
        read = pd.read_csv(file)
        assert read.columns.tolist() == expected.columns.tolist()
        assert len(read) == len(expected)
        for name in expected.select_dtypes("number"):
            ours = expected[name].astype("float64")
            pd.testing.assert_series_equal(
                read[name].astype("float64"), ours, check_exact=True, check_dtype=False
            )

    def test_both_at_once_and_of_no_trials(self, by_hand, tmp_path):
        csv, parquet = tmp_path / "r.csv", tmp_path / "r.parquet"
        path = by_hand([]).path
        assert run("results", path, "--csv", csv, "--parquet", parquet) == 0
        assert len(pd.read_csv(csv)) == len(pd.read_parquet(parquet)) == 0
        assert "val_loss" in pd.read_csv(csv)
        assert run("results", path, "--history", "--parquet", parquet) == 0
        assert len(pd.read_parquet(parquet)) == 0

    @pytest.mark.parametrize("option", ["--csv", "--parquet"])
    def test_a_place_that_cannot_be_written(self, finished, capsys, option):
        assert run("results", finished.path, option, "/proc/x/r") == 2
        captured = capsys.readouterr()
        assert captured.err == ("error: /proc/x/r: cannot be written: no such file or directory.\n")
        assert captured.out == ""

    def test_a_full_disk_leaves_the_old_file(self, finished, tmp_path, monkeypatch, capsys):
        file = tmp_path / "r.csv"
        file.write_text("old")

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        assert run("results", finished.path, "--csv", file) == 2
        assert "no space is left on the device" in capsys.readouterr().err
        assert file.read_text() == "old"
        assert list(tmp_path.iterdir()) == [file]


class TestBest:
    def test_every_field_of_it(self, finished, capsys):
        assert run("best", finished.path) == 0
        best = Results.open(finished.path).best()
        rows = dict(
            line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:] if line
        )
        assert set(rows) == set(best.index)
        assert rows["trial"] == str(best["trial"])
        assert rows["val_loss"] == f"{best['val_loss']:.4g}"
        assert rows["weights"] == best["weights"]
        assert rows["best_iteration"] == "12"

    def test_none(self, by_hand, capsys):
        assert run("best", by_hand([proposed(0)]).path) == 2
        assert "hand: no trial has a result yet." in capsys.readouterr().err


class TestPromote:
    def test_says_how_to_talk_to_it(self, finished, tmp_path, capsys):
        assert run("promote", finished.path, "--name", "m", "--registry", tmp_path) == 0
        figures, *rest = capsys.readouterr().out.splitlines()
        assert rest == [
            f"promoted to {tmp_path}/m/1 (m:1, m@production)",
            f"talk to it: python -m model chat m --registry {tmp_path}",
        ]
        bot = load("m", tmp_path)
        assert bot.manifest["lineage"]["experiment"] == "small"
        assert figures.startswith(
            f"trial 1, iteration 12: val_loss {bot.metrics['val_loss']:.4f} "
            f"over all of validation, test_loss {bot.metrics['test_loss']:.4f}"
        )

    def test_trial_and_alias(self, finished, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert run("promote", finished.path, "--trial", "0", "--alias", "test") == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            "promoted to registry/small/1 (small:1, small@test)",
            "talk to it: python -m model chat small@test",
        ]
        assert load("small@test").manifest["lineage"]["trial"] == 0

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--trial", "3"], "trial 3 (diverged) has no weights."),
            (["--trial", "99"], "no trial 99; there are trials 0 to 4."),
            (["--name", "a/b"], "'a/b': cannot name a model; use letters"),
            (["--trial", "x"], "argument --trial: invalid int value: 'x'"),
        ],
    )
    def test_refusals(self, finished, tmp_path, capsys, arguments, text):
        assert run("promote", finished.path, *arguments, "--registry", tmp_path / "r") == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "r").exists()


class TestRefusals:
    @pytest.mark.parametrize("command", ["results", "best", "promote"])
    def test_an_unknown_experiment(self, experiment, capsys, command):
        assert run(command, "smll", "--storage", experiment.path.parent) == 2
        captured = capsys.readouterr()
        assert captured.err == "error: smll: unknown experiment, did you mean 'small'?\n"
        assert captured.out == ""

    def test_an_empty_storage(self, tmp_path, capsys):
        assert run("results", "latest", "--storage", tmp_path) == 2
        err = capsys.readouterr().err
        assert f"There are none in {tmp_path}; start one: python -m tuning run FILE" in err

    @pytest.mark.parametrize("command", ["results", "best", "promote"])
    def test_a_damaged_journal(self, experiment, capsys, command):
        (experiment.journal / "000001.jsonl").write_text('{"format": 1}\nnonsense\n')
        assert run(command, experiment.path) == 2
        assert "000001.jsonl:2: damaged row: " in capsys.readouterr().err

    def test_a_newer_journal(self, experiment, capsys):
        (experiment.journal / "000001.jsonl").write_text('{"format": 99}\n')
        assert run("results", experiment.path) == 2
        assert "has format 99, written by a newer version" in capsys.readouterr().err

    def test_a_damaged_compacted_journal(self, experiment, capsys):
        shutil.rmtree(experiment.journal)
        experiment.journal.mkdir()
        (experiment.journal / "compacted.parquet").write_bytes(b"PAR1 nonsense PAR1")
        assert run("results", experiment.path) == 2
        assert "compacted.parquet: damaged: " in capsys.readouterr().err

    @pytest.mark.parametrize("top", ["0", "-1", "few"])
    def test_top_must_be_a_number(self, finished, capsys, top):
        assert run("results", finished.path, "--top", top) == 2
        expected = f"must be a whole number of at least 1, but got '{top}'"
        assert expected in capsys.readouterr().err

    def test_no_command(self, capsys):
        assert run() == 2
        assert "usage: python -m analysis" in capsys.readouterr().err


def test_the_csv_is_what_pandas_reads_by_itself(finished):
    trials = Results.open(finished.path).trials
    read = pd.read_csv(io.StringIO(trials.to_csv(index=False)))
    assert read["state"].tolist() == trials["state"].tolist()
