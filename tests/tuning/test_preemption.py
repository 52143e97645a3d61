"""The agent of a node that its cloud may take back: what it hears, and what it leaves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import exit_status
from tests.tuning.metadata_server import MetadataServer
from tuning.__main__ import main
from tuning.preemption import agent, marks
from tuning.preemption.agent import act, wait_left, watch
from tuning.preemption.marks import Mark, leave_mark, mark_of
from tuning.preemption.metadata import AnswerError, AwayError, MetadataService, Notice
from tuning.preemption.node import Cluster, RayError

ROOT = Path(__file__).resolve().parents[2]
NODE = "3f" * 28


@pytest.fixture
def server():
    with MetadataServer() as server:
        yield server


@pytest.fixture
def service(server):
    return MetadataService(server.endpoint)


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setattr(marks.tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"dialogue-tune-{os.geteuid()}" / "preempted"


class Pauses:
    """Counts pauses instead of making them; at the n-th something happens."""

    def __init__(self, events=()):
        self.seconds = []
        self.events = dict(events)

    def __call__(self, seconds):
        self.seconds.append(seconds)
        assert len(self.seconds) < 50, "it does not end"
        self.events.get(len(self.seconds), lambda: None)()


# The metadata service


def test_no_notice_is_a_404_and_one_token_serves_for_all(server, service):
    assert service.notice() is None
    assert service.notice() is None
    assert server.asked == [
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
        "GET /latest/meta-data/spot/instance-action",
    ]


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_a_notice(server, service, action):
    server.give_notice(90, action)
    notice = service.notice()
    assert notice.what == f"the cloud is about to {action} the machine"
    assert 88 <= notice.seconds <= 90


def test_a_time_is_utc(server, service):
    server.say('{"action": "terminate", "time": "2017-09-18T08:22:00Z"}')
    notice = service.notice()
    assert notice.seconds == 0
    assert notice.until == pytest.approx(time.monotonic() - (time.time() - 1505722920), abs=5)


@pytest.mark.parametrize("time_said", ['"soon"', "null", "7"])
def test_a_notice_without_a_time_counts_from_now(server, service, time_said):
    server.say(f'{{"action": "stop", "time": {time_said}}}')
    assert 118 <= service.notice().seconds <= 120


@pytest.mark.parametrize("jump", [-3600.0, 3600.0], ids=["back", "forward"])
def test_a_clock_that_is_set_after_the_notice_changes_nothing(server, service, monkeypatch, jump):
    """Ray alone is told a time of day, by the clock as it is then."""
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    server.give_notice(90)
    notice, true = service.notice(), time.time
    monkeypatch.setattr(time, "time", lambda: true() + jump)
    assert 85 <= notice.seconds <= 90
    cluster, told = Cluster(), []
    monkeypatch.setattr(cluster, "_call", lambda *said: told.append(said) or (True, ""))
    cluster.drain(NODE, notice)
    ((name, node, reason, what, deadline),) = told
    assert (name, node, reason) == ("drain_node", NODE, DRAIN_NODE_REASON_PREEMPTION)
    assert what == notice.what
    assert 85 <= deadline / 1000 - time.time() <= 90


def test_a_token_that_is_too_old_is_renewed(server, service):
    service.notice()
    server.token = "second"
    server.give_notice()
    assert service.notice() is not None
    assert [line for line in server.asked if line.startswith("PUT")] == [
        "PUT /latest/api/token"
    ] * 2


def test_a_token_that_is_never_right_is_an_answer_and_not_asked_for_forever(server, service):
    server.pages["/latest/meta-data/spot/instance-action"] = (401, "")
    with pytest.raises(AnswerError, match="instance-action is answered with status 401"):
        service.notice()
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    "text", ["", "<html>log in</html>", "[]", "null", '{"action": "dance"}', "\ufffd" * 10_000]
)
def test_what_is_no_notice_is_not_taken_for_one(server, service, text):
    server.say(text)
    with pytest.raises(AnswerError, match="is none that Amazon's documentation knows"):
        service.notice()


def test_a_status_that_means_nothing(server, service):
    server.say("", status=503)
    with pytest.raises(AnswerError, match=r"spot/instance-action is answered with status 503"):
        service.notice()


@pytest.mark.parametrize(("status", "token"), [(403, "x"), (200, ""), (200, "two\nlines")])
def test_no_token(server, service, status, token):
    server.token_status, server.token = status, token
    with pytest.raises(AnswerError, match=rf"gives no session token \(status {status}\)"):
        service.notice()


def test_nobody_answers(server):
    endpoint = server.endpoint
    server.__exit__()
    with pytest.raises(AwayError, match=r"127.0.0.1:\d+: does not answer \(.*refused"):
        MetadataService(endpoint).notice()


def test_a_proxy_is_not_asked(server, service, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert service.notice() is None


def test_where_it_is_says_the_environment(monkeypatch):
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raising=False)
    assert MetadataService().endpoint == "http://169.254.169.254"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]/")
    assert MetadataService().endpoint == "http://[fd00:ec2::254]"


# Watching


def test_it_waits_for_the_notice(server, service):
    said = []
    pauses = Pauses({3: server.give_notice})
    assert watch(service, say=said.append, pause=pauses).what.endswith("terminate the machine")
    assert pauses.seconds == [agent.POLL_SECONDS] * 3
    assert said == [f"a spot machine; waiting for a notice of its end from {server.endpoint}"]


def test_a_service_that_is_away_for_a_while_is_asked_again_and_that_is_said_once(server, service):
    said = []
    pauses = Pauses(
        {1: lambda: server.say("", 500), 4: lambda: server.say("?"), 6: server.give_notice}
    )
    assert watch(service, say=said.append, pause=pauses) is not None
    assert len(said) == 3
    assert "status 500; trying again" in said[1]
    assert "the notice '?' is none that" in said[2]


def test_on_demand_there_is_nothing_to_watch(server, service):
    server.is_on_demand()
    said = []
    assert watch(service, say=said.append, pause=Pauses()) is None
    assert said == ["an on-demand machine: it is not taken back, there is nothing to watch"]


def test_without_a_service_it_says_so_and_ends(server):
    endpoint = server.endpoint
    server.__exit__()
    said, pauses = [], Pauses()
    assert watch(MetadataService(endpoint), say=said.append, pause=pauses) is None
    assert pauses.seconds == [1.0] * 4
    assert len(said) == 1
    assert said[0].startswith(f"{endpoint}: does not answer (")
    assert said[0].endswith("): there is nothing to watch")


def test_a_service_that_is_a_little_late_is_waited_for(server, service):
    server.token_status = 503
    pauses = Pauses({2: lambda: setattr(server, "token_status", 200), 5: server.give_notice})
    assert watch(service, say=lambda text: None, pause=pauses) is not None
    assert pauses.seconds == [1.0, 1.0, 5.0, 5.0, 5.0]


def test_amazons_switch_turns_it_off(server, service, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "True")
    said = []
    assert watch(service, say=said.append, pause=Pauses()) is None
    assert said == ["AWS_EC2_METADATA_DISABLED is set: there is nothing to watch"]
    assert server.asked == []


# Acting


class FakeCluster:
    """Drains after so many refusals; notes what marks there were meanwhile."""

    def __init__(self, refusals=0, alive=0):
        self.refusals, self.alive = refusals, alive
        self.marks = []

    def own_node(self):
        return NODE

    def drain(self, node, notice):
        self.marks.append(mark_of(node))
        if len(self.marks) <= self.refusals:
            raise RayError("Ray at auto does not answer: gone")

    def is_alive(self, node):
        self.alive -= 1
        return self.alive >= 0


def notice(seconds):
    return Notice("the cloud is about to stop the machine", time.monotonic() + seconds)


def test_trials_save_before_ray_is_told_and_leave_afterwards():
    cluster, said = FakeCluster(), []
    assert act(notice(100.5), cluster, say=said.append) == NODE
    assert cluster.marks == [Mark(leave=False)]
    assert mark_of(NODE) == Mark(leave=True)
    assert said == [
        "the cloud is about to stop the machine in 100 s",
        f"Ray drains node {NODE}; its trials go on elsewhere from their next report",
    ]


def test_ray_is_told_until_it_hears():
    cluster, said, pauses = FakeCluster(refusals=3), [], Pauses()
    assert act(notice(100), cluster, say=said.append, pause=pauses) == NODE
    assert pauses.seconds == [1.0] * 3
    assert said[1] == "Ray at auto does not answer: gone; trying again"
    assert len(said) == 3


def test_where_ray_hears_nothing_trials_stay_and_save():
    """To leave would bring them back here."""
    assert act(notice(0), FakeCluster(refusals=99), say=lambda text: None) is None
    assert mark_of(NODE) == Mark(leave=False)


def test_a_cluster_that_is_gone_is_not_tried_for_the_whole_notice():
    pauses = Pauses()
    refusing = FakeCluster(refusals=99)
    assert act(notice(100), refusing, patience=0.0, say=lambda text: None, pause=pauses) is None
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("alive", "node", "found"),
    [
        ({"a": "127.0.0.1", "b": "203.0.113.9"}, None, "a"),
        ({"a": "127.0.0.1", "b": "127.0.0.1"}, "b", "b"),
        ({"a": "127.0.0.1", "b": "127.0.0.2"}, None, "2 nodes are on this machine: say --node-id"),
        ({"b": "203.0.113.9"}, None, "no node of the cluster has an address of this machine"),
        ({}, None, "no node of the cluster has an address of this machine"),
        ({"a": "127.0.0.1"}, "c", "node c is not alive in the cluster"),
    ],
)
def test_the_node_is_the_one_with_an_address_of_this_machine(monkeypatch, alive, node, found):
    cluster = Cluster(node=node)
    monkeypatch.setattr(cluster, "_alive", lambda: alive)
    if found in alive:
        assert cluster.own_node() == found
    else:
        with pytest.raises(RayError, match=found):
            cluster.own_node()


def test_where_ray_does_not_answer_the_node_may_still_be_there():
    assert Cluster("x").is_alive(NODE)


def test_it_waits_until_the_node_has_left():
    assert wait_left(NODE, FakeCluster(alive=3), 100, pause=Pauses())
    assert not wait_left(NODE, FakeCluster(alive=10**6), 0.0, pause=Pauses())


# The mark


def test_without_a_mark_nobody_leaves(own_place):
    assert mark_of(NODE) is None
    leave_mark("another", Mark(leave=True))
    assert mark_of(NODE) is None
    assert own_place.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in own_place.iterdir()] == ["another"]


@pytest.mark.parametrize("whose", ["its own", "its parent's"])
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_place_that_others_may_write_is_not_believed(own_place, mode, whose):
    leave_mark(NODE, Mark(leave=True))
    (own_place if whose == "its own" else own_place.parent).chmod(mode)
    assert mark_of(NODE) is None
    with pytest.raises(PermissionError, match="can be written by others; remove it"):
        leave_mark(NODE, Mark(leave=True))


def test_a_link_to_a_place_is_not_believed(own_place, tmp_path):
    leave_mark(NODE, Mark(leave=True))
    own_place.rename(tmp_path / "elsewhere")
    own_place.symlink_to(tmp_path / "elsewhere")
    assert mark_of(NODE) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"leave": 1}', "{}"])
def test_a_mark_that_nobody_can_read_makes_nobody_leave(own_place, text):
    leave_mark(NODE, Mark(leave=True))
    (own_place / NODE).write_text(text)
    assert mark_of(NODE) in (None, Mark(leave=False))


# The command


def test_the_command_ends_on_a_machine_that_is_not_taken_back(server, monkeypatch, capsys):
    server.is_on_demand()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
    assert exit_status(main, "watch-preemption") == 0
    assert "watch-preemption: an on-demand machine" in capsys.readouterr().err


def test_without_a_cluster_it_tries_until_the_deadline(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert exit_status(main, "watch-preemption", "--now", "--deadline", 0, "--address", "x") == 1
    said = capsys.readouterr().err
    assert "this machine is about to be ended in 0 s" in said
    assert "Ray at x does not answer: Invalid address format: x; trying again" in said


@pytest.mark.parametrize("seconds", ["-1", "soon", "inf", "nan"])
def test_a_deadline_is_a_number_of_seconds(seconds, capsys):
    assert exit_status(main, "watch-preemption", "--now", f"--deadline={seconds}") == 2
    assert f"must be a number of seconds, but got '{seconds}'" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert exit_status(main, "watch-preemption", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("beside 'ray start'", "preStop", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "example:"):
        assert word in said


def test_it_runs_where_the_rest_of_the_project_is_not(server, tmp_path):
    """As cluster.yaml has it on workers: these files alone, no package around them."""
    server.is_on_demand()
    there = tmp_path / "tuning" / "preemption"
    there.mkdir(parents=True)
    for file in (ROOT / "tuning" / "preemption").glob("*.py"):
        (there / file.name).write_bytes(file.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "tuning.preemption"],
        cwd=tmp_path,
        env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("watch-preemption: an on-demand machine")
