"""Which configuration of a space takes the most memory: reckoned, by hand."""

import random

import pytest

from model.config import Config
from tests.tuning.ray_support import sweep_mapping
from tuning.preflight.gpu_demand import Demand, Lengths, step_bytes
from tuning.sweeps.sweep_file import parse_sweep

DATA = Lengths(source=10, target=10, examples=50_000, words=8_000)


def space(tmp_path, extension=None, **parameters):
    """A space of a sweep; a parameter of None is left out."""
    mapping = sweep_mapping(tmp_path / "tiny.txt", **parameters)
    if extension is not None:
        mapping["dialogue_tune"] = extension
    return parse_sweep(mapping).space


def bytes_of(**fields) -> int:
    return step_bytes(Config.from_mapping(fields), DATA)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ({"batch_size": 32}, {"batch_size": 64}),
        ({"hidden_size": 128}, {"hidden_size": 256}),
        ({"embedding_size": 128}, {"embedding_size": 256}),
        ({"encoder_layers": 1}, {"encoder_layers": 2}),
        ({"decoder_layers": 1}, {"decoder_layers": 2}),
        ({"optimizer": "sgd"}, {"optimizer": "adam"}),
        ({"embedding_update": "once"}, {"embedding_update": "twice"}),
        ({"precision": "bf16"}, {"precision": "fp32"}),
        ({"attention": "dot"}, {"attention": "concat"}),
        ({"dropout": 0.0}, {"dropout": 0.5}),
        ({"teacher_forcing_ratio": 1.0}, {"teacher_forcing_ratio": 0.5}),
    ],
)
def test_what_takes_more_reckons_as_more(small, large):
    assert bytes_of(**({"batch_size": 256} | small)) < bytes_of(**({"batch_size": 256} | large))


def test_what_takes_no_memory_does_not_count():
    assert bytes_of(learning_rate=1.0, clip=3.0, seed=5) == bytes_of()


def test_a_batch_is_no_larger_than_the_data():
    few = Lengths(source=10, target=10, examples=100, words=8_000)
    sizes = [step_bytes(Config.from_mapping({"batch_size": b}), few) for b in (200, 100_000)]
    assert sizes[0] == sizes[1]


def test_weights_gradients_and_adams_moments_by_hand():
    """With next to no data what is left are four times the weights, of which V dominates."""
    nothing = Lengths(source=1, target=1, examples=1, words=10**7)
    reckoned = step_bytes(Config.from_mapping({"hidden_size": 100, "optimizer": "adam"}), nothing)
    tables = 4 * (2 * 100 + 1) * 10**7  # embedding, output and its bias, in fp32
    scores = (2 * 4 + 2 * 2) * 10**7  # of one word, in fp32 and in bf16
    evaluation = 3 * 4 * 128 * 10**7
    assert reckoned == pytest.approx(4 * tables + scores + evaluation, rel=0.001)


def test_lengths_are_those_of_the_data(tiny_data):
    lengths = Lengths.of(tiny_data)
    # "do you like red green or blue ?" and the end; "i like blue ." and "blue is nice".
    assert (lengths.source, lengths.target) == (9, 5)
    assert lengths.examples == len(tiny_data.examples["train"])
    assert lengths.words == len(tiny_data.vocabulary)


def test_the_corner_of_a_continuous_space(tmp_path, tiny_data):
    searched = space(
        tmp_path,
        hidden_size={"min": 16, "max": 512},
        batch_size={"min": 8, "max": 64},
        dropout={"min": 0.0, "max": 0.5},
        optimizer={"values": ["sgd", "adam"]},
        attention={"values": ["dot", "concat"]},
    )
    found = Demand.of(searched, tiny_data).configuration
    sizes = [found[name] for name in ("hidden_size", "batch_size", "optimizer", "attention")]
    assert sizes == [512, 64, "adam", "concat"]
    assert found["dropout"] > 0 and searched.contains(found)


def test_a_small_space_is_tried_point_by_point(tmp_path, tiny_data):
    """The largest of each is forbidden; of what is left the wide one takes more."""
    searched = space(
        tmp_path,
        {"constraints": ["hidden_size * batch_size <= 4096"]},
        learning_rate=0.001,
        hidden_size={"values": [64, 512]},
        batch_size={"values": [8, 64]},
    )
    found = Demand.of(searched, tiny_data).configuration
    assert (found["hidden_size"], found["batch_size"]) == (512, 8)


def test_where_constraints_forbid_the_corners_draws_are_taken(tmp_path, tiny_data):
    searched = space(
        tmp_path,
        {"constraints": ["hidden_size + batch_size <= 300"]},
        hidden_size={"min": 16, "max": 512},
        batch_size={"min": 8, "max": 512},
    )
    found = Demand.of(searched, tiny_data).configuration
    assert searched.contains(found)
    assert found["hidden_size"] > 200, "the only corner that is allowed is the smallest"


def test_a_field_that_is_searched_under_a_condition(tmp_path, tiny_data):
    searched = space(
        tmp_path,
        {"parameters": {"embedding_size": {"when": "attention == 'dot'"}}},
        hidden_size=16,
        embedding_size={"min": 16, "max": 4096},
        attention={"values": ["dot", "general"]},
    )
    found = Demand.of(searched, tiny_data).configuration
    assert (found["attention"], found["embedding_size"]) == ("dot", 4096)


def test_a_shape_without_an_end_is_looked_at_up_to_one_draw_in_a_thousand(tmp_path, tiny_data):
    lognormal = {"distribution": "q_log_normal", "mu": 5.0, "sigma": 1.0, "q": 1}
    searched = space(tmp_path, hidden_size=lognormal)
    found = Demand.of(searched, tiny_data).configuration["hidden_size"]
    assert found == searched.parameters["hidden_size"].quantile(0.999)
    assert found < searched.parameters["hidden_size"].quantile(1.0) / 5


def test_no_draw_reckons_as_more_than_the_chosen_one(tmp_path, tiny_data):
    searched = space(
        tmp_path,
        hidden_size={"min": 16, "max": 512},
        batch_size={"min": 8, "max": 64},
        encoder_layers={"values": [1, 2, 3]},
        teacher_forcing_ratio={"min": 0.0, "max": 1.0},
        precision={"values": ["bf16", "fp32", "tf32"]},
        dropout={"min": 0.0, "max": 0.5},
    )
    lengths, rng = Lengths.of(tiny_data), random.Random(1)

    def reckoned(point):
        return step_bytes(Config.from_mapping(point), lengths)

    most = reckoned(Demand.of(searched, tiny_data).configuration)
    assert max(reckoned(searched.sample(rng)) for _ in range(300)) <= most


def test_a_search_of_one_point(tmp_path, tiny_data):
    searched = space(tmp_path, learning_rate=0.001, clip=25)
    demand = Demand.of(searched, tiny_data)
    assert demand.configuration == searched.constants
    assert str(demand) == (
        "batch_size 8, hidden_size 16, encoder_layers 1, decoder_layers 1; utterances of up to 9 "
        f"tokens, {len(tiny_data.vocabulary)} words"
    )
