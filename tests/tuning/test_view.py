import io

import pytest
from rich.console import Console

from tuning.coordinator import Coordinator, Objective
from tuning.distributions import Uniform
from tuning.journal import Journal
from tuning.journal.row import NODE_LOST, PREEMPTED
from tuning.scheduling import FifoScheduler
from tuning.searchers import RandomSearcher
from tuning.spaces.search_space import SearchSpace
from tuning.view import LiveView, duration, short


@pytest.fixture
def coordinator(tmp_path):
    space = SearchSpace({"learning_rate": Uniform(0.1, 0.2)})
    return Coordinator(
        RandomSearcher(space, seed=0),
        FifoScheduler(),
        Journal(tmp_path),
        [Objective("val_loss", "minimize")],
        trials=2,
        max_failures=2,
    )


def watched(coordinator, *, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    view = LiveView(coordinator, "demo", concurrency=2, searched=["learning_rate"], console=console)
    coordinator.listeners = [view]
    return view, text


def play(coordinator):
    for trial in range(2):
        coordinator.next_assignment()
        coordinator.report(trial, 10, {"val_loss": 3.0 + trial})
    coordinator.failed(1, "worker died")
    coordinator.report(0, 20, {"val_loss": 2.5}, state="finished")


def test_plain_lines_without_a_terminal(coordinator):
    view, text = watched(coordinator, terminal=False)
    with view:
        play(coordinator)
    header, failed, ended = text.getvalue().splitlines()
    assert header == "demo: 2 trials, 2 at a time; Ctrl-C stops cleanly"
    assert failed == "trial 1: attempt 1 failed, restarting: worker died"
    assert "trial    0 finished at iteration 20: best val_loss 2.5000; 1/2 done" in ended
    assert "\x1b" not in text.getvalue()


def test_the_live_table_shows_progress_and_the_best(coordinator):
    view, _ = watched(coordinator, terminal=True)
    play(coordinator)
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    shown = console.file.getvalue()
    rate = coordinator.trials[0].config["learning_rate"]
    assert "1/2 done" in shown
    assert "1 running, 1 finished" in shown
    assert f"best so far: trial 0, val_loss 2.5000: learning_rate {rate:.4g}" in shown
    waiting = ["1", "10/4000", "4.0000", "0:00", "to", "be", "restarted"]
    assert shown.splitlines()[3].split() == waiting


def test_the_live_table_shows_where_each_trial_is(coordinator):
    view, _ = watched(coordinator, terminal=True)

    def where():
        console = Console(file=io.StringIO(), width=100)
        console.print(view)
        return [line.split("0:00")[1].strip() for line in console.file.getvalue().splitlines()[3:]]

    coordinator.next_assignment()
    coordinator.next_assignment()
    gpu = {"worker": "10.0.0.7:41", "worker_device": "cuda:3 NVIDIA H200 [0]"}
    coordinator.report(1, 10, {"val_loss": 3.0}, **gpu)
    assert where() == ["waits for a worker", "10.0.0.7, cuda:3 NVIDIA H200 [0]"]
    coordinator.report(1, 20, {"val_loss": 3.0}, worker="10.0.0.7:41")
    assert where()[1] == "10.0.0.7, cuda:3 NVIDIA H200 [0]", "said once"
    coordinator.report(1, 30, {"val_loss": 3.0}, state="finished")
    assert where() == ["waits for a worker"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (PREEMPTED, "trial 0: preempted: its node was taken back; it goes on elsewhere"),
        (NODE_LOST, "trial 0: its node was lost; it goes on elsewhere"),
    ],
)
def test_an_attempt_that_was_not_to_blame_has_not_failed(coordinator, reason, said):
    view, text = watched(coordinator, terminal=True)
    coordinator.next_assignment()
    coordinator.failed(0, reason)
    assert text.getvalue().strip() == said
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    assert console.file.getvalue().splitlines()[3].endswith("goes on elsewhere")


def test_the_live_table_before_anything_happened(coordinator):
    view, _ = watched(coordinator, terminal=True)
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    assert "no result yet" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_short():
    assert [short(v) for v in (0.000123456, 50, "adam")] == ["0.0001235", "50", "adam"]


def test_without_a_terminal_progress_is_said_now_and_then(coordinator, monkeypatch):
    monkeypatch.setattr("tuning.view.LINE_SECONDS", 0.0)
    view, text = watched(coordinator, terminal=False)
    with view:
        coordinator.next_assignment()
        coordinator.report(0, 10, {"val_loss": 3.0})
    assert "0/2 done; best so far: trial 0, val_loss 3.0000: learning_rate" in text.getvalue()


def test_a_listener_that_fails_is_left_out_and_the_search_goes_on(coordinator, caplog):
    class Failing:
        def heard(self, row):
            raise OSError("pipe closed")

    coordinator.listeners = [Failing()]
    coordinator.next_assignment()
    coordinator.report(0, 20, {"val_loss": 2.5}, state="finished")
    assert coordinator.trials[0].state == "finished"
    assert coordinator.listeners == []
    assert "Failing failed and is left out" in caplog.text
