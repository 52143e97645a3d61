"""A journal in columns against the same journal in rows."""

import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ExperimentError
from tuning.journal import Journal, Row, compact, read_journal
from tuning.journal import columns as journal_table
from tuning.journal import segments as journal_module
from tuning.journal.columns import METRIC, read_journal_table, table_of_rows

PLAIN = (
    *("kind", "seq", "time", "elapsed", "trial", "attempt", "iteration"),
    *("decision", "state", "reason", "worker", "worker_device", "worker_type"),
)


def report(trial, iteration, attempt=1, **metrics):
    return Row(
        kind="report",
        trial=trial,
        attempt=attempt,
        iteration=iteration,
        config={"clip": 50.0, "optimizer": "adam", "threads": None},
        metrics=metrics,
        values=[metrics.get("val_loss")],
        decision="continue",
        state="running",
        worker="127.0.0.1:1",
    )


ROWS = [
    Row(kind="session", reason="0 trials known", metrics={"startup_seconds": 1}),
    Row(kind="proposed", trial=0, attempt=1, config={"clip": 50.0}, state="running"),
    report(0, 10, val_loss=3.5, epoch=1),
    report(0, 20, val_loss=3, epoch=1.5, diverged_loss=7.0),
    Row(kind="proposed", trial=1, attempt=1, config={"clip": 25, "x": "2026-01-01"}),
    Row(kind="failed", trial=0, attempt=1, iteration=20, state="failed", reason="boom é \n ☃"),
]


def written(directory, rows=ROWS):
    journal = Journal(directory)
    result = [journal.append(row) for row in rows]
    journal.close()
    return result


def assert_same(table, rows):
    """Every cell is what the rows say; numbers of metrics as float64, missing ones as null."""
    columns = table.to_pydict()
    names = {name for row in rows for name in row.metrics}
    assert set(columns) == {*PLAIN, *(METRIC + name for name in names)}
    for name in PLAIN:
        assert columns[name] == [getattr(row, name) for row in rows], name
    for name in names:
        assert columns[METRIC + name] == [row.metrics.get(name) for row in rows], name
        assert str(table.column(METRIC + name).type) == "double"


def segment_of(directory):
    (segment,) = directory.glob("*.jsonl")
    return segment


class TestReading:
    def test_columns_are_the_rows(self, tmp_path):
        rows = written(tmp_path)
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows)
        assert reading.configs == {0: {"clip": 50.0}, 1: {"clip": 25, "x": "2026-01-01"}}
        assert reading.metrics == ["diverged_loss", "epoch", "startup_seconds", "val_loss"]
        assert (reading.torn, reading.problems) == ([], [])

    def test_the_fast_way_is_taken(self, tmp_path, monkeypatch):
        """Or all the other tests say nothing of it."""
        written(tmp_path)
        monkeypatch.setattr(journal_table, "_table_of_rows", None)
        assert read_journal_table(tmp_path).table.num_rows == len(ROWS)

    def test_of_many_segments(self, tmp_path, monkeypatch):
        monkeypatch.setattr(journal_module, "SEGMENT_ROWS", 2)
        rows = written(tmp_path)
        assert_same(read_journal_table(tmp_path).table, rows)

    def test_compacted_is_the_same_and_grows_on(self, tmp_path):
        rows = written(tmp_path)
        before = read_journal_table(tmp_path)
        compact(tmp_path)
        after = read_journal_table(tmp_path)
        assert_same(after.table, rows)
        assert after.configs == before.configs
        journal = Journal(tmp_path, next_seq=len(rows))
        rows.append(journal.append(report(1, 10, val_loss=2.0)))
        journal.close()
        assert_same(read_journal_table(tmp_path).table, rows)

    def test_rows_that_are_in_both_count_once(self, tmp_path):
        """A driver that died between writing the table and removing the segments."""
        rows = written(tmp_path)
        segment = segment_of(tmp_path)
        content = segment.read_bytes()
        compact(tmp_path)
        segment.write_bytes(content)
        assert_same(read_journal_table(tmp_path).table, rows)
        compact(tmp_path)
        assert read_journal(tmp_path).rows == rows

    def test_rows_without_numbers_stay_as_they_are_given(self):
        reading = table_of_rows(ROWS)
        assert_same(reading.table, ROWS)
        assert table_of_rows([]).table.num_rows == 0

    def test_an_empty_journal(self, tmp_path):
        assert read_journal_table(tmp_path).table.num_rows == 0
        written(tmp_path, [])
        assert read_journal_table(tmp_path).table.num_rows == 0

    def test_a_field_of_a_later_version_is_passed_over(self, tmp_path):
        rows = written(tmp_path, ROWS[:2])
        segment = segment_of(tmp_path)
        with segment.open("a") as file:
            file.write('{"kind":"report","seq":2,"new":{"deep":[1]},"metrics":{"a":1}}\n')
        table = read_journal_table(tmp_path).table
        assert table.column("kind").to_pylist() == [*(r.kind for r in rows), "report"]
        assert table.column(METRIC + "a").to_pylist() == [None, None, 1.0]

    def test_none_is_an_error(self, tmp_path):
        with pytest.raises(ExperimentError, match="there is no journal here"):
            read_journal_table(tmp_path / "none")

    def test_a_newer_format_is_refused(self, tmp_path):
        written(tmp_path)
        segment = segment_of(tmp_path)
        segment.write_text(segment.read_text().replace('{"format": 2}', '{"format": 7}'))
        with pytest.raises(ExperimentError, match=r"format 7, written by a newer version"):
            read_journal_table(tmp_path)


