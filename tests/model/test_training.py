"""The trainer: equal runs, exact resume, honest figures, divergence, damaged checkpoints."""

import math
import pickle

import pytest
import torch

from model.batching import Batches
from model.checkpoint import FORMAT, read_checkpoint, write_checkpoint
from model.errors import CheckpointError, ConfigurationError, StorageError
from model.evaluation import evaluate, unigram_loss
from model.training import Trainer, resolve_device
from model.vocabulary import PAD

TIMES = {"tokens_per_second", "train_seconds", "eval_seconds"}


def figures(reports):
    return [
        (r.iteration, r.state, {k: v for k, v in r.metrics.items() if k not in TIMES})
        for r in reports
    ]


def weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def assert_same_weights(a, b):
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_reports_at_each_interval_and_at_the_end(tiny_data, tiny_config):
    reports = list(Trainer(tiny_data, tiny_config(iterations=10, report_every=4)).run())
    assert [(r.iteration, r.state) for r in reports] == [
        (4, "running"),
        (8, "running"),
        (10, "finished"),
    ]
    metrics = reports[-1].metrics
    assert metrics["val_perplexity"] == pytest.approx(math.exp(metrics["val_loss"]))
    assert 0 <= metrics["val_token_accuracy"] <= 1
    batches_in_an_epoch = Batches(tiny_data, "train").per_epoch(8)
    assert metrics["epoch"] == pytest.approx(10 / batches_in_an_epoch)
    assert metrics["grad_norm"] >= max(metrics["encoder_grad_norm"], metrics["decoder_grad_norm"])


def test_best_is_the_running_minimum(tiny_data, tiny_config):
    reports = list(Trainer(tiny_data, tiny_config(iterations=60, learning_rate=0.02)).run())
    losses = [r.metrics["val_loss"] for r in reports]
    for i, report in enumerate(reports):
        best = min(losses[: i + 1])
        assert report.metrics["best_val_loss"] == best
        assert report.metrics["best_iteration"] == reports[losses.index(best)].iteration
        assert report.improved == (losses[i] == best and losses.index(best) == i)


def test_loss_is_the_token_mean_over_the_interval(tiny_data, tiny_config):
    """With a learning rate of almost nothing it is the loss of the untrained model."""
    config = tiny_config(learning_rate=1e-12, dropout=0.0, iterations=4, precision="fp32")
    trainer = Trainer(tiny_data, config)
    nll = tokens = 0
    for i in range(4):
        batch = trainer.train_batches.at(i, 8, 0)
        from model.loss import teacher_forced

        losses = teacher_forced(trainer.model, batch)
        nll, tokens = nll + float(losses.nll_sum), tokens + losses.tokens
    report = trainer.train_interval()
    assert report.metrics["loss"] == pytest.approx(nll / tokens, rel=1e-5)


@pytest.mark.parametrize("teacher_forcing_ratio", [0.0, 0.5, 1.0])
def test_same_seed_same_curve(tiny_data, tiny_config, teacher_forcing_ratio):
    config = tiny_config(teacher_forcing_ratio=teacher_forcing_ratio)
    first, second = (list(Trainer(tiny_data, config).run()) for _ in range(2))
    other = list(
        Trainer(tiny_data, tiny_config(teacher_forcing_ratio=teacher_forcing_ratio, seed=1)).run()
    )
    assert figures(first) == figures(second)
    assert figures(first) != figures(other)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("update", ["once", "twice"])
def test_resumed_equals_uninterrupted_exactly(tmp_path, tiny_data, tiny_config, optimizer, update):
    config = tiny_config(
        teacher_forcing_ratio=0.5, optimizer=optimizer, embedding_update=update, dropout=0.3
    )
    straight = Trainer(tiny_data, config)
    expected = list(straight.run())
    first = Trainer(tiny_data, config)
    early = [first.train_interval()]
    first.save(tmp_path / "c.pt")
    first.train_interval()  # work that is lost
    resumed = Trainer(tiny_data, config)
    restored = resumed.restore(tmp_path / "c.pt")
    assert figures([restored]) == figures(early)
    assert figures(early + list(resumed.run())) == figures(expected)
    assert_same_weights(weights(resumed), weights(straight))


def test_val_loss_ignores_teacher_forcing_dropout_and_batching(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(dropout=0.5, teacher_forcing_ratio=0.0))
    trainer.train_interval()
    batches = Batches(tiny_data, "validation")
    whole = evaluate(trainer.model, batches)
    nll = tokens = 0.0
    for i in range(len(batches)):
        one = evaluate(trainer.model, batches, torch.tensor([i]))
        nll, tokens = nll + one.nll_sum, tokens + one.tokens
    assert whole.loss == pytest.approx(nll / tokens, rel=1e-5)
    assert whole.examples == len(batches)


