import torch

from model.randomness import generator, initial_weights, stream_seed, uniform


def test_streams_are_known_numbers():
    """Pinned: a change here would change every published result."""
    assert stream_seed(0, "order", 0) == 3955691223199900983
    assert 0 <= stream_seed(1, "x", 2) < 2**63


def test_streams_differ_by_seed_name_and_iteration():
    seeds = {stream_seed(s, n, i) for s in range(5) for n in ("a", "b") for i in range(5)}
    assert len(seeds) == 50


def test_uniform_is_uniform():
    draws = [uniform(0, "teacher_forcing", i) for i in range(4000)]
    assert min(draws) >= 0
    assert max(draws) < 1
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02


def test_nothing_touches_the_global_stream():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generator(1, "dropout", 2)
    with initial_weights(3):
        first = torch.nn.Linear(2, 2).weight.clone()
    assert torch.equal(torch.rand(3), expected)
    with initial_weights(3):
        assert torch.equal(torch.nn.Linear(2, 2).weight, first)