class TestDamage:
    @pytest.mark.parametrize(
        ("line", "text"),
        [
            (b"{damaged", "Expecting property name"),
            (b"", "Expecting value"),
            (b"[1, 2]", "not a mapping"),
            (b'{"kind":"\xff"}', "invalid start byte"),
            (b'{"seq":2}', "it has no 'kind'"),
            (b'{"kind":"report"}', "it has no 'seq'"),
            (b'{"kind":"report","seq":2,"trial":"x"}', "trial cannot be 'x'"),
            (b'{"kind":"report","seq":2,"trial":1.5}', "trial cannot be 1.5"),
            (b'{"kind":"report","seq":true}', "seq cannot be True"),
            (b'{"kind":"report","seq":2,"metrics":7}', "metrics cannot be 7"),
            (b'{"kind":"report","seq":2,"iteration":1%s}' % (b"0" * 30), "iteration is too large"),
            (b"[" * 100_000, "nested too deep"),
        ],
    )
    def test_one_row_is_lost_and_named(self, tmp_path, line, text):
        """And a resume refuses it."""
        rows = written(tmp_path)
        segment = segment_of(tmp_path)
        lines = segment.read_bytes().split(b"\n")
        lines[3] = line
        segment.write_bytes(b"\n".join(lines))
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, [row for row in rows if row.seq != 2])
        (problem,) = reading.problems
        assert problem.startswith(f"{segment}:4: damaged row: ") and text in problem
        with pytest.raises(ExperimentError, match="000001.jsonl:4: damaged row: "):
            read_journal(tmp_path)
        with pytest.raises(ExperimentError, match="000001.jsonl:4: damaged row: "):
            compact(tmp_path)
        assert segment.exists() and not (tmp_path / "compacted.parquet").exists()

    def test_a_metric_that_is_no_number_is_missing(self, tmp_path):
        written(tmp_path)
        segment = segment_of(tmp_path)
        text = segment.read_text().replace('"val_loss":3.5', '"val_loss":"low"')
        segment.write_text(text)
        reading = read_journal_table(tmp_path)
        assert reading.table.column(METRIC + "val_loss").to_pylist()[2:4] == [None, 3.0]
        assert reading.problems == [
            f"{segment}: row 2: metrics.val_loss is not a number that can be shown."
        ]

    @pytest.mark.parametrize("cut", [1, 5, 40])
    def test_a_torn_last_row(self, tmp_path, cut):
        rows = written(tmp_path)
        segment = segment_of(tmp_path)
        segment.write_bytes(segment.read_bytes()[:-cut])
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows[:-1])
        assert (reading.torn, reading.problems) == ([str(segment)], [])

    @pytest.mark.parametrize("header", ["{damaged", '{"format": "one"}', "{}"])
    def test_a_damaged_header(self, tmp_path, header):
        rows = written(tmp_path)
        segment = segment_of(tmp_path)
        lines = segment.read_text().split("\n")
        segment.write_text("\n".join([header, *lines[1:]]))
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows)
        assert len(reading.problems) == 1
        with pytest.raises(ExperimentError, match="damaged row|no format number"):
            read_journal(tmp_path)

    def test_a_segment_that_is_lost(self, tmp_path, monkeypatch):
        monkeypatch.setattr(journal_module, "SEGMENT_ROWS", 2)
        rows = written(tmp_path)
        (tmp_path / "000002.jsonl").unlink()
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, [*rows[:2], *rows[4:]])
        expected = "2 rows are missing or damaged, the first of them numbers 2 to 3."
        assert reading.problems == [f"{tmp_path}: {expected}"]

    def test_a_segment_that_cannot_be_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(journal_module, "SEGMENT_ROWS", 3)
        rows = written(tmp_path)
        (tmp_path / "000002.jsonl").unlink()
        (tmp_path / "000002.jsonl").mkdir()
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows[:3])
        assert reading.problems == [
            f"{tmp_path / '000002.jsonl'}: cannot be read: it is a directory."
        ]

    def test_a_segment_that_points_nowhere(self, tmp_path):
        rows = written(tmp_path)
        (tmp_path / "000002.jsonl").symlink_to(tmp_path / "nowhere")
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows)
        assert len(reading.problems) == 1

    def test_nothing_that_can_be_read_is_an_error(self, tmp_path):
        (tmp_path / "000001.jsonl").write_text('{"format": 1}\nnonsense\n')
        with pytest.raises(ExperimentError, match=r"000001.jsonl:2: damaged row: Expecting"):
            read_journal_table(tmp_path)

    def test_a_compacted_table_that_is_no_parquet(self, tmp_path):
        rows = written(tmp_path)
        (tmp_path / "compacted.parquet").write_bytes(b"PAR1 nonsense PAR1")
        reading = read_journal_table(tmp_path)
        assert_same(reading.table, rows)
        assert len(reading.problems) == 1
        assert "compacted.parquet: damaged: " in reading.problems[0]

    def test_a_compacted_table_with_a_damaged_column(self, tmp_path):
        """What else there is, is given."""
        import pyarrow.parquet as pq

        rows = written(tmp_path, [*ROWS, *(report(1, i, val_loss=i / 7) for i in range(1000))])
        compact(tmp_path)
        file = tmp_path / "compacted.parquet"
        group = pq.ParquetFile(file).metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        (column,) = (c for c in columns if c.path_in_schema == "metrics.val_loss")
        content = bytearray(file.read_bytes())
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
        file.write_bytes(content)
        reading = read_journal_table(tmp_path)
        others = [{k: v for k, v in row.metrics.items() if k != "val_loss"} for row in rows]
        without = [replace(row, metrics=kept) for row, kept in zip(rows, others, strict=True)]
        assert_same(reading.table, without)
        assert reading.configs[0] == {"clip": 50.0}
        (problem,) = reading.problems
        assert "compacted.parquet: damaged: column 'metrics.val_loss' cannot be read" in problem
        with pytest.raises(ExperimentError, match="compacted.parquet: damaged"):
            read_journal(tmp_path)


