"""The baseline of the benchmarks is the same mathematics as the model, where they mean the same."""

import pytest
import torch

from benchmarks.baseline import EOS, PAD, SOS, Baseline, build_batch
from model import vocabulary
from model.batching import Batch
from model.config import ModelConfig
from model.loss import free_running, teacher_forced
from model.seq2seq import Seq2Seq

V, H = 30, 12


def pairs(lengths):
    """Pairs of random words, with the given (source, target) lengths before EOS."""
    generator = torch.Generator().manual_seed(1)
    return [
        tuple([*torch.randint(4, V, (n,), generator=generator).tolist(), EOS] for n in both)
        for both in lengths
    ]


@pytest.fixture
def models():
    """Ours and the baseline, with the same weights and without dropout."""
    torch.manual_seed(0)
    ours = Seq2Seq(ModelConfig(hidden_size=H, dropout=0.0), V)
    theirs = Baseline(V, hidden_size=H, dropout=0.0)
    theirs.encoder.embedding.load_state_dict(ours.embedding.state_dict())
    for gru, layers in (
        (theirs.encoder.gru, ours.encoder.layers),
        (theirs.decoder.gru, ours.decoder.layers),
    ):
        for i, layer in enumerate(layers):
            for name, value in layer.named_parameters():
                getattr(gru, name.replace("_l0", f"_l{i}")).data.copy_(value.data)
    theirs.decoder.concat.load_state_dict(ours.decoder.combine.state_dict())
    theirs.decoder.out.load_state_dict(ours.output.state_dict())
    return ours, theirs


def as_ours(batch):
    return Batch(batch.source.t(), batch.lengths, batch.target.t(), batch.mask.sum(dim=0))


#: Sources of one length: the baseline lets padding take part in the attention, ours does not.
EQUAL_SOURCES = pairs([(4, 3), (4, 1), (4, 6), (4, 2)])


def test_special_tokens_are_the_projects():
    assert (PAD, SOS, EOS) == (vocabulary.PAD, vocabulary.SOS, vocabulary.EOS)


def test_batch_by_hand():
    batch = build_batch([([5, EOS], [6, 7, EOS]), ([8, 9, EOS], [4, EOS])])
    assert batch.source.tolist() == [[8, 5], [9, EOS], [EOS, PAD]]
    assert batch.lengths.tolist() == [3, 2]
    assert batch.target.tolist() == [[4, 6], [EOS, 7], [PAD, EOS]]
    assert batch.mask.tolist() == [[True, True], [True, True], [False, True]]


@pytest.mark.parametrize(("ratio", "decode"), [(1.0, teacher_forced), (0.0, free_running)])
def test_losses_and_gradients_are_equal(models, ratio, decode):
    ours, theirs = models
    theirs.teacher_forcing_ratio = ratio
    batch = build_batch(EQUAL_SOURCES)
    loss, printed, tokens = theirs.loss(batch)
    found = decode(ours, as_ours(batch))
    torch.testing.assert_close(found.published, loss)
    assert float(found.nll_sum) == pytest.approx(printed, rel=1e-5)
    assert found.tokens == tokens
    loss.backward()
    found.published.backward()
    torch.testing.assert_close(
        ours.embedding.weight.grad, theirs.encoder.embedding.weight.grad, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        ours.encoder.layers[0].weight_hh_l0.grad, theirs.encoder.gru.weight_hh_l0.grad
    )


def test_padding_takes_part_in_its_attention_alone(models):
    """The known difference, so that nobody takes it for an error later."""
    ours, theirs = models
    batch = build_batch(pairs([(6, 3), (1, 3)]))
    loss, _, _ = theirs.loss(batch)
    difference = teacher_forced(ours, as_ours(batch)).published - loss
    assert abs(difference.item()) > 1e-6


def test_it_learns(models):
    _, theirs = models
    batch = build_batch(EQUAL_SOURCES)
    losses = [theirs.train(batch) for _ in range(60)]
    assert losses[-1] < 0.95 * losses[0]


def test_greedy_takes_the_most_probable_words(models):
    ours, theirs = models
    batch = build_batch(EQUAL_SOURCES)
    words, scores = theirs.greedy(batch.source, batch.lengths, steps=5)
    encoded = ours.encode(batch.source.t(), batch.lengths)
    hidden, _ = ours.decode(
        torch.cat([torch.full((4, 1), SOS), words.t()[:, :-1]], dim=1), encoded.state, encoded
    )
    expected, best = torch.softmax(ours.project(hidden), dim=-1).max(dim=-1)
    assert torch.equal(best, words.t())
    torch.testing.assert_close(expected, scores.t())
