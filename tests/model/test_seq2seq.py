"""One contract for every attention score and layer count, and equalities with plain torch."""

import itertools

import pytest
import torch
from torch import nn

from model.batching import Batch, Batches
from model.config import ModelConfig
from model.decoding import draw_words, greedy
from model.loss import free_running, previous_words, teacher_forced
from model.optim import Optimizers
from model.randomness import generator, initial_weights
from model.seq2seq import DropoutMasks, Seq2Seq
from model.training import training_step
from model.vocabulary import PAD, SOS

CONTRACT = [
    dict(attention=attention, encoder_layers=encoder, decoder_layers=decoder)
    for attention, (encoder, decoder) in itertools.product(
        ("dot", "general", "concat"), ((1, 1), (2, 2), (1, 3), (3, 1))
    )
] + [dict(embedding_size=5)]


def build(vocabulary_size, seed=0, **values):
    config = ModelConfig(**({"hidden_size": 12, "dropout": 0.0} | values))
    with initial_weights(seed):
        return Seq2Seq(config, vocabulary_size)


@pytest.fixture
def batches(tiny_data):
    return Batches(tiny_data, "train")


@pytest.fixture
def batch(batches):
    return batches.at(0, 8, seed=0)


def padded_previous_words(target):
    return torch.cat([torch.full_like(target[:, :1], SOS), target[:, :-1]], dim=1)


def with_static_layout(batch):
    """The same examples, padded further, in the layout of a GPU."""
    wider = Batch(
        torch.nn.functional.pad(batch.source, (0, 2), value=PAD),
        batch.source_lengths,
        torch.nn.functional.pad(batch.target, (0, 1), value=PAD),
        batch.target_lengths,
    )
    return wider.laid_out_statically()


