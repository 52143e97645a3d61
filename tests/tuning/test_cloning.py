"""A trial goes on with another's weights: the files of it, with real training."""

import pytest
import torch

from model.checkpoint import read_checkpoint
from model.config import Config
from model.errors import StorageError
from model.training import Trainer
from tuning.trials.cloning import adopt
from tuning.trials.trial_files import TrialFiles

FIELDS = {
    "min_count": 1,
    "hidden_size": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "batch_size": 4,
    "iterations": 12,
    "report_every": 2,
    "device": "cpu",
}
SOURCE = FIELDS | {"learning_rate": 0.01, "seed": 0}
BEFORE = FIELDS | {"learning_rate": 0.001, "seed": 0}
AFTER = FIELDS | {"learning_rate": 0.012, "seed": 0}


@pytest.fixture
def trial(tmp_path, tiny_data):
    """A trial at iteration 4 that is to copy one at iteration 6: its files, and the source's."""

    def trained(number, config, intervals):
        trainer, files = (
            Trainer(tiny_data, Config.from_mapping(config)),
            TrialFiles(tmp_path, number),
        )
        for _ in range(intervals):
            trainer.train_interval()
            files.save(trainer.state())
        return files

    source, files = trained(0, SOURCE, 3), trained(1, BEFORE, 2)
    assert files.keep_clone(source, 4)
    return files, source


def new_trainer(data, config=None):
    return Trainer(data, Config.from_mapping(config or AFTER))


def test_weights_of_the_source_and_figures_of_its_own(trial, tiny_data):
    files, source = trial
    before = read_checkpoint(files.checkpoint(4))
    donor = read_checkpoint(source.checkpoint(6))
    trainer = new_trainer(tiny_data)
    assert adopt(files, trainer, 4) is None
    report, refused = files.restore(trainer)
    assert refused == []
    assert (trainer.iteration, report.iteration) == (4, 4)
    assert report.metrics == before["report"]["metrics"]
    assert trainer.best_val_loss == before["best_val_loss"]
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, donor["weights"][name], rtol=0, atol=0)
    optimizer = trainer.optimizers.optimizers["encoder"]
    assert [group["lr"] for group in optimizer.param_groups] == [0.012]
    moments = donor["optimizers"]["encoder"]["state"][0]["exp_avg"]
    torch.testing.assert_close(next(iter(optimizer.state.values()))["exp_avg"], moments)
    assert [report.iteration for report in trainer.run()] == [6, 8, 10, 12]


def test_only_what_is_of_the_new_settings_is_left(trial, tiny_data):
    files, _ = trial
    adopt(files, new_trainer(tiny_data), 4)
    assert sorted(path.name for path in files.directory.iterdir()) == ["checkpoint-00000004.pt"]


def test_the_sources_checkpoint_is_kept_though_the_source_goes_on(trial, tiny_data):
    files, source = trial
    weights = read_checkpoint(source.checkpoint(6))["weights"]
    source.remove_checkpoints()
    adopt(files, new_trainer(tiny_data), 4)
    taken = read_checkpoint(files.checkpoint(4))["weights"]
    assert all(torch.equal(taken[name], tensor) for name, tensor in weights.items())


def test_done_twice_is_done_once(trial, tiny_data, monkeypatch):
    """Killed after the new checkpoint was written, before the old files were removed."""
    files, _ = trial
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *arguments, **keywords: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            adopt(files, new_trainer(tiny_data), 4)
    first = read_checkpoint(files.checkpoint(4))
    adopt(files, new_trainer(tiny_data), 4)
    again = read_checkpoint(files.checkpoint(4))
    assert first["report"] == again["report"]
    assert all(torch.equal(again["weights"][n], tensor) for n, tensor in first["weights"].items())
    assert adopt(files, new_trainer(tiny_data), 4) is None


def test_a_clone_that_went_on_is_left_alone(trial, tiny_data):
    files, _ = trial
    trainer = new_trainer(tiny_data)
    adopt(files, trainer, 4)
    files.restore(trainer)
    trainer.train_interval()
    files.save(trainer.state())
    before = {path: path.read_bytes() for path in files.checkpoints()}
    assert adopt(files, new_trainer(tiny_data), 4) is None
    assert {path: path.read_bytes() for path in files.checkpoints()} == before


def test_without_the_sources_checkpoint_it_goes_on_with_its_own(trial, tiny_data):
    files, _ = trial
    before = read_checkpoint(files.checkpoint(4))["weights"]
    files.clone(4).unlink()
    trainer = new_trainer(tiny_data)
    assert adopt(files, trainer, 4) == "no checkpoint to clone; it goes on with its own weights"
    files.restore(trainer)
    assert trainer.iteration == 4
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


def test_without_its_own_checkpoint_it_has_no_figures(trial, tiny_data):
    files, _ = trial
    files.checkpoint(4).write_bytes(b"damaged")
    trainer = new_trainer(tiny_data)
    adopt(files, trainer, 4)
    report, refused = files.restore(trainer)
    assert (report, refused, trainer.iteration) == (None, [], 4)
    assert trainer.train_interval().iteration == 6


def test_nothing_to_keep(tmp_path):
    assert not TrialFiles(tmp_path, 1).keep_clone(TrialFiles(tmp_path, 0), 4)


def test_without_links_it_is_a_copy(trial, monkeypatch):
    def no_links(*arguments):
        raise OSError(95, "not supported")

    files, source = trial
    monkeypatch.setattr("os.link", no_links)
    assert files.keep_clone(source, 8)
    assert files.clone(8).read_bytes() == source.checkpoint(6).read_bytes()
    assert files.clone(8).stat().st_nlink == 1


def test_where_nothing_can_be_kept_that_is_said(trial):
    files, source = trial
    files.clone(8).mkdir()
    with pytest.raises(StorageError, match="clone-00000008.pt: cannot be written: it is a direct"):
        files.keep_clone(source, 8)
