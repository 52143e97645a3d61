"""Hours and seconds where the driver's clock is set while trials run: as if it had not been."""

import dataclasses
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import Results
from analysis.importance.study import to_study
from analysis.nodes import by_node, by_type, placed
from analysis.overhead import overhead
from analysis.report.figures import session_lines
from analysis.report.run_figures import incumbent
from analysis.report.timeline import attempts
from tests.analysis.conftest import make_experiment
from tests.analysis.test_nodes import HOUR, ROWS
from tests.analysis.test_overhead import EXPECTED, SESSION
from tests.tuning.clocks import BEGUN, FakeTime
from tests.tuning.trainable_support import local_trainable
from tuning.coordinator import Coordinator
from tuning.journal import Journal, Row, read_journal
from tuning.scheduling import make_scheduler
from tuning.searchers import make_searcher

#: When the clock is set, by how much: before the row of that number.
JUMPS = {
    "back": {4: -HOUR},
    "forward": {4: HOUR},
    "back and forward": {3: -HOUR, 6: 2 * HOUR},
    "forward and back": {5: HOUR, 8: -3 * HOUR},
    "always": {place: (-2) ** place * HOUR for place in range(1, 12)},
}
jumps = pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS.keys())


def write(journal, rows, jumps, clock):
    """Lets a driver write rows at their times, in seconds since its start, by its own clocks."""
    writer = Journal(journal)
    for place, row in enumerate(rows):
        clock.now = row.time
        clock.set_by += jumps.get(place, 0.0)
        written = writer.append(row)
        assert written.time == pytest.approx(BEGUN + row.time + clock.set_by)
    writer.close()


@pytest.fixture
def driven(by_hand, monkeypatch):
    """Results of a driver that wrote rows while its clock was set."""

    def drive(rows, jumps):
        with monkeypatch.context() as patched:
            experiment = by_hand([])
            write(experiment.journal, rows, jumps, FakeTime(patched))
        return Results.open(experiment.path)

    return drive


def figures(uses):
    names = ("hours", "worker_hours")
    return [[round(getattr(use, name), 6) for name in names] for use in uses]


@jumps
def test_hours_of_nodes(driven, jumps):
    found = driven(ROWS, jumps)
    assert figures(by_node(found)) == [[4.0, 6.0], [2.5, 2.5]]
    assert figures(by_type(found)) == [[4.0, 6.0], [2.5, 2.5]]


@jumps
def test_where_the_time_went(driven, jumps):
    (session,) = overhead(driven(SESSION, jumps))
    assert session.parts == pytest.approx(EXPECTED)
    assert session.wall_seconds == pytest.approx(30.0)
    assert session.first_step_seconds == pytest.approx(10.0)


@jumps
def test_seconds_of_trials(driven, jumps):
    found = driven(SESSION, jumps)
    assert found.trials["seconds"].tolist() == pytest.approx([13.0, 14.0 + 8.0, 3.0])
    assert found.trials["wait_seconds"].tolist() == pytest.approx([4.0, 5.0 + 2.0, 1.0])
    study = to_study(found)
    long = [(t.datetime_complete - t.datetime_start).total_seconds() for t in study.trials]
    assert long == pytest.approx([13.0, 23.0, 3.0])


@jumps
def test_the_report(driven, jumps):
    rows = [
        dataclasses.replace(r, metrics={**r.metrics, "val_loss": 1 / place}, iteration=place)
        if r.kind == "report"
        else r
        for place, r in enumerate(SESSION)
    ]
    found = driven(rows, jumps)
    took = [attempt.end - attempt.begin for attempt in attempts(found)]
    assert took == pytest.approx([13.0, 14.0, 3.0, 8.0])
    line = incumbent(found).spec["data"][-1]
    assert line["x"] == pytest.approx([10.0, 12.0, 14.0, 18.0, 20.0, 24.0, 26.0])


def test_a_killed_driver_and_the_next_whose_clock_is_late(by_hand, monkeypatch):
    """What passed in between is nobody's, whatever the clocks say."""
    clock, experiment = FakeTime(monkeypatch), by_hand([])
    write(experiment.journal, SESSION[:9], {5: HOUR}, clock)
    clock.now = 0.0
    later = [dataclasses.replace(row, seq=9 + place) for place, row in enumerate(SESSION)]
    journal = Journal(experiment.journal, next_seq=9)
    for row in later:
        clock.now = row.time
        clock.set_by -= HOUR
        journal.append(row)
    journal.close()
    found = Results.open(experiment.path)
    (line,) = session_lines(found, 1.0)
    assert line["x0"] == 16.0, "it begins at once"
    first, second = overhead(found)
    assert (first.state, second.state) == ("killed", "complete")
    assert (first.wall_seconds, second.wall_seconds) == pytest.approx((20.0, 30.0))
    assert first.parts["unreported"] == pytest.approx(3.0 + 1.0)
    assert second.parts == pytest.approx(EXPECTED)


