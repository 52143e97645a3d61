"""The same search on one node and on several: equal results, and the arithmetic of its costs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import more_nodes
from benchmarks.more_nodes import check_equal, compare, figures, gaps, medians, results_of
from model.errors import BenchmarkError
from tests.tuning.ray_support import train_directly
from tuning.journal import Journal, Row


def report(trial, iteration, time, *, worker="a", step=0.5, **values):
    """A row of a report: the second of a trial is its last."""
    last = iteration == 8
    row = Row(
        kind="report",
        trial=trial,
        attempt=1,
        iteration=iteration,
        metrics={"val_loss": 3.0 + trial, "step_seconds": step, "peak_memory_mb": time},
        values=[3.0 + trial],
        decision="stop" if last else "continue",
        state="finished" if last else "running",
        worker=worker,
        time=time,
    )
    return replace(row, **values)


def search(directory, **changed):
    """The journal of two trials of two reports; `changed` values are those of the last one."""
    directory.mkdir()
    journal = Journal(directory / "journal")
    for trial in (0, 1):
        config = changed.pop("config", {"clip": trial}) if trial else {"clip": trial}
        row = Row(kind="proposed", trial=trial, attempt=1, config=config, state="running")
        journal.append(row)
        journal.append(report(trial, 4, 0.0))
        if not (trial and changed.pop("unfinished", False)):
            journal.append(replace(report(trial, 8, 0.0), **(changed if trial else {})))
    journal.close()
    return directory


# By hand


def test_gaps_by_hand():
    # Two workers. A trial waits 1 s, then its step takes 0.5 s: the one that is told of at 10.0 s
    # began at 8.5 s. Worker a tells of trial 0 at 10 and 12 s, and of trial 2 at 14 and 16 s.
    rows = [
        report(0, 4, 10.0, worker="a"),
        report(1, 4, 11.0, worker="b"),
        report(0, 8, 12.0, worker="a"),
        report(1, 8, 13.5, worker="b"),
        report(2, 4, 14.0, worker="a"),
        report(2, 8, 16.0, worker="a"),
    ]
    between, within = gaps(rows, wait=1.0)
    assert between == [0.5]
    assert within == [0.5, 0.5, 1.0]


def test_figures_by_hand():
    rows = [
        report(0, 4, 10.0, worker="a"),
        report(1, 4, 10.5, worker="b"),
        report(0, 8, 12.0, worker="a"),
        report(1, 8, 13.0, worker="b"),
        Row(kind="ended", time=99.0),
    ]
    # The driver uses 0.1 s each second, Ray's head 0.02 s, the machine 1.5 s; memory grows.
    samples = [(t, 0.1 * t, 0.02 * t, 1.5 * t, 1e6 * t) for t in (0.0, 20.0)]
    found = figures(rows, samples, wait=1.0)
    assert (found["trials"], found["reports"], found["workers"]) == (2, 4, 2)
    assert found["wall_seconds"] == pytest.approx(4.5)  # from 8.5 to 13 s
    assert found["trials_per_minute"] == pytest.approx(60 * 2 / 4.5)
    assert found["between_trials_milliseconds"] == {"median": None, "ninth_decile": None}
    assert found["between_reports_milliseconds"]["median"] == pytest.approx(750)
    # 0.3 s from the first report to the last, in which there are three.
    assert found["driver_milliseconds_a_report"] == pytest.approx(100)
    assert found["driver_milliseconds_a_trial"] == pytest.approx(200)
    assert found["gcs_milliseconds_a_trial"] == pytest.approx(40)
    assert found["driver_megabytes"] == pytest.approx(13)
    assert found["driver_cores"] == pytest.approx(0.1)
    assert found["cores_in_use"] == pytest.approx(1.5)


def test_medians_of_several_runs():
    runs = [
        {"wall_seconds": wall, "between": {"median": gap}}
        for wall, gap in ((1.0, None), (3.0, 5.0), (2.0, 7.0))
    ]
    assert medians(runs) == {"wall_seconds": 2.0, "between": {"median": 6.0}}


def test_equal_but_for_times_and_memory(tmp_path):
    metrics = {"val_loss": 4.0, "step_seconds": 77.0, "peak_memory_mb": 1.0, "latency_ms": 5.0}
    one = search(tmp_path / "one", metrics=metrics | {"tokens_per_second": 3.0}, worker="b")
    assert check_equal(one, search(tmp_path / "other")) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrics": {"val_loss": 4.5}}, r"trial 1, iteration 8, val_loss: 4.5 in one, 4.0 in oth"),
        ({"metrics": {}}, "trial 1, iteration 8, val_loss: None in one, 4.0 in other"),
        ({"values": [3.9]}, r"trial 1, iteration 8, best: \[3.9\] in one, \[4.0\] in other"),
        ({"config": {"clip": 7}}, r"trial 1, configuration: \{'clip': 7\} in one, \{'clip': 1\}"),
        ({"state": "diverged"}, "one: trial 1 has not finished at its first attempt"),
        ({"attempt": 2}, "one: trial 1 has not finished at its first attempt"),
        ({"unfinished": True}, "one: trial 1 has not finished at its first attempt"),
    ],
)
def test_what_differs_is_named(tmp_path, changed, message):
    one, other = search(tmp_path / "one", **changed), search(tmp_path / "other")
    with pytest.raises(BenchmarkError, match=message):
        check_equal(one, other)


def test_missing_trials_and_reports_are_found(tmp_path):
    one, other = search(tmp_path / "one"), search(tmp_path / "other")
    journal = Journal(other / "journal", next_seq=6)
    journal.append(Row(kind="proposed", trial=2, attempt=1, config={"clip": 2}, state="running"))
    journal.append(report(2, 8, 0.0))
    journal.close()
    with pytest.raises(BenchmarkError, match="one has 2 trials, other 3"):
        check_equal(one, other)
    journal = Journal(one / "journal", next_seq=6)
    journal.append(Row(kind="proposed", trial=2, attempt=1, config={"clip": 2}, state="running"))
    journal.append(report(2, 4, 0.0))
    journal.append(report(2, 8, 0.0))
    journal.close()
    with pytest.raises(BenchmarkError, match="trial 2, number of reports: 2 in one, 1 in other"):
        check_equal(one, other)


# For real


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # three clusters of up to five nodes, one after another
def test_the_same_search_on_one_two_and_four_nodes(tmp_path, capsys):
    nodes = (1, 2, 4)
    results = compare(tmp_path, nodes, trials=8, reports=2, wait=0.2, turns=1)
    assert results["equal_reports"] == 2 * 16
    for count in nodes:
        found = results["nodes"][str(count)]
        assert (found["trials"], found["reports"], found["workers"]) == (8, 16, count)
        assert found["driver_milliseconds_a_report"] > 0
    assert more_nodes.report(results).splitlines()[0].startswith("nodes  wall s  trials/min")

    # And each is what the trainer gives by itself, without Ray.
    experiment = tmp_path / "runs" / "nodes-4-turn-1"
    for trial in results_of(experiment).values():
        direct = train_directly(experiment, trial["configuration"])
        assert [told["val_loss"] for told in trial["reports"]] == [m["val_loss"] for m in direct]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_the_command(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert more_nodes.main(["--quick", "--nodes", "1", "--json", str(file)]) == 0
    found = json.loads(Path(file).read_text(), parse_constant=pytest.fail)
    assert (found["trials"], found["reports"], found["wait_seconds"]) == (8, 2, 0.1)
    assert list(found["nodes"]) == ["1"]
    assert capsys.readouterr().out.endswith("0 reports are equal to those of the first run.\n")
