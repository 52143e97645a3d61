"""How many trials fit on a GPU, by hand on plain figures; and what is said."""

import pytest

from tuning.preflight.gpu_packing import Measured, judge, part, places, trials_each
from tuning.trials.gpu_memory import CONTEXT, share

GIB, MIB = 2**30, 2**20
WHAT = "batch_size 256, hidden_size 1000"


def measured(reserved, **values) -> Measured:
    """Of a GPU of 24 GiB of which nobody else has anything; reserved in GiB."""
    right = {
        "device": "NVIDIA L4",
        "total": 24 * GIB,
        "free": 24 * GIB,
        "reserved": None if reserved is None else int(reserved * GIB),
        "context": 500 * MIB,
    }
    return Measured(**right | values)


@pytest.mark.parametrize(
    ("gpus", "trials"), [(1, 1), (2, 1), (0.5, 2), (0.34, 2), (0.3333, 3), (0.25, 4), (0.15, 6)]
)
def test_how_many_share_a_gpu(gpus, trials):
    assert trials_each(gpus) == trials


def test_a_part_holds_as_many_as_it_is_for():
    for trials in range(1, 101):
        assert trials_each(part(trials)) == trials
    assert [part(n) for n in (1, 2, 3, 7)] == [1, 0.5, 0.3333, 0.1428]


def test_a_share_leaves_room_for_the_context():
    assert share(0.5, 24 * GIB) == int(0.97 * 12 * GIB - CONTEXT)
    assert share(1, 24 * GIB) is None and share(2, 24 * GIB) is None and share(0, 24 * GIB) is None
    assert share(0.1, 4 * GIB) == int(0.97 * 0.1 * 4 * GIB / 2), "never less than half of the part"


@pytest.mark.parametrize(
    ("reserved", "wanted", "fitting"),
    [
        (2, 4, 4),
        (5.2, 4, 4),  # its share is 0.97 * 6 GiB - 600 MiB = 5.23 GiB
        (5.3, 4, 3),
        (7, 4, 3),  # 7.17 GiB
        (8, 4, 2),
        (11.3, 4, 1),  # 11.05 GiB
        (23, 4, 1),
        (23, 1, 1),
        (None, 4, 0),
        (None, 1, 0),
    ],
)
def test_places(reserved, wanted, fitting):
    assert places(measured(reserved), wanted) == fitting


def test_what_others_hold_of_the_gpu_is_not_there():
    assert places(measured(4, free=24 * GIB), 4) == 4
    assert places(measured(4, free=17 * GIB), 4) == 3, "4.49 GiB each"
    assert places(measured(4, free=10 * GIB), 4) == 2
    assert places(measured(4, free=5 * GIB), 4) == 1


def test_a_large_context_counts():
    assert places(measured(4, context=2 * GIB), 4) == 4
    assert places(measured(4, context=2 * GIB + MIB), 4) == 3


def test_what_did_not_run_within_its_share_is_packed_less_whatever_the_figures_say():
    assert places(measured(2, within_share=False), 4) == 3
    assert places(measured(2, within_share=False), 2) == 1


def test_what_fits_is_left_as_it_is():
    packing = judge(0.25, {"node a": measured(2), "node b": measured(4)}, WHAT)
    assert (packing.gpus, packing.problems, packing.notes) == (0.25, [], [])
    packing = judge(0.3, {"node a": measured(2)}, WHAT)
    assert packing.gpus == 0.3, "as asked for, not 0.3333"


def test_the_smallest_gpu_decides_and_is_said():
    nodes = {
        "node a": measured(8),
        "node b": measured(4),
        "node c": measured(7, device="T4", total=15 * GIB, free=15 * GIB),
    }
    packing = judge(0.25, nodes, WHAT)
    assert packing.gpus == 1.0 and packing.problems == []
    assert packing.notes == [
        "node c: T4: the most demanding configuration takes 7.49 GiB, and 15 GiB are free, so 1 "
        "fits, not 4 as asked for (batch_size 256, hidden_size 1000); each trial holds a whole GPU "
        "(--gpus-per-trial 1)."
    ]
    del nodes["node c"]
    packing = judge(0.25, nodes, WHAT)
    assert packing.gpus == 0.5
    assert packing.notes == [
        "node a: NVIDIA L4: the most demanding configuration takes 8.49 GiB, and 24 GiB are free, "
        "so 2 fit, not 4 as asked for (batch_size 256, hidden_size 1000); each trial holds 1/2 of "
        "a GPU (--gpus-per-trial 0.5)."
    ]


def test_where_not_one_fits_the_search_is_refused():
    none = measured(None, free=23 * GIB, tried=", tried to allocate 2.00 GiB more")
    packing = judge(0.5, {"node a": none, "node b": measured(1)}, WHAT)
    assert packing.problems == [
        "node a: NVIDIA L4: the most demanding configuration needs more than the 23 GiB that are "
        "free of 24 GiB, tried to allocate 2.00 GiB more (batch_size 256, hidden_size 1000); lower "
        "the largest batch_size, hidden_size or number of layers, or use GPUs with more memory."
    ]
    assert packing.gpus == 0.5 and packing.notes == []


def test_all_that_is_wrong_is_said_at_once():
    nodes = {
        "node a": Measured(problem="torch finds no GPU that it can use"),
        "node b": measured(None),
        "node c": measured(8),
    }
    packing = judge(0.25, nodes, WHAT)
    first, second = packing.problems
    assert first == "node a: a GPU could not be tried: torch finds no GPU that it can use."
    assert second.startswith("node b: NVIDIA L4: the most demanding configuration needs more")
    assert [note.split(":")[0] for note in packing.notes] == ["node c"]
