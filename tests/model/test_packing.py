import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.packing import Packing
from model.vocabulary import PAD

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=70)


def padded_rows(lengths):
    """Row b holds 100 b + 1, 100 b + 2, ... and then PAD."""
    rows = torch.arange(len(lengths)).unsqueeze(1) * 100 + torch.arange(1, max(lengths) + 1)
    real = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return rows.where(real, PAD), real


def layouts(lengths):
    padded, real = padded_rows(lengths)
    return padded, [Packing.tight(torch.tensor(lengths)), Packing.static(real)]


def test_tight_by_hand():
    padded, _ = padded_rows([2, 3])
    packing = Packing.tight(torch.tensor([2, 3]))
    assert packing.sizes == (2, 2, 2)
    assert packing.order.tolist() == [1, 0]
    assert packing.pack(padded).tolist() == [101, 1, 102, 2, 103, PAD]
    assert packing.real.tolist() == [True] * 5 + [False]
    assert packing.mirror.tolist() == [4, 3, 2, 1, 0, 5]
    assert packing.previous.tolist() == [0, 1, 2, 3]
    assert packing.last.tolist() == [3, 4]
    assert packing.row_counts.tolist() == [2, 2, 1]
    assert packing.step_weights.tolist() == [0.5, 0.5, 0.5, 0.5, 1, 0]


def test_static_by_hand():
    padded, real = padded_rows([2, 3])
    packing = Packing.static(real)
    assert packing.sizes == (2, 2, 2)
    assert packing.pack(padded).tolist() == [1, 101, 2, 102, PAD, 103]
    assert packing.mirror.tolist() == [2, 5, 0, 3, 4, 1]
    assert packing.last.tolist() == [2, 5]
    assert packing.step_weights.tolist() == [0.5, 0.5, 0.5, 0.5, 0, 1]


def test_a_step_that_no_row_reaches_weighs_nothing():
    packing = Packing.static(torch.tensor([[True, False], [True, False]]))
    assert packing.step_weights.tolist() == [0.5, 0.5, 0, 0]


@given(LENGTHS)
def test_loses_and_duplicates_nothing(lengths):
    padded, packings = layouts(lengths)
    for packing in packings:
        packed = packing.pack(padded)
        assert sorted(packed[packing.real].tolist()) == sorted(padded[padded != PAD].tolist())
        assert not packed[~packing.real].any()
        assert torch.equal(packing.pad(packed), padded)
        weights = torch.zeros(len(packing.sizes)).index_add(
            0, packing.flat % len(packing.sizes), packing.step_weights
        )
        torch.testing.assert_close(weights, torch.ones(len(packing.sizes)))


@given(LENGTHS)
def test_neighbours_are_those_of_the_padded_rows(lengths):
    padded, packings = layouts(lengths)
    for packing in packings:
        packed = packing.pack(padded)
        rows = [list(range(100 * b + 1, 100 * b + n + 1)) for b, n in enumerate(lengths)]
        assert packed[packing.last].tolist() == [row[-1] for row in rows]
        mirrored = packing.pad(packed[packing.mirror])
        for b, row in enumerate(rows):
            assert mirrored[b, : len(row)].tolist() == row[::-1]
        later, earlier = packed[len(lengths) :], packed[packing.previous]
        real = packing.real[len(lengths) :]
        assert torch.equal(later[real], earlier[real] + 1)
        assert torch.equal(packed[: len(lengths)], padded[packing.order, 0])


@given(LENGTHS)
def test_shapes_are_few(lengths):
    """Whatever the lengths, a batch of 64 has one of a few hundred shapes."""
    sizes = Packing.tight(torch.tensor(lengths)).sizes
    assert list(sizes) == sorted(sizes, reverse=True)
    full = sum(sizes) == len(lengths) * len(sizes)
    assert full or sum(sizes) % 32 == 0
    tokens = sum(lengths)
    assert tokens <= sum(sizes) <= min(tokens + 8 * len(sizes) + 32, len(lengths) * len(sizes))


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [1] * 64])
def test_rows_of_one_length_have_no_padding(lengths):
    assert Packing.tight(torch.tensor(lengths)).real.all()
