"""The baseline of the benchmarks is the same mathematics as the model, where they mean the same."""

import math

import pytest
import torch

from benchmarks.baseline import EOS, PAD, SOS, Baseline, DotAttention, build_batch
from benchmarks.same_work import (
    PairStream,
    TeacherForcingDraws,
    copy_weights,
    validation_batches,
    validation_loss,
)
from model import vocabulary
from model.batching import Batch, Batches
from model.config import Config, DataConfig, ModelConfig
from model.evaluation import evaluate
from model.loss import free_running, teacher_forced
from model.preparation import prepare
from model.seq2seq import Seq2Seq
from model.training import Trainer
from tests.conftest import CORPORA

V, H = 30, 12
#: Within this many nats a token of the baseline, at every step.
NATS = 1e-4


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
    copy_weights(ours.state_dict(), theirs)
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


# Twenty training steps


class MaskedAttention(DotAttention):
    """The baseline's attention, but over real source positions alone."""

    def forward(self, hidden, encoder_outputs):
        energies = torch.sum(hidden * encoder_outputs, dim=2).t()  # (B, S)
        energies = energies.masked_fill(~self.real, -math.inf)
        return torch.softmax(energies, dim=1).unsqueeze(1)


class Oracle(Baseline):
    """The baseline with this project's rules where they differ on purpose.

    Padding takes no part in the attention, the shared embedding is stepped once, with the decoder,
    and nothing is clipped.
    """

    def __init__(self, vocabulary_size, **settings):
        super().__init__(vocabulary_size, clip=math.inf, dropout=0.0, **settings)
        self.decoder.attention = MaskedAttention()
        for group in self.encoder_optimizer.param_groups:
            shared = self.encoder.embedding.weight
            group["params"] = [p for p in group["params"] if p is not shared]

    def loss(self, batch):
        self.decoder.attention.real = (batch.source != PAD).t()
        return super().loss(batch)


def twenty_steps(data, **values):
    """Losses in nats a token of 20 steps from the same weights on the same batches."""
    same = {name: values[name] for name in ("hidden_size", "learning_rate", "optimizer")}
    same["teacher_forcing_ratio"] = values["teacher_forcing_ratio"]
    config = {"clip": 0, "dropout": 0, "precision": "fp32", "device": "cpu"}
    config |= {"iterations": 20, "report_every": 1, "val_examples": 1}
    trainer = Trainer(data, Config.from_mapping(config | values))
    oracle = Oracle(len(data.vocabulary), **same)
    oracle.random = TeacherForcingDraws()
    copy_weights(trainer.model.state_dict(), oracle)
    stream = PairStream(data, trainer.config.training.batch_size)
    ours, theirs = [], []
    for i in range(20):
        ours.append(trainer.train_interval().metrics["loss"])
        theirs.append(oracle.train(build_batch(stream.at(i))))
    return ours, theirs


RULES = pytest.mark.parametrize(
    ("optimizer", "learning_rate"), [("adam", 1e-3), ("sgd", 1e-2)], ids=["adam", "sgd"]
)
RATIOS = pytest.mark.parametrize("ratio", [1.0, 0.0, 0.5])


@RULES
@RATIOS
def test_twenty_steps_are_equal(tiny_data, optimizer, learning_rate, ratio):
    ours, theirs = twenty_steps(
        tiny_data,
        hidden_size=24,
        batch_size=8,
        optimizer=optimizer,
        learning_rate=learning_rate,
        teacher_forcing_ratio=ratio,
    )
    assert ours == pytest.approx(theirs, abs=NATS)
    assert ours[-1] < ours[0] - 0.3  # the steps did something


def test_batches_are_those_of_the_trainer(tiny_data):
    stream, batches = PairStream(tiny_data, 8, seed=3), Batches(tiny_data, "train")
    lengths = set()
    for i in (0, 1, batches.per_epoch(8) - 1, batches.per_epoch(8)):
        batch = batches.at(i, 8, 3)
        rows = zip(batch.source.tolist(), batch.target.tolist(), strict=True)
        expected = [tuple([t for t in side if t != PAD] for side in row) for row in rows]
        assert stream.at(i) == expected
        lengths |= {tuple(map(len, pair)) for pair in expected}
    assert len({source for source, _ in lengths}) > 1  # sources of different lengths
    assert len({target for _, target in lengths}) > 1


def test_validation_of_equal_weights_is_equal(tiny_data):
    torch.manual_seed(0)
    ours = Seq2Seq(ModelConfig(hidden_size=H, dropout=0.0), len(tiny_data.vocabulary))
    theirs = Oracle(len(tiny_data.vocabulary), hidden_size=H)
    copy_weights(ours.state_dict(), theirs)
    batches = Batches(tiny_data, "validation")
    found = validation_loss(theirs, validation_batches(tiny_data, 20, batch_size=8))
    assert found == pytest.approx(evaluate(ours, batches, batches.subset(20)).loss, abs=1e-5)


@pytest.fixture(scope="module")
def cornell():
    file = CORPORA / "cornell" / "pairs.tsv.xz"
    if not file.exists():
        pytest.skip(f"the real corpora are not at {CORPORA}")
    return prepare(DataConfig(corpus=str(file)))


@pytest.mark.slow
@pytest.mark.corpora
@RULES
@pytest.mark.parametrize("ratio", [1.0, 0.0])
@pytest.mark.long
def test_twenty_steps_of_the_published_size_are_equal(cornell, optimizer, learning_rate, ratio):
    torch.set_num_threads(2)
    ours, theirs = twenty_steps(
        cornell,
        hidden_size=500,
        optimizer=optimizer,
        learning_rate=learning_rate / 10,
        teacher_forcing_ratio=ratio,
    )
    assert ours == pytest.approx(theirs, abs=NATS)
    assert ours[-1] < ours[0]
