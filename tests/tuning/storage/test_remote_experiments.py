"""Experiments on an object store, without Ray: what was not sent, what is damaged, who looks."""

import threading
import time

import pytest

import tuning.storage.mirror
import tuning.storage.session
import tuning.storage.working_copy
from analysis import Results
from model.errors import ExperimentError, PreparedDataError
from tests.analysis.conftest import make_experiment, proposed, reported
from tuning.experiment import Experiment
from tuning.going_on import is_complete, resume
from tuning.jobs.sending import files_of
from tuning.journal import Journal, Row, read_journal
from tuning.storage.session import read_session

NAME = "small"
ROWS = [
    Row(kind="session", reason="0 trials known"),
    proposed(0),
    reported(0, 4, "finished", val_loss=2.0),
    Row(kind="ended", reason="complete"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(tuning.storage.session, "_SETTLE_SECONDS", 0.05)


@pytest.fixture
def experiment(remote, tiny_data):
    """An experiment of one trial that is not on the object store yet."""
    return make_experiment(remote, tiny_data, trials=1)


def write(experiment, rows):
    """Writes rows as a driver does whose journal is its copy's."""
    reading = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    journal = Journal(experiment.journal, next_seq=len(reading))
    for row in rows:
        journal.append(row)
    journal.close()


def kinds(experiment):
    return [row.kind for row in read_journal(experiment.journal).rows]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Goes to another machine, which has no copies."""

    def go():
        monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "elsewhere"))

    return go


def killed(experiment, monkeypatch, rows):
    """A driver that dies before it sends rows: no second look, no end of its session."""
    monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 1e9)
    with experiment.lock():
        mirror = tuning.storage.mirror.Mirror(
            experiment.remote, experiment.path, ("data.safetensors", "experiment.json")
        )
        monkeypatch.setattr(mirror, "_push", lambda: None)
        write(experiment, rows)
        mirror._end_thread()


class TestTheEndThatWasNotSent:
    def test_resume_sends_it_and_runs_nothing(self, experiment, remote, monkeypatch, elsewhere):
        killed(experiment, monkeypatch, ROWS)
        assert not list((remote / NAME / "journal").iterdir())
        began = time.monotonic()
        assert is_complete(resume(NAME, storage=str(remote)))
        assert time.monotonic() - began < 20, "nobody waits for a driver of this machine to die"
        assert read_session(remote / NAME).ended
        elsewhere()
        assert kinds(Experiment.open(NAME, str(remote))) == [row.kind for row in ROWS]

    def test_what_was_sent_in_good_order_is_left_alone(self, experiment, remote, store):
        with experiment.hold():
            write(experiment, ROWS)
        session, before = read_session(remote / NAME), len(store.requests())
        resume(NAME, storage=str(remote))
        assert read_session(remote / NAME) == session
        assert not [line for line in store.requests()[before:] if line.startswith("PUT")]

    def test_a_driver_elsewhere_is_not_disturbed(self, experiment, remote, monkeypatch, elsewhere):
        """It has written the end, and is about to send the rest."""
        killed(experiment, monkeypatch, [])
        (remote / NAME / "journal" / "000001.jsonl").write(_segment_of(experiment))
        session = read_session(remote / NAME)
        elsewhere()
        assert is_complete(resume(NAME, storage=str(remote)))
        assert read_session(remote / NAME) == session


def _segment_of(experiment):
    write(experiment, ROWS)
    (segment,) = experiment.journal.glob("*.jsonl")
    return segment.read_bytes()


class TestWeightsToSend:
    """What ``fetch`` and ``status`` of a job hand out lies in the copy: workers write elsewhere."""

    @pytest.fixture
    def weights(self, experiment, remote):
        with experiment.hold():
            write(experiment, ROWS)
        weights = remote / NAME / "trials" / "0000" / "best.pt"
        weights.write(b"whole")
        return weights

    def sent(self, experiment):
        files = files_of(experiment, top=1, data=False)
        return [path.read_bytes() for path in files if path.name == "best.pt"]

    @pytest.mark.parametrize("damage", [None, b"", b"who"], ids=["gone", "empty", "torn"])
    def test_they_are_fetched_again_where_the_copys_are_damaged(self, experiment, weights, damage):
        assert self.sent(experiment) == [b"whole"]
        copy = experiment.path / "trials" / "0000" / "best.pt"
        if damage is None:
            copy.unlink()
        else:
            copy.write_bytes(damage)
        assert self.sent(experiment) == [b"whole"]

    def test_better_ones_of_a_search_that_goes_on_are_fetched(self, experiment, weights):
        assert self.sent(experiment) == [b"whole"]
        weights.write(b"better")
        assert self.sent(experiment) == [b"better"]

    def test_none_there(self, experiment, weights):
        weights.unlink()
        assert self.sent(experiment) == []


class TestData:
    """The data that a search began with lie on the object store, and in the copy when asked for."""

    @pytest.fixture
    def sent(self, experiment):
        with experiment.hold():
            write(experiment, ROWS)
        return experiment

    @pytest.mark.parametrize("damage", [None, b"", b"torn"], ids=["gone", "empty", "torn"])
    def test_they_are_fetched_again_where_the_copys_are_damaged(self, sent, tiny_data, damage):
        if damage is None:
            sent.data_file.unlink()
        else:
            sent.data_file.write_bytes(damage)
        assert sent.data().fingerprint == tiny_data.fingerprint

    def test_where_they_are_damaged_there_too_it_is_said(self, sent):
        (sent.remote / "data.safetensors").write(b"damaged")
        sent.data_file.unlink()
        with pytest.raises(PreparedDataError, match=r"data\.safetensors: "):
            sent.data()


class TestWhoLooks:
    """Who only looks and who drives do not keep each other out, on one machine."""

    @pytest.fixture
    def slow(self, monkeypatch):
        """Fetching takes until it may go on; says when it has begun."""
        begun, go_on = threading.Event(), threading.Event()
        fetch = tuning.storage.working_copy.bring_up_to_date

        def slowly(*arguments):
            begun.set()
            assert go_on.wait(30)
            fetch(*arguments)

        monkeypatch.setattr(tuning.storage.working_copy, "bring_up_to_date", slowly)
        yield begun, go_on
        go_on.set()

    @pytest.fixture
    def in_thread(self):
        """Does something in a thread; gives a function that returns what it gave."""
        threads = []

        def begin(action):
            given = []
            threads.append(threading.Thread(target=lambda: given.append(action())))
            threads[-1].start()

            def result():
                thread.join(30)
                assert given, "it raised, or did not end"
                return given[0]

            thread = threads[-1]
            return result

        yield begin
        for thread in threads:
            thread.join(30)

    @pytest.fixture
    def there(self, experiment, remote, elsewhere):
        """A search that was sent, on a machine that has no copy of it."""
        with experiment.hold():
            write(experiment, ROWS[:2])
        elsewhere()
        return str(remote)

    def test_while_it_is_driven_here_its_copy_is_shown_as_it_is(self, there):
        experiment = Experiment.open(NAME, there)
        with experiment.hold() as mirror:
            write(experiment, ROWS[2:3])
            results = Results.open(NAME, there)
            assert results.running
            assert results.trials["val_loss"].tolist() == [2.0]
            mirror.check()
            write(experiment, ROWS[3:])
        assert kinds(Experiment.open(NAME, there)) == [row.kind for row in ROWS]

    def test_a_driver_waits_for_who_is_fetching(self, there, remote, slow, in_thread):
        begun, go_on = slow
        go_on.set()
        experiment = Experiment.open(NAME, there)
        go_on.clear(), begun.clear()
        looking = in_thread(lambda: Experiment.open(NAME, there))
        assert begun.wait(30)

        def drive():
            with experiment.hold():
                write(experiment, ROWS[2:])
            return True

        driven = in_thread(drive)
        time.sleep(1)  # longer than a driver waits for another one
        assert kinds(experiment) == ["session", "proposed"]
        go_on.set()
        assert driven() and looking()
        assert kinds(experiment) == [row.kind for row in ROWS]

    def test_two_who_look_see_it_whole(self, there, slow, in_thread):
        begun, go_on = slow
        first, second = (in_thread(lambda: Results.open(NAME, there)) for _ in range(2))
        assert begun.wait(30)
        time.sleep(1)
        go_on.set()
        assert [len(each().trials) for each in (first, second)] == [1, 1]

    def test_who_fetches_for_ever_is_named(self, there, slow, in_thread, monkeypatch):
        monkeypatch.setenv("DIALOGUE_TUNE_STORAGE_PATIENCE", "0.3")
        looking = in_thread(lambda: Experiment.open(NAME, there))
        assert slow[0].wait(30)
        with pytest.raises(ExperimentError, match=r"small: is being fetched by .+, process \d+\.$"):
            Experiment.open(NAME, there)
        slow[1].set()
        assert looking()