@pytest.mark.parametrize("values", CONTRACT, ids=str)
class TestContract:
    def test_every_parameter_gets_a_gradient(self, values, tiny_data, batch):
        model = build(len(tiny_data.vocabulary), **values)
        teacher_forced(model, batch).published.backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        # A final state that no decoder layer starts from still gets its gradient from the keys.
        assert without == []

    def test_one_pass_equals_the_step_by_step_loop(self, values, tiny_data, batch):
        model = build(len(tiny_data.vocabulary), **values)
        encoded = model.encode(batch.source, batch.source_lengths)
        previous = padded_previous_words(batch.target)
        whole, last = model.decode(previous, encoded.state, encoded)
        state, steps = encoded.state, []
        for t in range(previous.shape[1]):
            step, state = model.decode(previous[:, t : t + 1], state, encoded)
            steps.append(step)
        torch.testing.assert_close(whole, torch.cat(steps, dim=1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(last, state, rtol=1e-5, atol=1e-6)

    def test_drawn_words_are_those_the_pass_over_them_scores_highest(
        self, values, tiny_data, batch
    ):
        """The words are drawn by another path than they are trained on, with the same masks."""
        model = build(len(tiny_data.vocabulary), **(values | {"dropout": 0.3}))
        source, target = batch.source_packing, batch.target_packing
        masks = DropoutMasks.draw(
            model.config, len(source.flat), len(target.flat), generator(0, "test")
        )
        encoded = model.encode_packed(model.embedding(source.pack(batch.source)), source, masks)
        drawn = draw_words(model, encoded, target, masks)
        hidden = model.decode_packed(model.embedding(drawn), target, encoded, masks)
        best = model.project(hidden).argmax(dim=-1)
        assert (drawn[: len(batch.target)] == SOS).all()
        assert torch.equal(drawn[len(batch.target) :], best[target.previous])

    def test_layouts_give_the_same_losses_and_gradients(self, values, tiny_data, batch):
        """What a GPU computes in static shapes is what the CPU computes in tight ones."""
        model = build(len(tiny_data.vocabulary), **values)
        found = []
        for decode in (teacher_forced, free_running):
            for static in (False, True):
                model.zero_grad()
                losses = decode(model, with_static_layout(batch) if static else batch)
                losses.published.backward()
                found.append((losses, [p.grad.clone() for p in model.parameters()]))
            (tight, gradients), (static, others) = found[-2:]
            torch.testing.assert_close(tight.published, static.published)
            torch.testing.assert_close(tight.nll_sum, static.nll_sum)
            torch.testing.assert_close(gradients, others, rtol=1e-4, atol=1e-6)

    def test_saved_and_loaded_gives_the_same_output(self, values, tiny_data, batch):
        model = build(len(tiny_data.vocabulary), **values)
        other = build(len(tiny_data.vocabulary), seed=1, **values)
        other.load_state_dict(model.state_dict())
        assert teacher_forced(model, batch).nll_sum == teacher_forced(other, batch).nll_sum

    def test_overfits_eight_pairs(self, values, tiny_data, batches, tiny_config):
        model = build(len(tiny_data.vocabulary), **(values | {"hidden_size": 32}))
        training = tiny_config(learning_rate=1e-2, decoder_learning_ratio=1.0).training
        optimizers = Optimizers(model, training)
        batch = batches.take(torch.arange(0, 16, 2))
        for _ in range(200):
            losses, _, _ = training_step(
                model, optimizers, batch, teacher_forcing=True, dropout=None
            )
        assert float(losses.nll_sum) / losses.tokens < 0.1


def test_padding_changes_nothing(tiny_data, batches):
    model = build(len(tiny_data.vocabulary), encoder_layers=2, decoder_layers=2)
    batch = batches.take(torch.arange(6))
    lengths = batch.source_lengths
    assert lengths.min() < lengths.max(), "needs rows of different lengths"
    encoded = model.encode(batch.source, lengths)
    for row in range(6):
        alone = model.encode(batch.source[row : row + 1, : lengths[row]], lengths[row : row + 1])
        real = encoded.keys[row : row + 1, : lengths[row]]
        torch.testing.assert_close(real, alone.keys)
        torch.testing.assert_close(encoded.state[:, row], alone.state[:, 0])
    assert torch.equal(encoded.mask.sum(dim=1), lengths)


def test_encoder_equals_torch_gru(tiny_data, batch):
    """Our layers one by one are torch's multi-layer bidirectional GRU, without dropout."""
    model = build(len(tiny_data.vocabulary), encoder_layers=2)
    reference = nn.GRU(12, 12, num_layers=2, bidirectional=True, batch_first=True)
    for i, layer in enumerate(model.encoder.layers):
        for name, value in layer.named_parameters():
            target = getattr(reference, name.replace("_l0", f"_l{i}"))
            target.data.copy_(value.data)
    row, length = batch.source[:1, : batch.source_lengths[0]], batch.source_lengths[:1]
    outputs, states = reference(model.embedding(row))
    encoded = model.encode(row, length)
    torch.testing.assert_close(encoded.keys, outputs[..., :12] + outputs[..., 12:])
    torch.testing.assert_close(encoded.state, states[:2])


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "expected"),
    [(2, 2, [0, 1]), (1, 1, [0]), (1, 3, [0, 1, 0]), (3, 1, [0])],
)
def test_first_decoder_state(tiny_data, batch, encoder_layers, decoder_layers, expected):
    model = build(
        len(tiny_data.vocabulary), encoder_layers=encoder_layers, decoder_layers=decoder_layers
    )
    packed_states = []
    model.encoder.register_forward_hook(lambda m, i, o: packed_states.append(o[1]))
    encoded = model.encode(batch.source, batch.source_lengths)
    assert torch.equal(encoded.state, packed_states[0][expected])


def test_published_loss_by_hand(tiny_data, batch):
    """Sum over steps of the mean over the rows that are still going."""
    model = build(len(tiny_data.vocabulary))
    losses = teacher_forced(model, batch)
    encoded = model.encode(batch.source, batch.source_lengths)
    hidden, _ = model.decode(padded_previous_words(batch.target), encoded.state, encoded)
    log_probability = torch.log_softmax(model.project(hidden), dim=-1)
    expected, total = 0.0, 0.0
    for t in range(batch.target.shape[1]):
        rows = [b for b in range(len(batch.target)) if batch.target[b, t] != PAD]
        nll = [-log_probability[b, t, batch.target[b, t]] for b in rows]
        expected += sum(nll) / len(nll)
        total += sum(nll)
    torch.testing.assert_close(losses.published, expected)
    torch.testing.assert_close(losses.nll_sum, total.detach())
    assert losses.tokens == int((batch.target != PAD).sum())


