"""Who may drive an experiment on an object store, and what is sent and fetched of it."""

import json
import threading
import time
from dataclasses import replace

import pytest

import tuning.storage.mirror
import tuning.storage.session
from model.errors import ExperimentError, StorageError
from tuning.journal import Journal, compact, read_journal
from tuning.journal.row import Row
from tuning.storage.mirror import Mirror
from tuning.storage.session import (
    beat,
    begin_session,
    is_alive,
    new_session,
    read_session,
    write_session,
)
from tuning.storage.working_copy import copy_of, fetch, fetch_file

NAMES = ("data.safetensors", "experiment.json")


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(tuning.storage.session, "DEAD_SECONDS", 1.5)
    monkeypatch.setattr(tuning.storage.session, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(tuning.storage.session, "_SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(tuning.storage.mirror, "BEAT_SECONDS", 0.1)


@pytest.fixture
def experiment(remote):
    return remote / "demo"


@pytest.fixture
def copy(experiment):
    """A new experiment's copy, not sent yet."""
    directory = copy_of(experiment)
    (directory / "journal").mkdir(parents=True)
    (directory / "experiment.json").write_text("{}")
    (directory / "data.safetensors").write_bytes(b"data")
    (directory / "study.log").write_text("read out of the journal again")
    return directory


def wait_until(true):
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def rows_of(directory):
    return [row.reason for row in read_journal(directory / "journal").rows]


class TestSession:
    def test_one_after_another(self, experiment, capsys):
        assert read_session(experiment) is None and not is_alive(experiment)
        first = begin_session(experiment, new_session(), None, None)
        assert is_alive(experiment)
        write_session(experiment, replace(first, ended=True))
        assert not is_alive(experiment)
        second = begin_session(experiment, new_session(), read_session(experiment), None)
        assert second.token != first.token
        assert capsys.readouterr().out == ""

    def test_a_living_driver_keeps_others_out(self, experiment):
        alive, ending = begin_session(experiment, new_session(), None, None), threading.Event()

        def live(session=alive):
            while not ending.wait(0.2):
                session = beat(experiment, session)

        thread = threading.Thread(target=live)
        thread.start()
        try:
            with pytest.raises(ExperimentError, match=f"is being run by {alive.owner}."):
                begin_session(experiment, new_session(), read_session(experiment), None)
        finally:
            ending.set()
            thread.join()

    def test_a_dead_ones_right_passes_on_and_it_is_told_if_it_comes_back(self, experiment, capsys):
        dead = begin_session(experiment, new_session(), None, None)
        new = begin_session(experiment, new_session(), dead, None)
        assert "ran this search; is it alive? 1.5 s" in capsys.readouterr().out
        with pytest.raises(ExperimentError, match=f"was taken over by {new.owner}, for nothing"):
            beat(experiment, dead)
        assert read_session(experiment) == new

    def test_a_machine_need_not_wait_for_its_own_dead_driver(self, experiment, capsys):
        dead = begin_session(experiment, new_session(), None, None)
        begin_session(experiment, new_session(), dead, dead.token)
        assert capsys.readouterr().out == ""

    def test_a_request_that_was_answered_too_late_is_not_somebody_else(self, experiment, capsys):
        session = new_session()
        first = begin_session(experiment, session, None, None)
        again = begin_session(experiment, session, read_session(experiment), None)
        assert (first.token, again.token) == (session.token, session.token)
        assert capsys.readouterr().out == ""

    def test_of_two_who_begin_at_once_one_has_it(self, experiment, monkeypatch):
        monkeypatch.setattr(tuning.storage.session, "_SETTLE_SECONDS", 1.0)
        ended = replace(begin_session(experiment, new_session(), None, None), ended=True)
        write_session(experiment, ended)
        had, refused = [], []

        def begin():
            try:
                had.append(begin_session(experiment, new_session(), ended, None))
            except ExperimentError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(had), len(refused)) == (1, 1)
        assert had[0].number == ended.number + 1
        assert "was taken over by" in refused[0]

    def test_a_damaged_one_is_said(self, experiment):
        (experiment / "session.json").write(b"{")
        with pytest.raises(ExperimentError, match=r"session\.json: cannot be read; remove it"):
            read_session(experiment)


class TestMirror:
    def test_everything_is_there_when_it_has_begun_the_manifest_last(self, experiment, copy, store):
        Mirror(experiment, copy, NAMES).close()
        sent = [line for line in store.requests() if f"/{experiment.key}/" in line]
        puts = [line.rpartition("/")[2] for line in sent if line.startswith("PUT")]
        assert [name for name in puts if name in NAMES] == ["data.safetensors", "experiment.json"]
        there = {path.name for path, _ in experiment.walk()}
        assert there - {"journal"} == {"data.safetensors", "experiment.json", "session.json"}
        assert read_session(experiment).ended

    def test_rows_follow_and_then_what_waits_for_them(self, experiment, copy):
        mirror, journal = Mirror(experiment, copy, NAMES), Journal(copy / "journal")
        journal.append(Row(kind="session", reason="one"))
        seen = []
        mirror.afterwards(
            lambda: seen.append((experiment / "journal" / "000001.jsonl").read_text())
        )
        wait_until(lambda: seen)
        assert '"one"' in seen[0]
        journal.append(Row(kind="session", reason="two"))
        journal.close()
        compact(copy / "journal")
        mirror.close()
        names = [path.name for path in (experiment / "journal").iterdir() if path.is_file()]
        assert names == ["compacted.parquet"]

    def test_what_must_not_be_lost_is_waited_for(self, experiment, copy, monkeypatch):
        monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 1e9)
        mirror, journal = Mirror(experiment, copy, NAMES), Journal(copy / "journal")
        for reason in ("one", "two"):
            journal.append(Row(kind="session", reason=reason))
            mirror.flush()
            sent = (experiment / "journal" / "000001.jsonl").read_text()
            assert f'"{reason}"' in sent
        mirror.close()

    def test_who_waits_hears_that_it_cannot_be_sent(self, experiment, copy):
        mirror = Mirror(experiment, copy, NAMES)
        begin_session(experiment, new_session(), None, None)
        Journal(copy / "journal").append(Row(kind="session", reason="late"))
        with pytest.raises(ExperimentError, match="was taken over by"):
            mirror.flush()

    def test_a_journal_that_somebody_removed_here_comes_back(self, experiment, copy):
        journal = Journal(copy / "journal")
        journal.append(Row(kind="session", reason="one"))
        journal.close()
        Mirror(experiment, copy, NAMES).close()
        (copy / "journal" / "000001.jsonl").unlink()
        Mirror(experiment, copy, NAMES).close()
        assert rows_of(copy) == ["one"]
        assert b'"one"' in (experiment / "journal" / "000001.jsonl").read_bytes()

    def test_anything_that_goes_wrong_here_ends_the_search(self, experiment, copy):
        mirror = Mirror(experiment, copy, NAMES)
        mirror.afterwards(lambda: 1 / 0)
        wait_until(lambda: not mirror._thread.is_alive())
        with pytest.raises(StorageError, match="cannot be kept up to date: division by zero"):
            mirror.check()

    def test_what_the_copy_does_not_have_stays(self, experiment, copy):
        Mirror(experiment, copy, NAMES).close()
        for name in NAMES:
            (copy / name).unlink()
        Mirror(experiment, copy, NAMES).close()
        assert (experiment / "data.safetensors").read_bytes() == b"data"
        assert (experiment / "experiment.json").read_bytes() == b"{}"

    def test_it_beats(self, experiment, copy):
        mirror = Mirror(experiment, copy, NAMES)
        wait_until(lambda: read_session(experiment).beat > 2)
        assert is_alive(experiment)
        mirror.close()
        assert not is_alive(experiment)

    def test_the_search_hears_that_another_has_taken_over(self, experiment, copy):
        mirror = Mirror(experiment, copy, NAMES)
        mirror.check()
        begin_session(experiment, new_session(), None, None)
        wait_until(lambda: not mirror._thread.is_alive())
        with pytest.raises(ExperimentError, match="was taken over by"):
            mirror.check()
        with pytest.raises(ExperimentError, match="was taken over by"):
            mirror.close()

    def test_a_driver_that_slept_sends_nothing_over_what_another_has_done(
        self, experiment, copy, monkeypatch
    ):
        monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 1e9)
        mirror = Mirror(experiment, copy, NAMES)
        begin_session(experiment, new_session(), None, None)
        (experiment / "journal" / "000001.jsonl").write(b"of the other driver")
        Journal(copy / "journal").append(Row(kind="session", reason="late"))
        with pytest.raises(ExperimentError, match="was taken over by"):
            mirror._push()
        assert (experiment / "journal" / "000001.jsonl").read_bytes() == b"of the other driver"
        mirror._end_thread()

    def test_a_store_that_hangs_for_a_while(self, experiment, copy, store, monkeypatch):
        monkeypatch.setattr(tuning.storage.remote_path, "_REQUEST_SECONDS", 1.0)
        mirror, said = Mirror(experiment, copy, NAMES), []
        mirror.on_problem = said.append
        with store.hanging():
            journal = Journal(copy / "journal")
            journal.append(Row(kind="session", reason="meanwhile"))
            time.sleep(3)
        mirror.close()
        assert b"meanwhile" in (experiment / "journal" / "000001.jsonl").read_bytes()

    def test_away_for_too_long_ends_the_search_and_the_next_session_sends_the_rest(
        self, experiment, copy, store, monkeypatch, bucket
    ):
        mirror = Mirror(experiment, copy, NAMES)
        monkeypatch.setenv("DIALOGUE_TUNE_STORAGE_PATIENCE", "0")
        store.client().delete_object(Bucket=bucket, Key="runs/demo/session.json")
        away = replace(experiment, remote=replace(experiment.remote, options=_NOBODY))
        mirror.remote = away
        Journal(copy / "journal").append(Row(kind="session", reason="left behind"))
        wait_until(lambda: not mirror._thread.is_alive())
        with pytest.raises(StorageError, match="cannot be written: .*NETWORK_CONNECTION") as raised:
            mirror.check()
        assert str(raised.value).splitlines()[1:] == [
            f"what was not sent is kept on this machine, in {copy}; go on here: "
            f"python -m tuning resume '{away}'"
        ]
        Mirror(experiment, copy, NAMES).close()
        assert b"left behind" in (experiment / "journal" / "000001.jsonl").read_bytes()

    def test_nobody_waits_for_the_store_after_ctrl_c(self, experiment, copy, monkeypatch):
        """Its patience is five minutes; what could not be sent waits for the next session."""
        mirror = Mirror(experiment, copy, NAMES)
        mirror.remote = replace(experiment, remote=replace(experiment.remote, options=_NOBODY))
        Journal(copy / "journal").append(Row(kind="session", reason="left behind"))
        time.sleep(0.5)
        assert mirror._thread.is_alive(), "it waits"
        began = time.monotonic()
        mirror.stopped = lambda: True
        with pytest.raises(StorageError, match="go on here: python -m tuning resume"):
            mirror.close()
        assert time.monotonic() - began < 30
        Mirror(experiment, copy, NAMES).close()
        assert b"left behind" in (experiment / "journal" / "000001.jsonl").read_bytes()

    def test_an_end_that_cannot_be_sent_is_said_too(self, experiment, copy, monkeypatch):
        monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 1e9)
        mirror = Mirror(experiment, copy, NAMES)
        mirror.remote = replace(experiment, remote=replace(experiment.remote, options=_NOBODY))
        mirror.stopped = lambda: True
        with pytest.raises(StorageError, match="go on here: python -m tuning resume"):
            mirror.close()


