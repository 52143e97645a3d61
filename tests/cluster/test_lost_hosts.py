"""A search over hosts that are lost: the command that does it, and what it would find."""

import random
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks import lost_hosts
from benchmarks.lost_hosts import WORKERS, Blow, draw_blows
from model.checkpoint import write_checkpoint
from tests.cluster.hosts import Hosts, HostsError
from tuning.journal import Row


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)  # two searches, and a host is given up after 48 s
def test_hosts_are_lost_at_random_moments(tmp_path):
    said = []
    lost_hosts.lose_hosts(
        tmp_path, 1, seed=3, trials=6, cuts=(15.0, 60.0), window=20.0, say=said.append
    )
    assert said[-1].startswith("1 of 1: nothing lost, nothing repeated, the same results; ")


@pytest.mark.ray
@pytest.mark.chaos
def test_nobody_without_the_token_gets_in():
    with Hosts(0) as hosts:
        hosts.start_head()
        assert hosts.alive() == [0]
        hosts._token.write_text("0" * 64, encoding="utf-8")
        with pytest.raises(HostsError, match="the head does not answer"):
            hosts.alive()


@pytest.mark.slow
def test_what_ray_says_is_said(monkeypatch):
    with Hosts(0) as hosts, pytest.raises(HostsError, match=r"(?s)not start on host 0:.*negative"):
        hosts.start_head(cpus=-1)


def test_every_host_is_lost_once_and_comes_back_if_it_lives():
    for seed in range(50):
        blows = draw_blows(random.Random(seed), 60.0, (15.0, 180.0))
        assert blows == sorted(blows, key=lambda blow: blow.seconds)
        lost = [b for b in blows if b.what not in ("back", "driver")]
        assert sorted(b.host for b in lost) == list(range(1, WORKERS + 1))
        assert sum(b.what == "driver" for b in blows) == 1
        times = {(b.what, b.host): b.seconds for b in blows}
        for what, seconds in ((("cut off",), 15.0), (("given up", "hangs"), 180.0)):
            (cut,) = (b for b in blows if b.what in what)
            assert times["back", cut.host] == pytest.approx(cut.seconds + seconds)
        assert all(b.seconds <= 60.0 for b in blows if b.what != "back")


class FakeHosts(Hosts):
    """Hosts of which those named live, with processes on some."""

    def __init__(self, alive, processes=()):
        self.slot = 0
        self._alive, self._there = alive, dict(processes)

    def alive(self):
        return self._alive

    def processes(self, host):
        return self._there.get(host, [])


BLOWS = [Blow(1.0, "killed", 1), Blow(2.0, "cut off", 2), Blow(3.0, "given up", 3)]


def test_the_host_that_was_cut_off_shortly_must_live_and_the_others_not():
    lost_hosts.settle(FakeHosts([0, 2]), BLOWS, [])
    with pytest.raises(AssertionError, match=r"alive are hosts \[0\], not \[0, 2\]"):
        lost_hosts.settle(FakeHosts([0]), BLOWS, [])
    with pytest.raises(AssertionError, match=r"alive are hosts \[0, 2, 3\], not \[0, 2\]"):
        lost_hosts.settle(FakeHosts([0, 2, 3]), BLOWS, [])


def test_a_trial_that_stays_where_it_was_given_up_is_found(monkeypatch):
    monkeypatch.setattr(lost_hosts, "_SETTLE_SECONDS", 0.0)
    hosts = FakeHosts([0, 2], {1: [], 2: [7], 3: [8]})
    lost_hosts.settle(hosts, BLOWS, [f"{hosts.ip(2)}:7", f"{hosts.ip(3)}:9", f"{hosts.ip(1)}:8"])
    with pytest.raises(lost_hosts.BenchmarkError, match=r"given up, by host: \{3: \[8\]\}"):
        lost_hosts.settle(hosts, BLOWS, [f"{hosts.ip(3)}:8"])


def results(directory, values=(3.0, 2.0), state="finished", weights=8, left=()):
    """One trial of two reports, with the weights of an iteration on disk, and other files."""
    best = directory / "best.pt"
    write_checkpoint(
        best,
        {
            "iteration": weights,
            "metrics": {"val_loss": dict(zip((4, 8), values, strict=True))[weights]},
        },
    )
    for name in left:
        (directory / name).touch()
    ended = Row(kind="report", trial=0, attempt=1, iteration=8, values=[min(values)], state=state)
    events = [
        Row(kind="proposed", trial=0, attempt=1, config={"clip": 1}, state="running"),
        Row(kind="report", trial=0, attempt=1, iteration=4, values=[values[0]], state="running"),
        ended,
    ]
    for seq, row in enumerate(events):
        object.__setattr__(row, "seq", seq)
    return SimpleNamespace(
        rows=events,
        trials=pd.DataFrame(
            {
                "trial": [0],
                "state": [state],
                "weights": [str(best)],
                "best_iteration": [8],
                "val_loss": [values[1]],
            }
        ),
        history=pd.DataFrame(
            {
                "trial": [0, 0],
                "iteration": [4, 8],
                "val_loss": values,
                "val_token_accuracy": [0.1, 0.2],
                "loss": [3.5, 3.0],
            }
        ),
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, None),
        ({"state": "failed"}, r"not every trial finished: \{0: 'failed'\}"),
        ({"values": (3.0, 2.5)}, "trial 0 is not that of the quiet search"),
        (
            {"weights": 4},
            r"weights of trial 0 are of iteration 4 \(val_loss 3.0000\), but its best report is "
            r"of 8 \(2.0000\)",
        ),
        ({"left": ["checkpoint-00000004.pt"]}, "left of trial 0: best.pt, checkpoint-00000004.pt"),
    ],
)
def test_what_it_would_find(tmp_path, monkeypatch, found, message):
    (tmp_path / "one").mkdir()
    (tmp_path / "quiet").mkdir()
    opened = {
        tmp_path / "one": results(tmp_path / "one", **found),
        tmp_path / "quiet": results(tmp_path / "quiet"),
    }
    monkeypatch.setattr("analysis.Results.open", opened.__getitem__)
    if message is None:
        lost_hosts.check_search(tmp_path / "one", tmp_path / "quiet", 1)
    else:
        with pytest.raises(AssertionError, match=message):
            lost_hosts.check_search(tmp_path / "one", tmp_path / "quiet", 1)
