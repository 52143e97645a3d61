"""The harness itself: hosts that reach each other until they are cut off, and leave nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Hosts, HostsError, _left

#: Answers each line with the same line, and says when it listens.
ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 5000))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    for line in connection.makefile("rb"):
        connection.sendall(line)
"""
#: Connects; then sends each line of its input on, and says what came back.
ASK = r"""
import socket, sys
connection = socket.create_connection((sys.argv[1], 5000), timeout=float(sys.argv[2]))
print("connected", flush=True)
answers = connection.makefile("rb")
for line in sys.stdin.buffer:
    connection.sendall(line)
    print(answers.readline().decode() or "closed\n", end="", flush=True)
"""


def python(hosts, host, code, *arguments):
    return hosts.run(host, [sys.executable, "-S", "-c", code, *arguments], stdin=subprocess.PIPE)


@pytest.fixture
def hosts():
    with Hosts(2) as hosts:
        echo = python(hosts, 1, ECHO)
        assert echo.stdout.readline() == "listening\n"
        yield hosts


def ask(hosts, host=2, patience=20.0):
    """A connection from one host to the echo on host 1."""
    asking = python(hosts, host, ASK, hosts.ip(1), str(patience))
    assert asking.stdout.readline() == "connected\n"
    return asking


def send(asking, text):
    asking.stdin.write(text + "\n")
    asking.stdin.flush()


def test_packets_to_a_host_that_is_cut_off_vanish_and_nothing_is_closed(hosts):
    asking = ask(hosts)
    send(asking, "one")
    assert asking.stdout.readline() == "one\n"
    hosts.cut(1)
    send(asking, "two")
    os.set_blocking(asking.stdout.fileno(), False)
    time.sleep(1.5)
    assert asking.stdout.readline() == ""
    assert asking.poll() is None, "the connection was closed"
    os.set_blocking(asking.stdout.fileno(), True)
    hosts.restore(1)
    assert asking.stdout.readline() == "two\n"  # TCP has repeated it


def test_a_host_that_is_cut_off_does_not_even_refuse(hosts):
    hosts.cut(1)
    asking = python(hosts, 2, ASK, hosts.ip(1), "1.5")
    said, _ = asking.communicate(timeout=20)
    assert "TimeoutError: timed out" in said  # neither "refused" nor "no route to host"


def test_the_others_still_reach_each_other(hosts):
    hosts.cut(2)
    assert ask(hosts, host=0).poll() is None


def test_a_killed_host_closes_its_connections(hosts):
    asking = ask(hosts)
    assert len(hosts.processes(1)) == 1
    hosts.kill(1)
    assert hosts.processes(1) == []
    said, _ = asking.communicate("one\n", timeout=20)
    assert said == "closed\n" or "ConnectionResetError" in said
    again = python(hosts, 2, ASK, hosts.ip(1), "20")
    assert "ConnectionRefusedError" in again.communicate(timeout=20)[0]


def test_nobody_outside_reaches_a_host(hosts):
    code = [sys.executable, "-S", "-c", ASK, hosts.ip(1), "2"]
    outside = subprocess.run(code, capture_output=True, text=True, check=False, input="one\n")
    # A proxy of the machine's may let anybody connect to anything; the echo does not answer.
    assert "one" not in outside.stdout


def test_several_at_once_have_nothing_in_common():
    with Hosts(1) as one, Hosts(1) as other:
        assert one.slot != other.slot
        assert one.place != other.place
        assert not {one.namespace(0), one.namespace(1)} & {other.namespace(0), other.namespace(1)}


def test_nothing_is_left_even_of_what_runs_on(hosts):
    process = ask(hosts)
    assert _left(hosts.slot)
    hosts.close()
    assert process.poll() is not None
    assert _left(hosts.slot) == []
    hosts.close()


def test_nothing_is_left_after_an_error():
    with (
        pytest.raises(HostsError, match=r"ip link set dt\d+v7 nomaster: Cannot find"),
        Hosts(0) as h,
    ):
        h.cut(7)
    assert _left(h.slot) == []


def test_what_a_killed_harness_left_is_removed_by_the_next():
    code = (
        "import time; from tests.cluster.hosts import Hosts\n"
        "hosts = Hosts(1).__enter__()\n"
        "hosts.run(1, ['sh', '-c', 'echo begun; exec sleep 600']).stdout.readline()\n"
        "print(hosts.slot, *hosts.processes(1), flush=True); time.sleep(600)\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    slot, sleeper = map(int, harness.stdout.readline().split())
    os.kill(harness.pid, signal.SIGKILL)
    harness.communicate()
    assert runs(sleeper)
    with Hosts(0) as hosts:
        assert hosts.slot == slot or _left(slot) == []
        assert not runs(sleeper)


def runs(pid):
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty where it has ended
    except FileNotFoundError:
        return False
