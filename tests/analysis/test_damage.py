"""Damaged and partial experiments give what can be given, and say what is missing."""

import shutil

import pytest

from analysis import Results
from analysis.__main__ import main
from analysis.completeness import named
from model.cli import run_main
from model.errors import ExperimentError
from tests.analysis.conftest import Killed, drive, make_experiment, proposed, reported
from tuning.journal import compact
from tuning.trials.trial_files import TrialFiles, best_file


def problems(experiment):
    return Results.open(experiment.path).problems


def say(capsys, *arguments):
    """Runs a command that has something to show; what it says of problems."""
    assert run_main(main, [str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.out
    return captured.err


def test_a_whole_one_has_no_problems(finished):
    assert problems(finished) == []


class TestFiles:
    def test_missing_weights(self, experiment, capsys):
        for trial in (0, 2):
            best_file(experiment.path, trial).unlink()
        text = "the best weights are missing, so they cannot be promoted: trials 0 and 2."
        assert problems(experiment) == [text]
        results = Results.open(experiment.path)
        assert results.trials["weights"].isna().tolist() == [True, False, True, True, False]
        assert len(results.ranked()) == 4
        assert say(capsys, "results", experiment.path) == f"note: {text}\n"
        assert say(capsys, "best", experiment.path) == f"note: {text}\n"
        registry = ("--name", "bot", "--registry", experiment.path / "registry")
        promoted = say(capsys, "promote", experiment.path, *registry, "--wandb", "disabled")
        assert promoted == f"note: {text}\n"
        assert say(capsys, "ranking", experiment.path) == f"note: {text}\n"

    def test_no_files_of_trials_at_all(self, experiment):
        """Only the small files were copied."""
        shutil.rmtree(experiment.path / "trials")
        (text,) = problems(experiment)
        assert text.endswith("cannot be promoted: trials 0, 1 and 2.")

    def test_damaged_weights_are_found_on_request(self, experiment, capsys):
        file = best_file(experiment.path, 1)
        content = bytearray(file.read_bytes())
        content[-100] ^= 1
        file.write_bytes(content)
        results = Results.open(experiment.path)
        assert results.problems == []
        expected = f"{file}: is damaged: its contents do not match their digest."
        assert results.verify() == [expected]
        assert say(capsys, "results", experiment.path, "--verify") == f"note: {expected}\n"

    def test_whole_weights_are_verified(self, finished, capsys):
        assert run_main(main, ["results", str(finished.path), "--verify"]) == 0
        assert "verified: 0 damaged" in capsys.readouterr().out

    def test_missing_data(self, experiment, capsys):
        experiment.data_file.unlink()
        (text,) = problems(experiment)
        assert text == (
            f"{experiment.path}/data.safetensors: the data set is missing: nothing can be "
            "promoted, and the search cannot go on."
        )
        assert text in say(capsys, "results", experiment.path)

    def test_missing_journal(self, experiment, capsys):
        shutil.rmtree(experiment.journal)
        text = f"{experiment.journal}: there is no journal: no trial has begun, or it was lost."
        assert problems(experiment) == [text]
        assert say(capsys, "results", experiment.path) == f"note: {text}\n"

    def test_a_checkpoint_to_go_on_from(self, tmp_path, tiny_data):
        experiment = make_experiment(tmp_path, tiny_data)
        with pytest.raises(Killed):
            drive(experiment, tiny_data, reports=2)
        results = Results.open(experiment.path)
        newest = TrialFiles(experiment.path, 0).checkpoints()[0]
        assert results.trials["checkpoint"].tolist() == [str(newest)]
        assert results.problems == ["of 1 trial none has finished."]
        for file in TrialFiles(experiment.path, 0).checkpoints():
            file.unlink()
        assert problems(experiment)[1:] == [
            "interrupted and without a checkpoint, so a resume trains them anew: trial 0."
        ]

    def test_a_damaged_checkpoint_is_found_on_request(self, tmp_path, tiny_data):
        experiment = make_experiment(tmp_path, tiny_data)
        with pytest.raises(Killed):
            drive(experiment, tiny_data, reports=2)
        newest = TrialFiles(experiment.path, 0).checkpoints()[0]
        newest.write_bytes(newest.read_bytes()[:-9])
        (text,) = Results.open(experiment.path).verify()
        assert text.startswith(f"{newest}: is damaged")


class TestTrials:
    def test_without_a_report(self, by_hand, capsys):
        from dataclasses import replace

        failed = replace(proposed(1), kind="failed", state="failed", reason="boom")
        experiment = by_hand([proposed(0), reported(0, 1, "stopped", val_loss=2.0), proposed(1)])
        assert "ended without a report" not in str(problems(experiment))
        experiment = by_hand([proposed(0), proposed(1), failed], name="other")
        results = Results.open(experiment.path)
        assert results.trials["clip"].tolist() == [1.0, 1.0]
        assert results.trials["iteration"].tolist() == [0, 0]
        assert results.trials["val_loss"].isna().all()
        assert results.problems == [
            "of 2 trials none has finished.",
            "ended without a report: trial 1.",
        ]
        assert "ended without a report: trial 1." in say(capsys, "results", experiment.path)

    def test_none_has_finished(self, by_hand, capsys):
        experiment = by_hand([proposed(0), reported(0, 1, val_loss=3.0)])
        assert problems(experiment)[0] == "of 1 trial none has finished."
        assert Results.open(experiment.path).best()["trial"] == 0
        say(capsys, "results", experiment.path)

    def test_a_lost_proposal(self, experiment):
        """The trial's reports have its configuration too."""
        segment = experiment.journal / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        place = next(
            i for i, line in enumerate(lines) if b'"proposed"' in line and b'trial":1' in line
        )
        lines[place] = b"{}\n"
        segment.write_bytes(b"".join(lines))
        results = Results.open(experiment.path)
        (text,) = results.problems
        assert text == f"{segment}:{place + 1}: damaged row: it has no 'kind'."
        assert results.trials["learning_rate"].tolist() == [0.01, 0.02, 1e-6, 1e6, 0.03]

    def test_a_lost_configuration_is_not_made_up(self, experiment):
        """Nor taken from the defaults where the sweep has another constant."""
        import pyarrow.parquet as pq

        compact(experiment.journal)
        file = experiment.journal / "compacted.parquet"
        pq.write_table(pq.read_table(file).drop_columns(["config"]), file)
        results = Results.open(experiment.path)
        assert results.trials["learning_rate"].isna().all()
        assert results.trials["hidden_size"].tolist() == [16] * 5
        assert results.problems == [
            "the configuration is lost: trials 0, 1, 2, 3 and 4.",
        ]


class TestJournal:
    def test_a_torn_last_row(self, experiment, capsys):
        segment = experiment.journal / "000001.jsonl"
        segment.write_bytes(segment.read_bytes()[:-5])
        assert problems(experiment) == [f"skipped the torn last line of {segment}"]
        assert "skipped the torn last line" in say(capsys, "results", experiment.path)

    def test_a_damaged_row(self, experiment, capsys):
        segment = experiment.journal / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join([*lines[:3], b"{damaged\n", *lines[4:]]))
        (text,) = problems(experiment)
        assert text.startswith(f"{segment}:4: damaged row: ")
        assert text in say(capsys, "results", experiment.path)

    def test_nothing_of_it_can_be_read(self, experiment, capsys):
        shutil.rmtree(experiment.journal)
        experiment.journal.mkdir()
        (experiment.journal / "compacted.parquet").write_bytes(b"PAR1 nonsense PAR1")
        with pytest.raises(ExperimentError, match="compacted.parquet: damaged: "):
            Results.open(experiment.path)

    def test_overhead_still_says_where_the_time_went(self, experiment, capsys):
        segment = experiment.journal / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join([*lines[:3], b"{damaged\n", *lines[4:]]))
        say(capsys, "overhead", experiment.path)


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        ([], ""),
        ([3], "trial 3"),
        ([3, 5], "trials 3 and 5"),
        ([1, 2, 3], "trials 1, 2 and 3"),
        (range(12), "trials 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_trials_are_named_as_people_do(trials, text):
    assert named(list(trials)) == text
