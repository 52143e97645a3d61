"""``results`` with filters and formats, and ``compare``, on the command line."""

import io
import json
import math

import pandas as pd
import pytest

from analysis import Results
from analysis.comparison import compare
from tests.analysis.conftest import drive, make_experiment, proposed, reported, run


def out(capsys, *arguments):
    """What a command prints; it ends well and has nothing to note."""
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def first_cells(text):
    return [line.split()[0] for line in text.split("\n\n")[0].splitlines()[2:]]


class TestSelection:
    def test_where(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--where", "learning_rate > 0.015")
        assert sorted(first_cells(text)) == ["1", "3", "4"]
        assert "5 trials: " in text

    def test_state(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--state", "stopped, failed")
        assert sorted(first_cells(text)) == ["2", "4"]

    def test_sort(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--sort", "learning_rate", "--descending")
        assert first_cells(text) == ["3", "4", "1", "0", "2"]

    def test_columns(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--columns", "trial,node", "--top", "1")
        best = Results.open(finished.path).best()["trial"]
        lines = text.splitlines()
        assert lines[0].split() == ["trial", "node"]
        assert lines[2].split() == [str(best), "host"]

    def test_history(self, finished, capsys):
        arguments = ["--history", "--where", "iteration == 4 and trial in (0, 2)"]
        text = out(capsys, "results", finished.path, *arguments, "--columns", "trial,iteration")
        assert first_cells(text) == ["0", "2"]

    def test_nothing_left(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--where", "val_loss > 1000")
        assert first_cells(text) == []
        text = out(capsys, "results", finished.path, "--where", "val_loss > 99", "--format", "json")
        assert json.loads(text) == []

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--sort", "val_los"], "sort: unknown column 'val_los', did you mean 'val_loss'?"),
            (["--columns", "trail"], "columns: unknown column 'trail', did you mean 'trial'?"),
            (["--state", "stoped"], "state: unknown state 'stoped', did you mean 'stopped'?"),
            (["--where", "val_los < 3"], "where: unknown column 'val_los', did you mean"),
            (["--where", "trial.sum() > 3"], "where: has a call, which is not allowed"),
            (["--where", "trial == "], "where: cannot be read at character"),
            (["--descending"], "descending: needs a column to sort by."),
            (["--format", "xml"], "argument --format: invalid choice: 'xml'"),
            (["--format", "parquet"], "--format: parquet is not for a terminal; say --out FILE."),
            (["--out", "trials.xls"], "--out: trials.xls: of which format? End it in .txt, .csv"),
        ],
    )
    def test_refusals(self, finished, tmp_path, monkeypatch, capsys, arguments, text):
        monkeypatch.chdir(tmp_path)
        for command in (["results", finished.path], ["compare", finished.path]):
            if command[0] == "compare" and arguments == ["--descending"]:
                continue  # alone it chooses trials, in their order
            assert run(*command, *arguments) == 2
            captured = capsys.readouterr()
            assert text in captured.err
            assert captured.out == ""
        assert list(tmp_path.iterdir()) == []


class TestFormats:
    def test_csv_is_every_column_in_the_order_of_proposal(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--format", "csv")
        read = pd.read_csv(io.StringIO(text))
        trials = Results.open(finished.path).trials
        assert read.columns.tolist() == trials.columns.tolist()
        assert read["trial"].tolist() == [0, 1, 2, 3, 4]
        assert read["val_loss"].tolist()[0] == trials["val_loss"].tolist()[0]

    def test_json_is_standard(self, finished, capsys):
        text = out(capsys, "results", finished.path, "--format", "json")
        rows = json.loads(text, parse_constant=pytest.fail)
        trials = Results.open(finished.path).trials
        assert [set(row) for row in rows] == [set(trials.columns)] * 5
        assert rows[3]["val_loss"] is None
        assert rows[0]["val_loss"] == trials["val_loss"][0]
        assert rows[0]["hidden_size"] == 16
        assert pd.Timestamp(rows[0]["started"]) == trials["started"][0]

    def test_markdown(self, by_hand, capsys):
        rows = [proposed(0), reported(0, 1, "finished", val_loss=2.0), proposed(1)]
        experiment = by_hand(rows)
        columns = "trial,state,val_loss,reason"
        assert run("results", experiment.path, "--format", "markdown", "--columns", columns) == 0
        assert capsys.readouterr().out == (
            "| trial | state | val_loss | reason |\n"
            "| ---: | --- | ---: | --- |\n"
            "| 0 | finished | 2 |  |\n"
            "| 1 | interrupted |  |  |\n"
        )

    def test_markdown_escapes_what_would_break_it(self):
        from analysis.output import frame_markdown

        frame = pd.DataFrame({"a|b": ["x|y\nz\\", None]})
        assert frame_markdown(frame).splitlines() == [
            *("| a\\|b |", "| --- |", "| x\\|y z\\\\ |", "|  |"),
        ]

    @pytest.mark.parametrize("ending", ["csv", "json", "md", "txt", "parquet"])
    def test_out_takes_the_format_of_its_ending_and_is_the_same_twice(
        self, finished, tmp_path, capsys, ending
    ):
        files = [tmp_path / f"{i}.{ending}" for i in (1, 2)]
        for file in files:
            text = out(capsys, "results", finished.path, "--out", file, "--sort", "trial")
            assert text == f"wrote {file}\n"
        assert files[0].read_bytes() == files[1].read_bytes()
        names = {"md": "markdown", "txt": "table"}
        if ending == "parquet":
            trials = Results.open(finished.path).trials
            pd.testing.assert_frame_equal(
                pd.read_parquet(files[0]), trials, check_column_type=False
            )
        else:
            arguments = ["--format", names.get(ending, ending), "--sort", "trial"]
            printed = out(capsys, "results", finished.path, *arguments)
            assert printed.startswith(files[0].read_text())

    def test_format_wins_over_the_ending(self, finished, tmp_path):
        file = tmp_path / "trials.data"
        assert run("results", finished.path, "--format", "json", "--out", file) == 0
        assert len(json.loads(file.read_text())) == 5

    def test_csv_and_parquet_options_take_the_selection(self, finished, tmp_path):
        file = tmp_path / "r.csv"
        assert run("results", finished.path, "--csv", file, "--state", "finished") == 0
        assert pd.read_csv(file)["trial"].tolist() == [0, 1]

    def test_a_place_that_cannot_be_written(self, finished, capsys):
        assert run("results", finished.path, "--out", "/proc/x/r.json") == 2
        captured = capsys.readouterr()
        assert (
            captured.err == "error: /proc/x/r.json: cannot be written: no such file or directory.\n"
        )
        assert captured.out == ""


class TestCompare:
    @pytest.fixture
    def pair(self, finished, tmp_path, tiny_data):
        other = make_experiment(tmp_path, tiny_data, name="other")
        drive(other, tiny_data, {})
        return [finished.path, other.path]

    def test_summary_side_by_side(self, pair, capsys):
        text = out(capsys, "compare", *pair)
        rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:]}
        assert text.splitlines()[0].split() == ["small", "other"]
        assert rows["trials"] == ["5", "5"]
        assert rows["failed"] == ["1", "0"]
        best = compare(pair).summary["best"]
        assert rows["best"] == [f"{value:.4g}" for value in best]
        assert rows["best_configuration"][:2] == ['{"learning_rate":', "0.02}"]

    def test_summary_as_json(self, pair, capsys):
        found = json.loads(out(capsys, "compare", *pair, "--format", "json"))
        assert [row["experiment"] for row in found] == ["small", "other"]
        assert all(math.isfinite(row["worker_hours"]) for row in found)

    def test_trials_together(self, pair, capsys):
        text = out(capsys, "compare", *pair, "--trials")
        assert text.splitlines()[0].split()[:4] == ["experiment", "trial", "state", "val_loss"]
        assert sorted(first_cells(text)) == ["other"] * 5 + ["small"] * 5
        values = [
            float(line.split()[3]) for line in text.splitlines()[2:-1] if line.split()[3] != "-"
        ]
        assert values == sorted(values)

    def test_a_choice_means_trials(self, pair, capsys):
        text = out(capsys, "compare", *pair, "--top", "3", "--format", "csv")
        assert len(pd.read_csv(io.StringIO(text))) == 3

    def test_to_a_file(self, pair, tmp_path, capsys):
        file = tmp_path / "both.parquet"
        assert out(capsys, "compare", *pair, "--trials", "--out", file) == f"wrote {file}\n"
        assert pd.read_parquet(file)["experiment"].tolist() == ["small"] * 5 + ["other"] * 5

    def test_what_cannot_be_compared_is_said(self, by_hand, finished, capsys):
        metric = {"name": "val_token_accuracy", "goal": "maximize"}
        other = by_hand([proposed(0), reported(0, 1, "finished", val_token_accuracy=0.5)], metric)
        assert run("compare", finished.path, other.path) == 0
        err = capsys.readouterr().err
        assert "note: not comparable: objectives differ (small: minimize val_loss; hand: " in err

    def test_an_unknown_one(self, finished, capsys):
        assert run("compare", finished.path, "nowhere") == 2
        assert "nowhere: unknown experiment" in capsys.readouterr().err
