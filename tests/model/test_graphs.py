"""Recorded steps are the plain ones. On the CPU their functions run anew at each call."""

import pytest
import torch

from model.batching import Batches
from model.config import ModelConfig
from model.decoding import Stepper, greedy
from model.graphs import WARM_UP, Recorded, RecordedGreedy, RecordedTraining
from model.optim import Optimizers
from model.randomness import generator, initial_weights
from model.seq2seq import DropoutMasks, Seq2Seq
from model.training import training_step
from model.vocabulary import PAD

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])]


def build(tiny_data, tiny_config, device=CPU, **values):
    config = tiny_config(hidden_size=12, learning_rate=0.01, clip=1.0, **values)
    with initial_weights(0):
        model = Seq2Seq(config.model, len(tiny_data.vocabulary)).to(device)
    optimizers = Optimizers(model, config.training)

    def step(batch, teacher_forcing, dropout):
        return training_step(
            model, optimizers, batch, teacher_forcing=teacher_forcing, dropout=dropout
        )

    return model, step


def one_size(batch, width=7):
    """Padded to one width, laid out statically, as on a GPU."""
    pad = torch.nn.functional.pad
    sides = [pad(t, (0, width - t.shape[1]), value=PAD) for t in (batch.source, batch.target)]
    wide = type(batch)(sides[0], batch.source_lengths, sides[1], batch.target_lengths)
    return wide.laid_out_statically()


def masks(config, batch, i):
    positions = [len(batch.source_packing.flat), len(batch.target_packing.flat)]
    return DropoutMasks.draw(config, *positions, generator(0, "dropout", i, batch.source.device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recorded_training_is_plain_training(tiny_data, tiny_config, device, optimizer, dropout):
    """Both kinds in turn, with a smaller batch among them, beyond the warm-up of each."""
    device = torch.device(device)
    batches = Batches(tiny_data, "train", device)
    trained, losses = [], []
    for recorded in (False, True):
        model, step = build(tiny_data, tiny_config, device, optimizer=optimizer, dropout=dropout)
        run = RecordedTraining(step, device) if recorded else step
        found = []
        for i in range(4 * WARM_UP):
            batch = one_size(batches.at(i, 5 if i == 7 else 8, seed=0))
            drawn = masks(model.config, batch, i)
            result, *norms = run(batch, i % 2 == 0, drawn)
            found.append([float(result.nll_sum), result.tokens, *map(float, norms)])
        trained.append([p.detach().clone() for p in model.parameters()])
        losses.append(found)
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]))
    torch.testing.assert_close(trained[0], trained[1])


def test_results_of_one_call_are_replaced_by_the_next():
    """As with a graph: whoever needs them later copies them."""
    buffer = torch.zeros(())
    recorded = Recorded(lambda: buffer.add_(1), CPU)
    first = recorded()
    assert float(first) == 1
    recorded()
    assert float(first) == 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fold", [False, True])
def test_recorded_greedy_is_greedy(tiny_data, fold, device):
    with initial_weights(2):
        model = Seq2Seq(ModelConfig(hidden_size=16, dropout=0.0), len(tiny_data.vocabulary))
    with torch.no_grad():  # so that some rows end early, at different steps
        model.output.weight.mul_(20)
        model.output.bias[2] += 3.0
    model.to(device)
    stepper = Stepper(model, fold=fold)
    recorded = RecordedGreedy(model, stepper, rows=16, width=12)
    batches = Batches(tiny_data, "train", device)
    ends = set()
    for i in range(4):
        batch = batches.at(i, 11, seed=i)
        expected = greedy(model, batch.source, batch.source_lengths, 6, stepper)
        assert torch.equal(recorded(batch.source, 6), expected)
        ends |= {int((row != PAD).sum()) for row in expected}
    assert len(ends) > 2, "choose other weights: rows should end at different steps"


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stepper_is_the_decoder(tiny_data, fold, dtype):
    """Word by word, with and without the folded table, it scores as the pass over all words."""
    with initial_weights(0):
        model = Seq2Seq(ModelConfig(hidden_size=16, dropout=0.0), len(tiny_data.vocabulary))
    batch = Batches(tiny_data, "train").at(0, 8, seed=0)
    encoded = model.encode(batch.source, batch.source_lengths)
    words = torch.randint(4, len(tiny_data.vocabulary), (8, 5))
    with torch.no_grad():
        hidden, _ = model.decode(words, encoded.state, encoded)
        expected = model.project(hidden)
        near = model.encode(batch.source, batch.source_lengths, dtype)
        stepper, state = Stepper(model, dtype, fold=fold), list(near.state)
        for t in range(5):
            scores, state = stepper.step(words[:, t], state, near)
            assert scores.dtype == dtype
            tolerance = 1e-5 if dtype == torch.float32 else 0.02
            torch.testing.assert_close(
                scores.float(), expected[:, t], rtol=tolerance, atol=tolerance
            )
