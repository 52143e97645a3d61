"""Reading a search that was extended, retried and ended at its target: rows of these kinds."""

import dataclasses

import pytest

from analysis import Results
from analysis.overhead import overhead
from analysis.report.summary import standing, state_of
from analysis.report.timeline import attempts
from tests.analysis.conftest import make_experiment
from tuning.journal import Journal, Row, compact, read_journal
from tuning.journal.columns import read_journal_table, table_of_rows

CONFIG = {"clip": 1.0, "corpus": "tiny"}


def row(time, kind, trial=None, *, attempt=1, iteration=None, state="running", **fields):
    metrics = {} if kind != "report" else {"val_loss": 3.0, "iteration": iteration}
    return Row(
        kind=kind,
        time=time,
        trial=trial,
        attempt=None if trial is None else attempt,
        iteration=iteration,
        state=None if trial is None else state,
        values=[] if trial is None else [3.0],
        **({"metrics": metrics, "config": {} if trial is None else CONFIG} | fields),
    )


#: A trial fails at 20 s; an hour later it is retried, and a second one is asked for. The first
#: reaches the target, while the second waits to be restarted.
ROWS = [
    row(0.0, "session"),
    row(1.0, "proposed", 0),
    row(10.0, "report", 0, iteration=4, worker="a:1"),
    row(20.0, "failed", 0, iteration=4, state="failed", reason="MemoryError"),
    row(21.0, "ended", reason="complete"),
    row(3600.0, "session"),
    row(3600.0, "extended", metrics={"trials": 1}),
    row(3600.0, "retried", 0, iteration=4),
    row(3601.0, "restarted", 0, attempt=2),
    row(3601.0, "proposed", 1),
    row(3602.0, "report", 1, iteration=4, worker="b:1"),
    row(3603.0, "failed", 1, iteration=4, reason="OSError"),
    row(3605.0, "report", 0, attempt=2, iteration=4, worker="a:2"),
    row(3610.0, "report", 0, attempt=2, iteration=8, state="stopped", worker="a:2"),
    row(3611.0, "stopped", 1, iteration=4, state="stopped", reason="target reached"),
    row(3612.0, "ended", reason="target reached"),
]


@pytest.fixture
def results(tmp_path, tiny_data):
    sweep = {
        "method": "random",
        "parameters": {"clip": {"min": 0.0, "max": 9.0}, "corpus": {"value": "tiny"}},
    }
    experiment = make_experiment(tmp_path / "runs", tiny_data, sweep, trials=1)
    return Results(experiment, [dataclasses.replace(r, seq=i) for i, r in enumerate(ROWS)])


def test_trials(results):
    trials = results.trials
    assert trials["state"].tolist() == ["stopped", "stopped"]
    assert trials["attempts"].tolist() == [2, 1]
    assert trials["iteration"].tolist() == [8, 4]
    # Without the hour between the attempts, and without waiting to be restarted.
    assert trials["seconds"].tolist() == [19.0 + 9.0, 2.0]
    assert results.history["iteration"].tolist() == [4, 8, 4]


def test_attempts_are_those_that_workers_made(results):
    found = [(a.trial, a.number, a.begin, a.end, a.state) for a in attempts(results)]
    assert found == [
        (0, 1, 1.0, 20.0, "failed"),
        (0, 2, 3601.0, 3610.0, "stopped"),
        (1, 1, 3601.0, 3603.0, "failed"),
    ]


def test_the_sessions_are_complete_and_no_longer_than_they_were(results):
    first, second = overhead(results)
    assert (first.state, first.wall_seconds) == ("complete", 21.0)
    assert (second.state, second.wall_seconds) == ("complete", 12.0)


def test_what_was_asked_for_counts_extensions(results):
    assert state_of(results) == "complete"
    assert standing(results).startswith("2 trials have ended")


def test_a_clone_is_shown_with_the_configuration_of_its_best_report(tmp_path, tiny_data):
    """Trial 0 goes on with another one and improves; trial 1 does so too and does not."""
    rows = []
    for trial, values in ((0, (3.0, 2.0)), (1, (2.5, 2.6))):
        first, second = CONFIG | {"clip": trial + 1.0}, CONFIG | {"clip": trial + 5.0}
        rows += [
            row(1.0, "proposed", trial, config=first),
            row(2.0, "report", trial, iteration=4, config=first, metrics={"val_loss": values[0]}),
            row(3.0, "restarted", trial, attempt=2, iteration=4, config=second, source=7),
            row(4.0, "restarted", trial, attempt=3, config=second),
            row(5.0, "report", trial, iteration=8, config=second, metrics={"val_loss": values[1]}),
        ]
    sweep = {"method": "random", "parameters": {"clip": {"min": 0.0, "max": 9.0}}}
    experiment = make_experiment(tmp_path / "runs", tiny_data, sweep, trials=2)
    journal = Journal(experiment.journal)
    for each in rows:
        journal.append(each)
    journal.close()
    for _ in range(2):
        results = Results.open(experiment.path)
        assert results.trials["clip"].tolist() == [5.0, 2.0]
        assert [len(changes) for changes in results.journal.changes.values()] == [1, 1]
        compact(experiment.journal)


def test_columns_and_the_compacted_table_know_the_kinds(tmp_path):
    journal = Journal(tmp_path)
    clone = row(3612.5, "restarted", 1, attempt=2, source=0, source_iteration=8)
    for each in [*ROWS, clone]:
        journal.append(each)
    journal.close()
    kinds = read_journal_table(tmp_path).table.column("kind").to_pylist()
    assert kinds == [r.kind for r in [*ROWS, clone]]
    before = read_journal(tmp_path).rows
    compact(tmp_path)
    assert read_journal(tmp_path).rows == before
    assert before[-1].source_iteration == 8
    assert table_of_rows(before).table.column("kind").to_pylist() == kinds
