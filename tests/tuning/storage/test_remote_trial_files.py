"""A trial's files on an object store: as in a directory, see test_trial_files.py."""

import pytest

from model.checkpoint import read_checkpoint
from model.errors import CheckpointError, StorageError
from model.training import Trainer
from tuning.experiment import MANIFEST
from tuning.trials.cloning import adopt
from tuning.trials.trial_files import TrialFiles, checkpoints_among, contents_of_trials


@pytest.fixture
def experiment(remote):
    (remote / "demo" / MANIFEST).write(b"{}")
    return remote / "demo"


@pytest.fixture
def trained(experiment, tiny_data, tiny_config):
    """A trainer that saved after each of its three reports."""
    files, trainer = TrialFiles(experiment, 7, 1), Trainer(tiny_data, tiny_config())
    for _ in trainer.run():
        files.save(trainer.state())
        files.save_best(trainer.weights())
    return files, trainer


def names(files):
    return [path.name for path in files.directory.iterdir() if not path.is_dir()]


def test_the_two_newest_checkpoints_and_the_best_weights_are_kept(trained):
    files, trainer = trained
    kept = ["best.pt", "checkpoint-00000008.pt", "checkpoint-00000012.pt"]
    assert sorted(names(files)) == kept
    assert files.best_metrics() == trainer.last_report.metrics
    files.remove_checkpoints()
    assert names(files) == ["best.pt"]


def test_the_newest_whole_one_is_restored(trained, tiny_data, tiny_config):
    files, straight = trained
    newest = files.checkpoints()[0]
    newest.write(newest.read_bytes()[:-100])
    other = Trainer(tiny_data, tiny_config())
    report, (refused,) = files.restore(other)
    assert report.iteration == 8
    assert refused.startswith(f"{newest}: is damaged")
    assert list(other.run())[-1].metrics["val_loss"] == straight.last_report.metrics["val_loss"]


def test_nothing_there(experiment, tiny_data, tiny_config):
    files = TrialFiles(experiment, 3, 1)
    assert (files.checkpoints(), files.best_metrics()) == ([], {})
    assert files.restore(Trainer(tiny_data, tiny_config())) == (None, [])
    files.remove_checkpoints()
    with pytest.raises(CheckpointError, match="cannot be read: no such file"):
        read_checkpoint(files.best)


def test_an_earlier_attempt_writes_nothing_any_more(experiment, trained):
    first, trainer = trained
    second = TrialFiles(experiment, 7, 2)
    second.take_over()
    for write, state in ((first.save, trainer.state()), (first.save_best, trainer.weights())):
        with pytest.raises(StorageError, match="attempt 2 goes on with this trial; attempt 1 was"):
            write(state)
    with pytest.raises(StorageError, match="attempt 2 goes on with this trial; attempt 1 was"):
        TrialFiles(experiment, 7, 1)._take_over()
    second.save_best({"metrics": {"val_loss": 1.0}})
    assert second.best_metrics() == {"val_loss": 1.0}
    assert not [name for name in names(second) if name.startswith(".tmp-")]


def test_a_later_session_keeps_out_what_a_lost_driver_gave_out(experiment, trained):
    """The lost one had given out attempts that the new one knows nothing of."""
    _, trainer = trained
    lost, new = TrialFiles(experiment, 7, 3, session=1), TrialFiles(experiment, 7, 1, session=2)
    lost.take_over()
    new.take_over()
    with pytest.raises(StorageError, match="attempt 1 goes on with this trial; attempt 3 was"):
        lost.save(trainer.state())
    new.begin_anew()
    assert names(new) == ["attempt"]
    new.save_best(trainer.weights())


def test_a_clone_is_a_copy_at_the_server(experiment, trained, tiny_data, tiny_config, store):
    source, _ = trained
    files = TrialFiles(experiment, 8, 1)
    before = len(store.requests())
    assert files.keep_clone(source, 4)
    sent = [line for line in store.requests()[before:] if line.startswith(("PUT", "POST"))]
    assert [line.split("?")[0].rpartition("/")[2] for line in sent] == ["clone-00000004.pt"]
    trainer = Trainer(tiny_data, tiny_config())
    assert adopt(files, trainer, 4) is None
    assert [path.name for path in files.checkpoints()] == ["checkpoint-00000004.pt"]
    assert not TrialFiles(experiment, 9, 1).keep_clone(TrialFiles(experiment, 10, 1), 4)


def test_all_trials_are_listed_at_once(experiment, trained, store):
    files, _ = trained
    before = len(store.requests())
    contents = contents_of_trials(experiment)
    assert len(store.requests()) - before <= 2
    assert checkpoints_among(contents(7)) == files.checkpoints()
    assert files.best in contents(7)
    assert contents(8) == []