class TestWhileRunning:
    def test_every_prefix_can_be_read(self, tmp_path):
        rows = written(tmp_path / "whole")
        content = segment_of(tmp_path / "whole").read_bytes()
        (tmp_path / "part").mkdir()
        for size in range(0, len(content), 7):
            (tmp_path / "part" / "000001.jsonl").write_bytes(content[:size])
            reading = read_journal_table(tmp_path / "part")
            whole = max(0, content[:size].count(b"\n") - 1)
            assert reading.table.column("seq").to_pylist() == [row.seq for row in rows[:whole]]
            assert reading.problems == []

    def test_while_it_is_being_written_and_compacted(self, tmp_path, monkeypatch):
        """A reader sees all rows up to some moment, never fewer than it saw before."""
        monkeypatch.setattr(journal_module, "SEGMENT_ROWS", 5)
        monkeypatch.setattr(journal_module, "flush", lambda descriptor: None)

        def write():
            count = 0
            for _ in range(8):
                journal = Journal(tmp_path, next_seq=count)
                for _ in range(40):
                    journal.append(report(0, count, val_loss=float(count)))
                    count += 1
                journal.close()
                compact(tmp_path)
                while seen[-1] < count and not given_up.is_set():  # for a reader that is slow
                    time.sleep(0.001)

        seen, given_up = [0], threading.Event()
        journal = Journal(tmp_path)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            self.follow(tmp_path, writer, seen)
        finally:
            given_up.set()
            writer.join()
        journal.close()
        assert read_journal_table(tmp_path).table.num_rows == 320
        assert len(set(seen)) > 8

    def follow(self, directory, writer, seen):
        while writer.is_alive():
            reading = read_journal_table(directory)
            rows = reading.table.num_rows
            assert reading.table.column("seq").to_pylist() == list(range(rows))
            assert reading.problems == []
            assert rows >= seen[-1]
            seen.append(rows)


