import pytest

from model.training import Trainer
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
