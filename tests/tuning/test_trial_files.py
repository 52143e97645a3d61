import pytest

import model.files
from model.errors import StorageError
from model.training import Trainer
from tuning.experiment import MANIFEST
from tuning.trials.trial_files import TrialFiles, best_file


@pytest.fixture
def trained(tmp_path, tiny_data, tiny_config):
    """A trainer that saved after each of its three reports."""
    files, trainer = TrialFiles(tmp_path, 7), Trainer(tiny_data, tiny_config())
    for _ in trainer.run():
        files.save(trainer.state())
    return files, trainer


def names(files):
    return [path.name for path in files.checkpoints()]


def test_the_two_newest_checkpoints_are_kept(trained, tmp_path):
    files, _ = trained
    assert files.directory == tmp_path / "trials" / "0007"
    assert names(files) == ["checkpoint-00000012.pt", "checkpoint-00000008.pt"]


def test_the_newest_is_restored(trained, tiny_data, tiny_config):
    files, _ = trained
    other = Trainer(tiny_data, tiny_config())
    report, refused = files.restore(other)
    assert (report.iteration, report.state, refused) == (12, "finished", [])


def test_a_torn_newest_is_passed_over_and_said(trained, tiny_data, tiny_config):
    files, straight = trained
    newest = files.checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    other = Trainer(tiny_data, tiny_config())
    report, (refused,) = files.restore(other)
    assert report.iteration == 8
    assert "checkpoint-00000012.pt: is damaged" in refused
    assert list(other.run())[-1].metrics["val_loss"] == straight.last_report.metrics["val_loss"]


def test_without_a_whole_checkpoint_training_begins_anew(trained, tiny_data, tiny_config):
    files, _ = trained
    for path in files.checkpoints():
        path.write_bytes(b"")
    other = Trainer(tiny_data, tiny_config())
    report, refused = files.restore(other)
    assert (report, len(refused), other.iteration) == (None, 2, 0)


def test_only_the_best_weights_outlive_a_trial(trained, tmp_path):
    files, trainer = trained
    files.save_best(trainer.weights())
    (files.directory / ".tmp-of-a-killed-worker").write_bytes(b"half")
    files.remove_checkpoints()
    assert [p.name for p in files.directory.iterdir()] == ["best.pt"]
    assert best_file(tmp_path, 7).exists()


class TestFence:
    """A worker that was given up may come back: its host was cut off, or its storage hung."""

    @pytest.fixture(autouse=True)
    def experiment(self, tmp_path):
        """Attempts write only where the experiment is."""
        (tmp_path / MANIFEST).touch()

    @pytest.fixture
    def trainer(self, tiny_data, tiny_config):
        trainer = Trainer(tiny_data, tiny_config())
        trainer.train_interval()
        return trainer

    def test_an_earlier_attempt_writes_nothing_any_more(self, tmp_path, trainer):
        first, second = (TrialFiles(tmp_path, 7, attempt) for attempt in (1, 2))
        first.take_over()
        first.save_best(trainer.weights())
        first.save(trainer.state())
        second.take_over()
        before = {path.name: path.read_bytes() for path in first.directory.iterdir()}
        trainer.train_interval()
        for write, state in ((first.save, trainer.state()), (first.save_best, trainer.weights())):
            with pytest.raises(StorageError) as raised:
                write(state)
            assert str(raised.value) == (
                f"{first.directory}: attempt 2 goes on with this trial; attempt 1 was given up, "
                "and writes nothing any more."
            )
        assert {path.name: path.read_bytes() for path in first.directory.iterdir()} == before
        second.save_best(trainer.weights())
        assert second.best_metrics() == trainer.last_report.metrics

    def test_also_where_it_hung_in_the_middle_of_writing(self, tmp_path, trainer, monkeypatch):
        """The bytes are on disk already when the other attempt takes over."""
        first, second = (TrialFiles(tmp_path, 7, attempt) for attempt in (1, 2))
        flush = model.files.flush

        def hang(descriptor):
            monkeypatch.setattr(model.files, "flush", flush)
            second.take_over()
            second.save_best({"metrics": {"val_loss": 1.0}})
            flush(descriptor)

        monkeypatch.setattr(model.files, "flush", hang)
        with pytest.raises(StorageError, match="attempt 2 goes on with this trial"):
            first.save_best(trainer.weights())
        assert first.best_metrics() == {"val_loss": 1.0}
        assert not list(first.directory.glob(".tmp-*"))

    def test_a_later_attempt_is_not_taken_over_by_an_earlier_one(self, tmp_path):
        TrialFiles(tmp_path, 7, 3).take_over()
        with pytest.raises(StorageError, match="attempt 3 goes on with this trial; attempt 2 was"):
            TrialFiles(tmp_path, 7, 2).take_over()
        TrialFiles(tmp_path, 7, 3).take_over()
        TrialFiles(tmp_path, 7, 4).take_over()

    def test_an_unreadable_number_keeps_nobody_out(self, tmp_path, trainer):
        files = TrialFiles(tmp_path, 7, 2)
        files.take_over()
        (files.directory / "attempt").write_text("two")
        files.save_best(trainer.weights())
        assert files.best.exists()