def test_val_examples_limits_the_subset(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(val_examples=5))
    assert len(trainer.val_indices) == 5


def test_unigram_loss_by_hand(tiny_data):
    """Counts plus one over the training replies, in a plain loop."""
    counts = [1.0] * len(tiny_data.vocabulary)
    for _, reply in tiny_data.examples["train"].tolist():
        for token in tiny_data.utterance(reply).tolist():
            counts[token] += 1
    nll = tokens = 0.0
    for _, reply in tiny_data.examples["validation"].tolist():
        for token in tiny_data.utterance(reply).tolist():
            nll, tokens = nll - math.log(counts[token] / sum(counts)), tokens + 1
    assert unigram_loss(tiny_data) == pytest.approx(nll / tokens)


def test_learns_more_than_a_unigram_model(tiny_data, tiny_config):
    config = tiny_config(iterations=120, report_every=60, learning_rate=5e-3)
    *_, last = Trainer(tiny_data, config).run()
    assert last.metrics["best_val_loss"] < 0.5 * unigram_loss(tiny_data)


def test_explosion_ends_as_diverged_with_the_last_good_figures(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(optimizer="sgd", learning_rate=1e-3, clip=0))
    good = trainer.train_interval()
    for group in trainer.optimizers.optimizers["decoder"].param_groups:
        group["lr"] = 1e6
    reports = list(trainer.run())
    last = reports[-1]
    assert last.state == "diverged"
    assert not last.improved
    assert last.metrics["best_val_loss"] == good.metrics["best_val_loss"]
    assert last.metrics["val_loss"] == good.metrics["val_loss"]
    assert last.metrics["iteration"] == last.iteration == 8


def test_nan_ends_as_diverged(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config())
    with torch.no_grad():
        trainer.model.output.bias.fill_(math.nan)
    report = trainer.train_interval()
    assert report.state == "diverged"
    assert math.isnan(report.metrics["diverged_loss"])
    assert "val_loss" not in report.metrics


class TestCheckpoint:
    @pytest.fixture
    def saved(self, tmp_path, tiny_data, tiny_config):
        trainer = Trainer(tiny_data, tiny_config())
        trainer.train_interval()
        trainer.save(tmp_path / "c.pt")
        return tmp_path / "c.pt"

    @pytest.mark.parametrize("cut", [0.0, 0.3, 0.9, 0.999])
    def test_torn_is_refused(self, saved, cut):
        content = saved.read_bytes()
        saved.write_bytes(content[: int(cut * len(content))])
        with pytest.raises(CheckpointError, match=r"c.pt: is (damaged|not a checkpoint)"):
            read_checkpoint(saved)

    def test_one_changed_bit_is_refused(self, saved):
        content = bytearray(saved.read_bytes())
        content[len(content) // 2] ^= 1
        saved.write_bytes(content)
        with pytest.raises(CheckpointError, match="do not match their digest"):
            read_checkpoint(saved)

    def test_newer_format_is_refused(self, saved):
        content = saved.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 9\n", 1)
        saved.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"format 9, written by a newer.*up to {FORMAT}"):
            read_checkpoint(saved)

    def test_missing_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            read_checkpoint(tmp_path / "none.pt")

    def test_code_in_a_pickle_is_never_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (pytest.fail, ("unpickled foreign code",))

        file = tmp_path / "bomb.pt"
        write_checkpoint(file, {"bomb": Bomb()})
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            read_checkpoint(file)

    def test_a_failing_write_keeps_the_old_one(self, saved, monkeypatch, tiny_data, tiny_config):
        before = saved.read_bytes()
        trainer = Trainer(tiny_data, tiny_config())
        trainer.train_interval()

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(StorageError, match="no space is left"):
            trainer.save(saved)
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == ["c.pt"]

    def test_other_data_or_configuration_is_refused(self, saved, tiny_data, tiny_config):
        with pytest.raises(CheckpointError, match="hidden_size was 16, is 24"):
            Trainer(tiny_data, tiny_config(hidden_size=24)).restore(saved)
        other = Trainer(tiny_data, tiny_config())
        other.fingerprint = "f" * 64
        with pytest.raises(CheckpointError, match="but this is data ffffffffffff"):
            other.restore(saved)

    def test_weights_alone_are_not_a_training_state(self, tmp_path, tiny_data, tiny_config):
        trainer = Trainer(tiny_data, tiny_config())
        trainer.save_weights(tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="holds weights only"):
            trainer.restore(tmp_path / "w.pt")


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ConfigurationError("a.yaml", ["x: bad", "y: worse"])))
    assert str(error) == "a.yaml: x: bad\na.yaml: y: worse"


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="device: is 'cuda', but there is no GPU"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


def test_padding_is_never_a_target(tiny_data):
    assert PAD not in tiny_data.tokens.tolist()