figures = st.one_of(
    st.none(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False, width=64),
)
some_rows = st.builds(
    Row,
    kind=st.sampled_from(["proposed", "report", "failed"]),
    trial=st.one_of(st.none(), st.integers(0, 3)),
    attempt=st.one_of(st.none(), st.integers(1, 3)),
    iteration=st.one_of(st.none(), st.integers(0, 2**40)),
    config=st.dictionaries(st.sampled_from("abc"), st.one_of(figures, st.text(), st.booleans())),
    metrics=st.dictionaries(st.sampled_from(["loss", "é", 'a"b', "a.b"]), figures),
    values=st.lists(figures, max_size=2),
    decision=st.sampled_from([None, "continue", "stop"]),
    state=st.sampled_from([None, "running", "finished"]),
    reason=st.one_of(st.none(), st.text()),
    worker=st.one_of(st.none(), st.text()),
)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(some_rows, max_size=8))
def test_any_rows_are_the_same_in_columns(tmp_path_factory, rows):
    """In segments and compacted, whatever mixture of types a configuration has."""
    directory = tmp_path_factory.mktemp("journal")
    rows = written(directory, rows)
    expected = read_journal(directory).rows
    assert len(expected) == len(rows)
    for _ in ("segments", "compacted"):
        reading = read_journal_table(directory)
        assert reading.problems == []
        columns = reading.table.to_pydict()
        for name in PLAIN:
            assert columns[name] == [getattr(row, name) for row in expected], name
        for name in reading.metrics:
            told = [row.metrics.get(name) for row in expected]
            assert columns[METRIC + name] == [None if v is None else float(v) for v in told]
        first = {row.trial: row.config for row in reversed(expected) if row.trial is not None}
        assert reading.configs == {trial: config for trial, config in first.items() if config}
        compact(directory)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_whatever_byte_is_damaged_the_rest_is_read(tmp_path_factory, place, byte):
    directory = tmp_path_factory.mktemp("journal")
    rows = written(directory)
    segment = segment_of(directory)
    content = bytearray(segment.read_bytes())
    content[place % len(content)] = byte
    segment.write_bytes(content)
    try:
        reading = read_journal_table(directory)
    except ExperimentError as error:  # the format's number is another one
        assert "written by a newer version" in str(error)
        return
    assert reading.table.num_rows >= len(rows) - 2
    if reading.table.num_rows < len(rows):
        assert reading.problems or reading.torn


def test_times_are_those_of_the_rows(tmp_path):
    rows = written(tmp_path)
    times = read_journal_table(tmp_path).table.column("time").to_pylist()
    assert times == [row.time for row in rows]
