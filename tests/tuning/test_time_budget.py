"""A search that ends when its time is over: durations, the clock, and with a real Ray."""

import math
import time

import pytest
import yaml

from analysis import Results
from analysis.__main__ import main as analysis
from model.errors import ConfigurationError
from tests.conftest import exit_status
from tests.tuning.ray_support import (
    check_resumed,
    command,
    finish,
    sweep_mapping,
)
from tuning.__main__ import main
from tuning.journal import read_journal
from tuning.launch import is_complete, resume, run
from tuning.time_budget import TimeBudget, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("45m", 2700),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d12h", 129600),
        ("1h0m5s", 3605),
        ("1.5h", 5400),
        ("0.5s", 0.5),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "90", "0s", "0h0m", "-5m", "1 h", "5M", "30m1h", "1h1h", "h", "1e3s", ".5h", "inf"),
        *("٣s", "9" * 400 + "d"),
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a duration longer than 0, such as 90s, 45m, 2h"):
        parse_duration(text)


def test_the_command_line_refuses_it(capsys):
    assert exit_status(main, "resume", "x", "--time-budget", "90") == 2
    said = capsys.readouterr().err
    assert "argument --time-budget: must be a duration longer than 0" in said
    assert "but got '90'" in said


@pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan])
def test_the_functions_refuse_it(seconds):
    with pytest.raises(ConfigurationError, match="time_budget: must be a number of seconds"):
        run("nowhere.yaml", time_budget=seconds)


def test_the_clock():
    now = 100.0
    budget = TimeBudget(5.0, started=100.0, clock=lambda: now)
    assert not budget.over
    now = 104.9
    assert not budget.over
    now = 105.0
    assert budget.over
    assert not TimeBudget(None, started=0.0, clock=lambda: now).over


class OverAfter(TimeBudget):
    """A budget that is over once the journal has so many reports, however fast the machine is."""

    journal, reports = None, 0

    @property
    def over(self):
        rows = read_journal(self.journal).rows if self.journal.is_dir() else []
        return sum(row.kind == "report" for row in rows) >= self.reports


@pytest.mark.ray
# Ray leaves sockets and file descriptors to the garbage collector when it shuts down.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_was_running_is_gone_on_with(search, tmp_path, monkeypatch):
    monkeypatch.setattr(OverAfter, "journal", tmp_path / "runs" / "search" / "journal")
    monkeypatch.setattr(OverAfter, "reports", 9)
    with monkeypatch.context() as patch:
        patch.setattr("tuning.launch.TimeBudget", OverAfter)
        experiment = search(trials=4, concurrency=1, time_budget=100)
    assert not is_complete(experiment)
    assert not experiment.is_running()
    rows = read_journal(experiment.journal).rows
    assert (rows[-1].kind, rows[-1].reason) == ("ended", "time budget")
    assert len({row.trial for row in rows} - {None}) <= 3, "nothing was begun once it was over"
    states = Results.open(experiment.path).trials["state"].tolist()
    assert states[0] == "finished"
    assert states[-1] == "interrupted"
    assert not [row for row in rows if row.kind == "failed"], "no trial is to blame"

    assert is_complete(resume(experiment.path, time_budget=10_000))
    results = Results.open(experiment.path)
    assert results.trials["state"].tolist() == ["finished"] * 4
    check_resumed(results)


@pytest.mark.slow
@pytest.mark.ray
def test_the_command_ends_in_time_with_status_0_and_its_best_can_be_promoted(
    corpus, tmp_path, capsys
):
    """An hour's trials; the budget counts from the start of the command."""
    storage, file = tmp_path / "runs", tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_mapping(corpus, iterations=1_000_000)), encoding="utf-8")
    options = ("--name", "search", "--storage", storage, "--concurrency", 1, "--trials", 3)
    before = time.monotonic()
    process = command("run", file, *options, "--wandb", "disabled", "--time-budget", "0m40s")
    output = finish(process, timeout=180)
    assert process.returncode == 0, output
    assert time.monotonic() - before >= 40
    assert "the time budget of 0:40 is over: stopping; all is kept" in output
    assert f"the time budget of 0:40 is over; everything is kept in {storage / 'search'}" in output
    assert f"go on: python -m tuning resume search --storage {storage}" in output
    assert "Traceback" not in output
    assert exit_status(main, "list", "--storage", storage) == 0
    assert "interrupted" in capsys.readouterr().out
    registry = ("--registry", tmp_path / "registry", "--storage", storage)
    assert exit_status(analysis, "promote", "search", "--name", "bot", *registry) == 0


@pytest.mark.slow
@pytest.mark.ray
def test_no_result_in_time_is_status_1(corpus, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_mapping(corpus)), encoding="utf-8")
    options = ("--name", "search", "--storage", tmp_path, "--wandb", "disabled", "--trials", 2)
    process = command("run", file, *options, "--time-budget", "0.1s")
    output = finish(process)
    assert process.returncode == 1, output
    assert output.endswith("no trial has a result yet\n")
