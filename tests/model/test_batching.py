import torch

from model.batching import Batches
from model.vocabulary import EOS, PAD


def test_rows_are_the_utterances_padded(tiny_data):
    batches = Batches(tiny_data, "train")
    batch = batches.take(torch.tensor([0, 1]))
    for row in range(2):
        _, reply = tiny_data.examples["train"][row].tolist()
        source, target = tiny_data.utterance(reply - 1), tiny_data.utterance(reply)
        assert batch.source[row, : len(source)].tolist() == source.tolist()
        assert batch.target[row, : len(target)].tolist() == target.tolist()
        assert source[-1] == target[-1] == EOS
        assert (batch.source[row, len(source) :] == PAD).all()
        assert batch.source_lengths[row] == len(source)
    assert batch.target_tokens == int((batch.target != PAD).sum())


def test_padded_to_one_width_as_on_a_gpu(tiny_data):
    tight, wide = (Batches(tiny_data, "train") for _ in range(2))
    wide._widths = wide._longest()
    shapes = set()
    for i in range(6):
        a, b = tight.at(i, 3, 0), wide.at(i, 3, 0)
        shapes.add((b.source.shape, b.target.shape))
        for narrow, padded in ((a.source, b.source), (a.target, b.target)):
            assert torch.equal(padded[:, : narrow.shape[1]], narrow)
            assert (padded[:, narrow.shape[1] :] == PAD).all()
        assert torch.equal(a.target_lengths, b.target_lengths)
    assert len(shapes) == 1


def test_an_epoch_loses_and_duplicates_nothing(tiny_data):
    batches = Batches(tiny_data, "train")
    size = 7
    for epoch in (0, 3):
        seen = torch.cat(
            [
                batches._order(epoch, 0)[i * size : (i + 1) * size]
                for i in range(batches.per_epoch(size))
            ]
        )
        assert sorted(seen.tolist()) == list(range(len(batches)))
    tokens = sum(batches.at(i, size, 0).target_tokens for i in range(batches.per_epoch(size)))
    assert tokens == batches.take(torch.arange(len(batches))).target_tokens


def test_the_same_iteration_is_the_same_batch(tiny_data):
    first, second = (Batches(tiny_data, "train") for _ in range(2))
    for iteration in (0, 5, 40, 5):
        a, b = first.at(iteration, 8, seed=1), second.at(iteration, 8, seed=1)
        assert torch.equal(a.source, b.source)
        assert torch.equal(a.target, b.target)
    assert not torch.equal(first.at(0, 8, 1).source, first.at(0, 8, 2).source)


def test_subset_is_fixed_distinct_and_sorted_by_length(tiny_data):
    batches = Batches(tiny_data, "validation")
    subset = batches.subset(10)
    assert torch.equal(subset, batches.subset(10))
    assert len(set(subset.tolist())) == 10
    lengths = (batches.take(subset).target != PAD).sum(dim=1)
    assert lengths.tolist() == sorted(lengths.tolist())
    assert len(batches.subset(10**6)) == len(batches)
