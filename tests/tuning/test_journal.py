import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import ExperimentError, StorageError
from tuning.journal import Journal, Row, compact, current_reports, read_journal
from tuning.journal import segments as journal_module


def report(trial, iteration, attempt=1, **metrics):
    return Row(
        kind="report",
        trial=trial,
        attempt=attempt,
        iteration=iteration,
        config={"clip": 50.0, "optimizer": "adam"},
        metrics=metrics,
        values=[metrics.get("val_loss")],
        decision="continue",
        state="running",
        worker="127.0.0.1:1",
    )


@pytest.fixture
def rows():
    return [
        Row(kind="session", reason="0 trials known"),
        Row(kind="proposed", trial=0, attempt=1, config={"clip": 50.0}, state="running"),
        report(0, 10, val_loss=3.5, epoch=1),
        report(0, 20, val_loss=3.25, epoch=2, diverged_loss=7.0),
        Row(kind="failed", trial=0, attempt=1, iteration=20, state="failed", reason="boom"),
    ]


def written(directory, rows):
    journal = Journal(directory)
    result = [journal.append(row) for row in rows]
    journal.close()
    return result


def test_what_is_appended_is_read_back(tmp_path, rows):
    expected = written(tmp_path / "journal", rows)
    assert [row.seq for row in expected] == list(range(5))
    assert read_journal(tmp_path / "journal").rows == expected


def test_rows_are_on_disk_before_append_returns(tmp_path):
    journal = Journal(tmp_path)
    journal.append(Row(kind="session", reason="x"))
    (segment,) = tmp_path.glob("*.jsonl")
    lines = segment.read_text().splitlines()
    assert json.loads(lines[0]) == {"format": 2}
    assert json.loads(lines[1])["kind"] == "session"


def test_nan_and_infinity_become_null(tmp_path):
    written(tmp_path, [report(0, 1, val_loss=math.nan, val_perplexity=math.inf, loss=2.0)])
    (read,) = read_journal(tmp_path).rows
    assert read.metrics == {"val_loss": None, "val_perplexity": None, "loss": 2.0}
    assert read.values == [None]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_row_is_skipped_and_said(tmp_path, rows, cut):
    expected = written(tmp_path, rows)
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-cut])
    reading = read_journal(tmp_path)
    assert reading.rows == expected[:-1]
    assert reading.torn == [str(segment)]


def test_a_resumed_driver_begins_its_own_segment_after_a_torn_row(tmp_path, rows):
    written(tmp_path, rows[:3])
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-7])
    known = read_journal(tmp_path).rows
    journal = Journal(tmp_path, next_seq=len(known))
    journal.append(rows[2])
    assert [r.seq for r in read_journal(tmp_path).rows] == [0, 1, 2]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_damaged_row_in_the_middle_is_an_error_with_its_place(tmp_path, rows):
    written(tmp_path, rows)
    (segment,) = tmp_path.glob("*.jsonl")
    lines = segment.read_text().splitlines()
    lines[2] = lines[2][:10]
    segment.write_text("\n".join(lines) + "\n")
    with pytest.raises(ExperimentError, match=r"000001.jsonl:3: damaged row"):
        read_journal(tmp_path)


def test_an_older_format_is_read(tmp_path, rows):
    expected = written(tmp_path, rows)
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_text(segment.read_text().replace('{"format": 2}', '{"format": 1}'))
    assert read_journal(tmp_path).rows == expected


def test_a_newer_format_is_refused(tmp_path, rows):
    written(tmp_path, rows)
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_text(segment.read_text().replace('{"format": 2}', '{"format": 7}'))
    with pytest.raises(ExperimentError, match=r"format 7, written by a newer version"):
        read_journal(tmp_path)


def test_segments_are_rotated(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(journal_module, "SEGMENT_ROWS", 2)
    expected = written(tmp_path, rows)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    assert read_journal(tmp_path).rows == expected


def test_compacted_is_the_same_and_grows_on(tmp_path, rows):
    expected = written(tmp_path, rows)
    compact(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["compacted.parquet"]
    assert read_journal(tmp_path).rows == expected
    journal = Journal(tmp_path, next_seq=len(expected))
    more = journal.append(report(1, 10, val_loss=2.0))
    journal.close()
    assert (tmp_path / "000002.jsonl").exists()
    assert read_journal(tmp_path).rows == [*expected, more]
    compact(tmp_path)
    assert read_journal(tmp_path).rows == [*expected, more]


def test_compacted_keeps_whole_numbers_whole(tmp_path, rows):
    written(tmp_path, rows)
    compact(tmp_path)
    metrics = read_journal(tmp_path).rows[2].metrics
    assert metrics == {"val_loss": 3.5, "epoch": 1}
    assert isinstance(metrics["epoch"], int)


def test_a_compacted_column_of_nothing_reads_as_nothing(tmp_path, rows):
    written(tmp_path, rows)
    compact(tmp_path)
    file = tmp_path / "compacted.parquet"
    table = pq.read_table(file)
    for name in ("config", "values"):
        nothing = pa.nulls(table.num_rows, pa.string())
        table = table.set_column(table.schema.get_field_index(name), name, nothing)
    pq.write_table(table, file)
    row = read_journal(tmp_path).rows[2]
    assert (row.config, row.values) == ({}, [])
    assert row.metrics == {"val_loss": 3.5, "epoch": 1}


def test_a_damaged_compacted_file_is_an_error(tmp_path, rows):
    written(tmp_path, rows)
    compact(tmp_path)
    file = tmp_path / "compacted.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ExperimentError, match=r"compacted.parquet: damaged"):
        read_journal(tmp_path)


def test_no_journal_is_an_error(tmp_path):
    with pytest.raises(ExperimentError, match="there is no journal here"):
        read_journal(tmp_path / "none")


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    journal = Journal(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="no space is left on the device"):
        journal.append(Row(kind="session"))


def test_a_restart_supersedes_later_reports_of_older_attempts():
    rows = [
        report(0, 10),
        report(0, 20),
        report(1, 10),
        report(0, 30),
        report(0, 20, attempt=2),  # restored at 20, which it reports again
        report(0, 30, attempt=2),
        report(0, 40, attempt=2),
    ]
    rows = [Row(**{**row.__dict__, "seq": i}) for i, row in enumerate(rows)]
    assert [(r.trial, r.iteration, r.attempt) for r in current_reports(rows)] == [
        (0, 10, 1),
        (1, 10, 1),
        (0, 20, 2),
        (0, 30, 2),
        (0, 40, 2),
    ]


def test_an_attempt_that_has_not_reported_supersedes_nothing():
    rows = [report(0, 10), Row(kind="restarted", trial=0, attempt=2, state="running")]
    assert len(current_reports(rows)) == 1
