"""The same mathematics on a GPU; skipped without one."""

import pytest
import torch

from model.batching import Batches
from model.config import ModelConfig
from model.decoding import greedy
from model.loss import free_running, teacher_forced
from model.randomness import initial_weights
from model.seq2seq import Seq2Seq
from model.training import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def pair(tiny_data):
    """The same model on the CPU and on the GPU."""
    config = ModelConfig(hidden_size=32, dropout=0.0)
    with initial_weights(0):
        model = Seq2Seq(config, len(tiny_data.vocabulary))
    other = Seq2Seq(config, len(tiny_data.vocabulary)).cuda()
    other.load_state_dict(model.state_dict())
    return model, other


@pytest.mark.parametrize("decode", [teacher_forced, free_running])
def test_losses_and_gradients_agree(pair, tiny_data, decode):
    losses = []
    for model, device in zip(pair, ("cpu", "cuda"), strict=True):
        loss = decode(model, Batches(tiny_data, "train", device).at(0, 8, 0)).published
        loss.backward()
        losses.append(loss.detach().cpu())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    for p, q in zip(*(model.parameters() for model in pair), strict=True):
        torch.testing.assert_close(p.grad, q.grad.cpu(), rtol=1e-3, atol=1e-4)


def test_greedy_words_agree(pair, tiny_data):
    words = []
    for model, device in zip(pair, ("cpu", "cuda"), strict=True):
        batch = Batches(tiny_data, "test", device).at(0, 8, 0)
        words.append(greedy(model, batch.source, batch.source_lengths, 6).tolist())
    assert words[0] == words[1]


def test_training_runs_and_resumes(tmp_path, tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(device="cuda", dropout=0.2))
    trainer.train_interval()
    trainer.save(tmp_path / "c.pt")
    expected = trainer.train_interval().metrics["val_loss"]
    resumed = Trainer(tiny_data, tiny_config(device="cuda", dropout=0.2))
    resumed.restore(tmp_path / "c.pt")
    assert resumed.train_interval().metrics["val_loss"] == pytest.approx(expected, rel=1e-4)
