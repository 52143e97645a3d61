"""What each node did: by hand with a known answer, then the command."""

import dataclasses
import json

import pytest

from analysis import Results
from analysis.__main__ import main
from analysis.nodes import by_node, by_type
from tests.analysis.planted import rows_of_trial
from tests.conftest import exit_status
from tuning.journal import Row

HOUR = 3600.0


def begin(hour, trial, attempt=1):
    kind = "proposed" if attempt == 1 else "restarted"
    return Row(kind=kind, time=hour * HOUR, trial=trial, attempt=attempt, state="running")


def report(hour, trial, worker, *, step=0.0, state="running", peak=None, **said):
    metrics = {"step_seconds": step * HOUR} | ({} if peak is None else {"peak_memory_mb": peak})
    return Row(
        kind="report", time=hour * HOUR, trial=trial, attempt=1, iteration=1, state=state,
        worker=worker, metrics=metrics, **said,
    )  # fmt: skip


SPOT = {"worker_device": "cuda:0 NVIDIA H200", "worker_type": "gpu_spot"}
#: Two trials side by side on one node; the second is lost there, and ends on another.
ROWS = [
    Row(kind="session", time=0.0),
    begin(1.0, 0),
    begin(1.0, 1),
    report(3.0, 0, "10.0.0.1:7", step=1.0, peak=500.0, **SPOT),
    report(4.0, 1, "10.0.0.1:8", step=1.0, peak=700.0, **SPOT),
    report(5.0, 0, "10.0.0.1:7", step=2.0, peak=600.0, state="finished"),
    Row(kind="failed", time=6.0 * HOUR, trial=1, attempt=1, state="running", reason="lost"),
    begin(7.0, 1, attempt=2),
    begin(7.0, 2),
    report(9.0, 1, "10.0.0.2:1", step=0.5, worker_device="cpu"),
    report(11.0, 1, "10.0.0.2:1", step=2.0, state="finished"),
]


@pytest.fixture
def results(by_hand):
    experiment = by_hand([])
    settings = {**experiment.manifest["settings"], "resources": {"cpus": 1, "gpus": 0.5}}
    manifest = {**experiment.manifest, "settings": settings}
    experiment = dataclasses.replace(experiment, manifest=manifest)
    return lambda rows: Results(experiment, list(rows))


def test_by_hand(results):
    first, second = by_node(results(ROWS))
    assert (first.node, first.kind, first.nodes) == ("10.0.0.1", "gpu_spot", 1)
    assert first.devices == ("cuda:0 NVIDIA H200",)
    assert (first.trials, first.attempts) == (2, 2)
    assert first.hours == pytest.approx(4.0), "from 2 to 6, of which 3 to 5 twice"
    assert first.worker_hours == pytest.approx(3.0 + 3.0)
    assert first.gpu_hours == pytest.approx(3.0)
    assert first.peak_memory_mb == 700.0
    assert (second.node, second.kind, second.devices) == ("10.0.0.2", None, ("cpu",))
    assert (second.trials, second.attempts) == (1, 1), "trial 2 has not reported"
    assert second.hours == second.worker_hours == pytest.approx(2.5)
    assert second.peak_memory_mb is None


def test_types_add_up_their_nodes(results):
    """Two nodes of one type at the same time are two hours an hour; one is known by another."""
    rows = [
        begin(0.0, 0),
        report(1.0, 0, "a:1", step=1.0, worker_type="cpu_worker"),
        begin(0.0, 1),
        report(1.0, 1, "b:1", step=1.0, worker_type="cpu_worker"),
        begin(1.0, 2),
        report(2.0, 2, "a:1", step=1.0),
    ]
    (use,) = by_type(results(rows))
    assert (use.node, use.kind, use.nodes, use.trials) == (None, "cpu_worker", 2, 3)
    assert use.hours == use.worker_hours == pytest.approx(3.0)


def test_no_report_no_node(results):
    assert by_node(results(ROWS[:3])) == by_type(results(ROWS[:3])) == []


def test_hours_of_nodes_are_never_more_than_those_of_workers(finished):
    found = Results.open(finished.path)
    for use in [*by_node(found), *by_type(found)]:
        assert 0 <= use.hours <= use.worker_hours + 1e-12
    trials = sum(use.trials for use in by_node(found))
    assert trials >= len(found.trials[found.trials["worker"].notna()])


class TestCommand:
    @pytest.fixture
    def experiment(self, by_hand):
        said = {"worker_device": "cpu", "worker_type": "small"}
        rows = list(rows_of_trial(0, {"clip": 1.0}, {4: (1.0, 1.0), 8: (0.5, 0.5)}))
        rows[1] = dataclasses.replace(rows[1], **said)
        return by_hand(rows)

    def test_tables(self, experiment, capsys):
        assert exit_status(main, "nodes", experiment.path) == 0
        nodes, types = capsys.readouterr().out.split("\n\n")
        head = " ".join(nodes.splitlines()[0].split())
        assert head == "node type devices trials attempts hours worker hours GPU hours peak MB"
        assert nodes.splitlines()[2].split()[:5] == ["host", "small", "cpu", "1", "1"]
        assert types.splitlines()[2].split()[:3] == ["small", "1", "1"]

    def test_json(self, experiment, capsys):
        assert exit_status(main, "nodes", experiment.path, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [use["node"] for use in found["nodes"]] == ["host"]
        assert [use["kind"] for use in found["types"]] == ["small"]

    def test_nothing_yet(self, by_hand, capsys):
        assert exit_status(main, "nodes", by_hand([]).path) == 0
        assert capsys.readouterr().out == "hand: no trial has reported yet.\n"
