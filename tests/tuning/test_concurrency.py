"""How many trials run at once while nodes come and go: by hand, and on a cluster that grows."""

import threading
import time

import pytest

from model.errors import ResourceError
from tuning import concurrency as module
from tuning.concurrency import Concurrency


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.02)


class Nodes:
    """What a cluster answers."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    def __call__(self):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def settled(concurrency, nodes):
    """What it says after the nodes were asked anew."""
    before = nodes.asked
    until = time.monotonic() + 20
    while nodes.asked < before + 2 and time.monotonic() < until:
        concurrency()
        time.sleep(0.005)
    return concurrency()


def test_it_begins_with_what_preflight_found_and_follows_the_nodes():
    nodes, changes = Nodes(4), []
    concurrency = Concurrency(nodes, 2, on_change=lambda *change: changes.append(change))
    assert concurrency() == 2
    assert settled(concurrency, nodes) == 4
    nodes.answer = 1
    assert settled(concurrency, nodes) == 1
    assert changes == [(2, 4), (4, 1)]


def test_the_users_limit_stays():
    nodes = Nodes(8)
    concurrency = Concurrency(nodes, 8, limit=3)
    assert concurrency() == 3
    assert settled(concurrency, nodes) == 3
    nodes.answer = 2
    assert settled(concurrency, nodes) == 2


def test_one_trial_waits_where_no_node_is_left():
    """Which makes an autoscaler add nodes."""
    nodes = Nodes(ResourceError("no node has that much"))
    assert settled(Concurrency(nodes, 4), nodes) == 1


def test_where_the_head_does_not_answer_what_was_known_holds_on():
    nodes = Nodes(RuntimeError("connection lost"))
    assert settled(Concurrency(nodes, 4), nodes) == 4


def test_nobody_waits_for_an_answer():
    going_on = threading.Event()
    nodes = Nodes(5)

    def slow():
        going_on.wait(20)
        return nodes()

    concurrency = Concurrency(slow, 2)
    time.sleep(0.05)
    began = time.monotonic()
    assert [concurrency() for _ in range(100)] == [2] * 100
    assert time.monotonic() - began < 5
    assert nodes.asked == 0
    going_on.set()
    assert settled(concurrency, nodes) == 5


def test_the_nodes_are_asked_every_few_seconds_and_no_sooner(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 3600.0)
    nodes = Nodes(4)
    concurrency = Concurrency(nodes, 2)
    assert {concurrency() for _ in range(1000)} == {2} and nodes.asked == 0
