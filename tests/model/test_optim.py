import pytest
import torch

from model.batching import Batches
from model.config import ModelConfig
from model.loss import teacher_forced
from model.optim import Optimizers
from model.randomness import initial_weights
from model.seq2seq import Seq2Seq


@pytest.fixture
def model(tiny_data):
    with initial_weights(0):
        return Seq2Seq(ModelConfig(hidden_size=8, dropout=0.0), len(tiny_data.vocabulary))


@pytest.fixture
def backward(tiny_data):
    batch = Batches(tiny_data, "train").at(0, 8, 0)

    def run(model, scale=1.0):
        (teacher_forced(model, batch).published * scale).backward()

    return run


def sides(model):
    """Parameters of the encoder and of the decoder, which has the shared embedding."""
    encoder = list(model.encoder.parameters())
    decoder = list(model.embedding.parameters()) + list(model.decoder.parameters())
    return encoder, decoder + list(model.output.parameters())


@pytest.mark.parametrize("clip", [0.05, 50.0])
def test_clips_each_side_as_torch_does(model, backward, tiny_config, clip):
    backward(model)
    encoder, decoder = sides(model)
    raw = [[p.grad.clone() for p in side] for side in (encoder, decoder)]
    norms = Optimizers(model, tiny_config(clip=clip).training).clip_gradients()
    for side, gradients, norm in zip((encoder, decoder), raw, norms, strict=True):
        reference = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for p, g in zip(reference, gradients, strict=True):
            p.grad = g
        expected = torch.nn.utils.clip_grad_norm_(reference, clip)
        torch.testing.assert_close(norm, expected)
        for p, r in zip(side, reference, strict=True):
            torch.testing.assert_close(p.grad, r.grad)


def test_clip_zero_means_no_clipping(model, backward, tiny_config):
    backward(model, scale=1e4)
    before = [p.grad.clone() for p in model.parameters()]
    Optimizers(model, tiny_config(clip=0).training).clip_gradients()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(("name", "rule"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_two_steps_equal_plain_torch(model, backward, tiny_config, name, rule):
    import copy

    other = copy.deepcopy(model)
    config = tiny_config(
        optimizer=name, learning_rate=0.01, decoder_learning_ratio=3.0, clip=0
    ).training
    ours = Optimizers(model, config)
    encoder, decoder = sides(other)
    theirs = [rule(encoder, lr=0.01), rule(decoder, lr=0.03)]
    for _ in range(2):
        ours.zero_grad()
        backward(model)
        ours.clip_gradients()
        ours.step()
        other.zero_grad()
        backward(other)
        for optimizer in theirs:
            optimizer.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_embedding_is_stepped_once_or_twice(model, backward, tiny_config):
    """With SGD the published treatment moves it by both learning rates."""
    for treatment, rate in (("once", 0.05), ("twice", 0.01 + 0.05)):
        config = tiny_config(
            optimizer="sgd",
            learning_rate=0.01,
            decoder_learning_ratio=5.0,
            clip=0,
            embedding_update=treatment,
        )
        optimizers = Optimizers(model, config.training)
        optimizers.zero_grad()
        backward(model)
        before = model.embedding.weight.detach().clone()
        gradient = model.embedding.weight.grad.clone()
        optimizers.step()
        torch.testing.assert_close(model.embedding.weight.detach(), before - rate * gradient)
