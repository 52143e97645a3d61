"""The watch over a cluster's head: what it says, and when it ends the search."""

import threading

import pytest

from tuning import head_watch
from tuning.head_watch import HeadWatch, _patience, is_of_new_head


class Head:
    """Answers by a list: a name, or None for no answer; the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def __call__(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return answer


@pytest.fixture
def clock(monkeypatch):
    """Ten seconds go by at each look at the clock; pauses take none."""
    times = iter(range(0, 10**6, 10))
    monkeypatch.setattr(head_watch.time, "monotonic", lambda: float(next(times)))
    monkeypatch.setattr(head_watch, "_PAUSE", 0.001)


def watch(head, patience=45.0):
    """What the watch says before it ends the search, and then why."""
    said, ended = [], []
    done = threading.Event()

    def end(why):
        ended.append(why)
        done.set()

    with HeadWatch(end, said.append, patience=patience, identify=head):
        done.wait(5)
    return said, ended


def test_a_head_that_answers_is_not_spoken_of(clock):
    said, ended = [], []
    asked = threading.Event()
    head = Head(*["one"] * 20)
    original = head.__call__

    def identify():
        if len(head.answers) == 1:
            asked.set()
        return original()

    with HeadWatch(ended.append, said.append, patience=1.0, identify=identify):
        assert asked.wait(5)
    assert (said, ended) == ([], [])


def test_a_head_that_stays_away_ends_the_search(clock):
    said, ended = watch(Head("one", None))
    assert said == ["the cluster's head does not answer; waiting for another 35 s"]
    assert ended == [
        "the cluster's head has not answered for 50 s ([Errno 111] Connection refused)"
    ]


def test_one_that_never_answered_is_away_too(clock):
    _, ended = watch(Head(None))
    assert len(ended) == 1


def test_one_that_comes_back_is_waited_for_each_time_anew(clock):
    said, ended = watch(Head("one", None, None, "one", None, None, "one", "two"))
    assert (
        said
        == [
            "the cluster's head does not answer; waiting for another 35 s",
            "the cluster's head answers again",
        ]
        * 2
    )
    assert ended == ["the cluster's head was started anew, and does not know this search"]


def test_one_that_was_started_anew_meanwhile_is_another(clock):
    assert watch(Head("one", "two")) == (
        [],
        ["the cluster's head was started anew, and does not know this search"],
    )


def test_a_search_that_is_being_stopped_waits_hardly(clock):
    ended, done = [], threading.Event()

    def end(why):
        ended.append(why)
        done.set()

    said = []
    head = Head("one", None)
    with HeadWatch(end, said.append, patience=1000.0, hurried=lambda: True, identify=head):
        assert done.wait(5)
    assert said == []
    assert ended == [
        "the cluster's head has not answered for 10 s ([Errno 111] Connection refused)"
    ]


def test_nothing_is_ended_after_the_search(clock):
    ended, asked, go_on = [], threading.Event(), threading.Event()

    def identify():
        asked.set()
        go_on.wait(5)
        raise OSError("gone")

    watch = HeadWatch(ended.append, lambda text: None, patience=0.0, identify=identify)
    with watch:
        assert asked.wait(5)
    go_on.set()
    watch._thread.join(5)
    assert not watch._thread.is_alive()
    assert ended == []


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 45.0), ("20", 15.0), ("600", 450.0), ("soon", 45.0)]
)
def test_we_end_before_ray_does(value, seconds, monkeypatch):
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", value)
    assert _patience() == seconds


def test_what_ray_says_of_a_new_head_is_known():
    cause = RuntimeError("RPC error: WrongClusterID: Perhaps the client is accessing GCS after ...")
    wrapped = ValueError("in Ray Tune")
    wrapped.__cause__ = cause
    assert is_of_new_head(cause)
    assert is_of_new_head(wrapped)
    assert not is_of_new_head(ValueError("something else"))


@pytest.mark.ray
def test_a_real_head_is_told_from_one_that_is_gone(ray, monkeypatch):
    identify = head_watch._identify_ours()
    assert len(identify()) == 56
    assert identify() == identify()
    address = type("Context", (), {"gcs_address": "127.0.0.1:9"})
    monkeypatch.setattr("ray.get_runtime_context", lambda: address)
    with pytest.raises(OSError, match="refused"):
        head_watch._identify_ours()()