def test_free_running_feeds_its_own_words(tiny_data, batch):
    """Where the model's own words are the true ones, both ways of decoding give one loss."""
    model = build(len(tiny_data.vocabulary))
    own = greedy_words(model, batch)
    same = type(batch)(batch.source, batch.source_lengths, own, torch.full((len(own),), 4))
    torch.testing.assert_close(
        free_running(model, same).nll_sum, teacher_forced(model, same).nll_sum
    )


def greedy_words(model, batch):
    """Four greedy words for each row, specials allowed, as free running chooses them."""
    encoded = model.encode(batch.source, batch.source_lengths)
    word, state, words = torch.full_like(batch.source[:, :1], SOS), encoded.state, []
    for _ in range(4):
        hidden, state = model.decode(word, state, encoded)
        word = model.project(hidden).argmax(dim=-1)
        words.append(word)
    words = torch.cat(words, dim=1)
    assert (words != PAD).all(), "choose another seed: PAD would end a row"
    return words


def test_previous_words(batch):
    packing = batch.target_packing
    packed = previous_words(packing.pack(batch.target), packing)
    expected = packing.pack(padded_previous_words(batch.target))
    assert torch.equal(packed, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_masks_keep_the_mean_and_follow_their_generator(dtype):
    config = ModelConfig(hidden_size=64, dropout=0.25)
    masks = DropoutMasks.draw(config, 201, 144, generator(3, "dropout", 7), dtype)
    again = DropoutMasks.draw(config, 201, 144, generator(3, "dropout", 7), dtype)
    other = DropoutMasks.draw(config, 201, 144, generator(3, "dropout", 8), dtype)
    assert [m.shape for m in masks.encoder] == [(201, 128)]
    assert [m.shape for m in masks.decoder] == [(144, 64), (144, 64)]
    assert masks.encoder[0].dtype == dtype
    assert masks.encoder[0].unique().tolist() == [0.0, 1.0]
    assert abs(masks.encoder[0].float().mean() - 0.75) < 0.01
    assert masks.scale == pytest.approx(1 / 0.75)
    assert torch.equal(masks.decoder[1], again.decoder[1])
    assert not torch.equal(masks.decoder[1], other.decoder[1])


@pytest.mark.parametrize("dropout", [0.0001, 0.1, 0.5, 0.95])
def test_dropout_drops_that_share(dropout):
    """Also where the probability is near the ends of the 16 bits it is compared in."""
    config = ModelConfig(hidden_size=500, dropout=dropout)
    mask = DropoutMasks.draw(config, 8000, 8, generator(0, "dropout")).encoder[0]
    sigma = (dropout * (1 - dropout) / mask.numel()) ** 0.5
    assert abs((1 - mask).mean().item() - dropout) < 5 * sigma + 2**-17
    # The four numbers cut from one random word do not depend on one another.
    quarters = (1 - mask).flatten().view(-1, 4)
    both = (quarters[:, 0] * quarters[:, 1]).mean().item()
    assert abs(both - dropout**2) < 5 * (dropout**2 / len(quarters)) ** 0.5 + 1e-4


def test_greedy_stops_when_every_row_has_ended(tiny_data, batch):
    model = build(len(tiny_data.vocabulary))
    with torch.no_grad():
        model.output.bias[2] = 100.0  # EOS at once
    words = greedy(model, batch.source, batch.source_lengths, max_words=10)
    assert words.tolist() == [[2]] * len(batch.source)


def test_greedy_never_says_a_special_token(tiny_data, batch):
    model = build(len(tiny_data.vocabulary))
    with torch.no_grad():
        model.output.bias[[0, 1, 3]] = 100.0
        model.output.bias[2] = -100.0
    words = greedy(model, batch.source, batch.source_lengths, max_words=5)
    assert words.shape == (len(batch.source), 5)
    assert words.min() >= 4