_NOBODY = "endpoint_override=http%3A%2F%2F127.0.0.1%3A9"


class TestFetch:
    @pytest.fixture
    def sent(self, experiment, copy):
        """An experiment of one row; its driver has ended."""
        with_row = Journal(copy / "journal")
        with_row.append(Row(kind="session", reason="one"))
        Mirror(experiment, copy, NAMES).close()
        return experiment

    @pytest.fixture
    def elsewhere(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "elsewhere"))

    def test_the_data_only_when_asked_for(self, sent, elsewhere):
        copy = fetch(sent)
        files = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
        assert files - {".fetching"} == {"experiment.json", "journal/000001.jsonl", ".fetched.json"}
        assert rows_of(copy) == ["one"]
        fetch_file(sent, "data.safetensors")
        assert (copy / "data.safetensors").read_bytes() == b"data"
        fetch_file(sent, "none")

    def test_again_only_what_is_new(self, sent, elsewhere, store):
        fetch(sent)
        before = len(store.requests())
        fetch(sent)
        bodies = [r for r in store.requests()[before:] if r.startswith("GET") and "list" not in r]
        assert [r.split(" ")[1] for r in bodies] == [f"/{sent.key}/session.json"]

    def test_what_was_compacted_meanwhile_goes(self, sent, copy, elsewhere, monkeypatch, tmp_path):
        there = fetch(sent)
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "cache"))
        mirror = Mirror(sent, copy, NAMES)
        compact(copy / "journal")
        mirror.close()
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "elsewhere"))
        assert fetch(sent) == there
        assert [p.name for p in (there / "journal").iterdir()] == ["compacted.parquet"]
        assert rows_of(there) == ["one"]

    def test_the_copy_of_a_killed_driver_is_newer_and_stays(self, sent, copy):
        journal = Journal(copy / "journal", next_seq=1)
        journal.append(Row(kind="session", reason="never sent"))
        assert rows_of(fetch(sent)) == ["one", "never sent"]
        Mirror(sent, copy, NAMES).close()
        assert len(list((sent / "journal").iterdir())) == 2

    def test_but_not_where_somebody_else_has_gone_on(self, sent, copy, monkeypatch, tmp_path):
        Journal(copy / "journal", next_seq=1).append(Row(kind="session", reason="never sent"))
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "elsewhere"))
        there = fetch(sent)
        mirror = Mirror(sent, there, NAMES)
        Journal(there / "journal", next_seq=1).append(Row(kind="session", reason="elsewhere"))
        mirror.close()
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "cache"))
        assert rows_of(fetch(sent)) == ["one", "elsewhere"]

    def test_copies_of_different_servers_lie_apart(self, experiment, monkeypatch):
        one = copy_of(experiment)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert copy_of(experiment) != one
        monkeypatch.delenv("DIALOGUE_TUNE_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        assert str(copy_of(experiment)) == f"/nowhere/dialogue-tune/s3/{experiment.key}"


def test_the_session_names_no_more_than_host_and_process(experiment):
    begin_session(experiment, new_session(), None, None)
    assert set(json.loads((experiment / "session.json").read_text())) == {
        "token",
        "owner",
        "beat",
        "number",
        "ended",
    }