def test_clocks_of_the_driver_and_of_a_worker(tmp_path, tiny_data, monkeypatch):
    """Both are set, forward and back, whenever anybody looks, while a trial really trains."""
    experiment, looked, true = make_experiment(tmp_path, tiny_data), [], time.time

    def jumping():
        looked.append(None)
        return true() + [0.0, HOUR, -HOUR][len(looked) % 3]

    began = time.monotonic()
    monkeypatch.setattr(time, "time", jumping)
    coordinator = Coordinator(
        make_searcher(experiment.sweep(), 0), make_scheduler(experiment.sweep()),
        Journal(experiment.journal), experiment.objectives, trials=1,
    )  # fmt: skip
    coordinator.session("session", "0 trials known", startup_seconds=0.0)
    assignment = coordinator.next_assignment()
    worker = local_trainable(experiment.path, tiny_data)(dataclasses.asdict(assignment))
    for _ in range(3):
        said = worker.step()
        report = said["report"]
        coordinator.report(
            0, report.iteration, report.metrics, state=report.state, worker=said["worker"]
        )
    worker.cleanup()
    coordinator.end_session()
    coordinator.journal.close()
    monkeypatch.undo()
    long = time.monotonic() - began

    found = Results(experiment, read_journal(experiment.journal).rows)
    steps = sum(row.metrics["step_seconds"] for row in found.rows if row.kind == "report")
    (use,) = by_node(found)
    assert steps - 0.01 <= use.worker_hours * HOUR <= long
    (session,) = overhead(found)
    assert session.wall_seconds <= long + 0.01
    assert all(-0.01 <= seconds <= long for seconds in session.parts.values())
    assert sum(session.parts.values()) == pytest.approx(session.wall_seconds)


def test_an_old_journal_has_hours_by_the_machines_clock(by_hand):
    experiment = by_hand([])
    found = Results(experiment, ROWS)
    assert all(row.elapsed is None for row in found.rows)
    assert figures(by_node(found)) == [[4.0, 6.0], [2.5, 2.5]]
    back = [
        dataclasses.replace(row, time=row.time - (HOUR if place >= 5 else 0.0))
        for place, row in enumerate(ROWS)
    ]
    assert figures(by_node(Results(experiment, back))) == [[3.0, 4.0], [2.5, 2.5]], (
        "an hour is lost, of each of the two"
    )


def search(draw, clock, journal):
    """Random trials on three nodes of two types, in up to three sessions.

    Returns:
        Of each attempt that reported: node, and how long it really took, in seconds.
    """
    true, seq = [], 0
    for _ in range(draw.randint(1, 3)):
        writer, live = Journal(journal, next_seq=seq), {}
        writer.append(Row(kind="session"))
        for step in range(draw.randint(0, 30)):
            clock.now += round(draw.uniform(0.0, 500.0), 3)
            clock.set_by += draw.choice([0.0, 0.0, -HOUR, HOUR])
            trial = draw.randrange(4)
            if trial not in live:
                writer.append(Row(kind="proposed", trial=trial, attempt=1, state="running"))
                live[trial] = [f"10.0.0.{draw.randrange(3)}", clock.now, None, clock.now]
            elif draw.random() < 0.2:
                writer.append(Row(kind="failed", trial=trial, attempt=1, state="running"))
                live[trial][3] = clock.now
                true.append(live.pop(trial))
            else:
                node, _, begun, _ = live[trial]
                last = live[trial][3]
                long = round(draw.uniform(0.0, clock.now - last), 3)
                live[trial][2] = clock.now - long if begun is None else begun
                live[trial][3] = clock.now
                writer.append(
                    Row(
                        kind="report", trial=trial, attempt=1, iteration=step + 1, state="running",
                        worker=f"{node}:1", worker_type="spot" if node[-1] == "0" else "other",
                        metrics={"step_seconds": long},
                    )
                )  # fmt: skip
        true += live.values()
        seq = writer.next_seq
        writer.close()
        clock.now += draw.uniform(0.0, 1000.0)
    return [(node, end - begun) for node, _, begun, end in true if begun is not None]


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
def test_hours_of_nodes_add_up_to_hours_of_attempts(seed, tmp_path_factory, finished, monkeypatch):
    """Whatever begins, reports, fails and is killed, and however the clock is set meanwhile."""
    path = tmp_path_factory.mktemp("any") / "journal"
    with monkeypatch.context() as patched:
        true = search(random.Random(seed), FakeTime(patched), path)
    experiment = dataclasses.replace(finished, path=path.parent)
    found = Results(experiment, read_journal(path).rows)
    own = list(placed(found.steady_rows))
    assert sorted(a.end - a.begin for a in own) == pytest.approx(
        sorted(long for _, long in true), abs=1e-3
    )
    total = sum(long for _, long in true) / HOUR
    nodes, kinds = by_node(found), by_type(found)
    assert sum(use.worker_hours for use in nodes) == pytest.approx(total, abs=1e-5)
    assert sum(use.worker_hours for use in kinds) == pytest.approx(total, abs=1e-5)
    assert sum(use.hours for use in kinds) == pytest.approx(sum(use.hours for use in nodes))
    for use in nodes:
        on_it = sum(long for node, long in true if node == use.node) / HOUR
        assert use.worker_hours == pytest.approx(on_it, abs=1e-5)
        assert 0 <= use.hours <= use.worker_hours + 1e-9
