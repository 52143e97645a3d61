"""Several hosts on one machine: network namespaces, each with its own Ray, on one bridge.

    with Hosts(3) as hosts:              # host 0 is the head, the others are workers
        hosts.start_head()
        hosts.start_workers()
        process = hosts.run(0, ["python", "-m", "tuning", "run", ..., "--address", hosts.address])
        hosts.cut(1)                     # the cable is out: packets vanish, nothing is closed
        hosts.restore(1)
        hosts.kill(2)                    # every process of the host dies

Needs root and iproute2. The hosts share the machine's files, clock and /dev/shm, and nothing of
its network: the bridge has no address, so that nobody outside reaches them, nor they anybody.

Everything has a name that begins with ``dt`` and the number of a slot, and the slot is a locked
directory. Whoever takes a slot first removes what the last one left there, so that even a harness
that was killed leaves nothing behind for long.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]

#: Ray's own health check, as a cluster of ours has it: the head asks every host at this interval,
#: waits for an answer, and gives a host up after so many failures in a row: one whose packets
#: vanish after threshold * (period + timeout) = 48 s, one whose processes are dead after 18 s.
#: One that was cut off for 15 s fails three or four times, see below.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "6",
}
#: How long Ray's connections outlive silence, the same on every host and for the driver.
#:
#: TCP repeats what was lost at growing intervals, so that a host that was cut off for 15 s may be
#: silent for 28. By Ray's defaults a worker whose answer is not received within 20 s closes the
#: connection, of which the driver, which has nothing to send, hears at its next ping only: after
#: up to 300 s. The first line lets the worker wait, the others let the driver ask sooner.
CONNECTIONS = {
    "RAY_grpc_keepalive_timeout_ms": "60000",
    "RAY_grpc_client_keepalive_time_ms": "20000",
    "RAY_grpc_client_keepalive_timeout_ms": "60000",
}
#: Ray's port on the head; in its namespace every port is free.
PORT = 6379
_SLOTS = 16
#: Short, because the paths of Ray's sockets may have 107 bytes.
_PLACE = Path("/tmp/dt")
_START_SECONDS = 120.0
_END_SECONDS = 30.0


class HostsError(Exception):
    """The hosts cannot be made, or Ray does not start on one."""


def why_not() -> str | None:
    """Why there can be no hosts on this machine; None where there can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip, of iproute2"
    made = _ip("netns", "add", name := f"dt-try-{os.getpid()}", check=False)
    _ip("netns", "del", name, check=False)
    return f"no network namespace can be made: {made.stderr.strip()}" if made.returncode else None


class Hosts:
    """A head and workers; see the module's description.

    Args:
        workers: How many beside the head.
        environment: Variables for everything that runs on a host, over our own.

    Attributes:
        address: Of the Ray cluster, for ``--address``.
        place: The slot's directory, with a directory for each host's Ray.
    """

    def __init__(self, workers: int, environment: dict[str, str] | None = None) -> None:
        self.count = workers + 1
        self.slot, self._lock = _take_slot()
        self.place = _place(self.slot)
        self.address = f"{self.ip(0)}:{PORT}"
        self._token = self.place / "token"
        self._more = environment or {}
        self._processes: list[subprocess.Popen[str]] = []

    # Names and numbers

    def ip(self, host: int) -> str:
        """A host's address."""
        return f"10.213.{self.slot}.{host + 1}"

    def namespace(self, host: int) -> str:
        """The name of a host's network namespace."""
        return f"dt{self.slot}-{host}"

    def temporary(self, host: int) -> Path:
        """The directory that Ray has for itself on a host."""
        return self.place / str(host)

    @property
    def _bridge(self) -> str:
        return f"dt{self.slot}br"

    def _port(self, host: int) -> str:
        """The end of a host's cable that is in the bridge."""
        return f"dt{self.slot}v{host}"

    @staticmethod
    def _mac(host: int) -> str:
        return f"02:64:74:00:00:{host + 1:02x}"

    # From the first to the last

    def __enter__(self) -> Hosts:
        try:
            self._token.write_text(secrets.token_hex(32), encoding="utf-8")
            self._token.chmod(0o600)
            _ip("link", "add", self._bridge, "type", "bridge", "forward_delay", "0")
            _ip("link", "set", self._bridge, "up")
            for host in range(self.count):
                self._make(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process on the hosts and removes everything; may be called twice."""
        with ExitStack() as stack:
            stack.callback(self._lock.close)
            stack.callback(_clear, self.slot)
            for process in self._processes:
                stack.callback(_reap, process)

    def _make(self, host: int) -> None:
        space, port = self.namespace(host), self._port(host)
        _ip("netns", "add", space)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", space, "link", "set", "eth0", "address", self._mac(host))
        _ip("-n", space, "address", "add", f"{self.ip(host)}/24", "dev", "eth0")
        for other in set(range(self.count)) - {host}:
            # Or the kernel would ask who has the address, hear nothing of a host that is cut
            # off, and tell the program that there is no route; behind a router nobody says so.
            neighbour = (self.ip(other), "lladdr", self._mac(other), "dev", "eth0")
            _ip("-n", space, "neighbour", "add", *neighbour, "nud", "permanent")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        _ip("link", "set", port, "master", self._bridge, "up")

    # Ray

    def start_head(self, cpus: int = 0) -> None:
        """Starts Ray on the head, which by default runs no trials.

        Raises:
            HostsError: where Ray does not start; with what it said.
        """
        role = ("--head", f"--port={PORT}", "--include-dashboard=false")
        self._wait_started(0, self._start(0, cpus, 0, *role))

    def start_worker(self, host: int, cpus: int = 1, gpus: int = 0) -> None:
        """Starts Ray on another host; again, too, after it was killed.

        Raises:
            HostsError: where Ray does not start; with what it said.
        """
        self.start_workers([host], cpus, gpus)

    def start_workers(
        self, hosts: Iterable[int] | None = None, cpus: int = 1, gpus: int = 0
    ) -> None:
        """Starts Ray on several hosts at once; on all but the head by default.

        Raises:
            HostsError: where Ray does not start; with what it said.
        """
        chosen = list(range(1, self.count) if hosts is None else hosts)
        join = f"--address={self.address}"
        starting = [(host, self._start(host, cpus, gpus, join)) for host in chosen]
        for host, process in starting:
            self._wait_started(host, process)

    def _start(self, host: int, cpus: int, gpus: int, *role: str) -> subprocess.Popen[str]:
        return self.run(
            host,
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *role),
                f"--node-ip-address={self.ip(host)}",
                f"--temp-dir={self.temporary(host)}",
                *(f"--num-cpus={cpus}", f"--num-gpus={gpus}"),
                f"--object-store-memory={100 * 2**20}",
                "--disable-usage-stats",
            ],
        )

    def _wait_started(self, host: int, process: subprocess.Popen[str]) -> None:
        try:
            said, _ = process.communicate(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            raise HostsError(f"Ray did not start on host {host} in {_START_SECONDS:g} s.") from None
        if process.returncode != 0:
            raise HostsError(f"Ray does not start on host {host}:\n{said}")

    def environment(self) -> dict[str, str]:
        """The variables of everything that runs on a host: ours, but for those about Ray."""
        outer = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
        return {
            **outer,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **HEALTH,
            **CONNECTIONS,
            **self._more,
        }

    # What happens to hosts

    def run(self, host: int, command: Sequence[Any], **options: Any) -> subprocess.Popen[str]:
        """Starts a command on a host, as a process group of its own, as a terminal would.

        Args:
            host: Number of the host.
            command: Program and arguments.
            options: As `subprocess.Popen` takes them; by default output and errors are one pipe.
        """
        environment = self.environment() | options.pop("env", {})
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        process: subprocess.Popen[str] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), *map(str, command)],
            text=True,
            start_new_session=True,
            env=environment,
            **options,
        )
        self._processes.append(process)
        return process

    def cut(self, host: int) -> None:
        """Pulls a host's cable out of the bridge: from now on packets vanish, both ways.

        Nothing is closed, and nobody is told: both ends of the cable stay up, and each host
        knows the hardware addresses of the others for good. (A link that is set down tells both
        ends that the carrier is gone, and tc's netem drops one direction only.)
        """
        _ip("link", "set", self._port(host), "nomaster")

    def restore(self, host: int) -> None:
        """Puts a host's cable back."""
        _ip("link", "set", self._port(host), "master", self._bridge)

    def kill(self, host: int) -> None:
        """Kills every process on a host; its kernel lives and closes their connections.

        Of a host that has lost its power nobody hears anything: `cut` it first.
        """
        _kill_all(self.namespace(host))

    def processes(self, host: int) -> list[int]:
        """The processes on a host."""
        return _processes(self.namespace(host))

    def alive(self) -> list[int]:
        """Hosts that the cluster takes for alive.

        Raises:
            HostsError: where the head does not answer.
        """
        process = self.run(
            0, [sys.executable, "-c", _ALIVE, self.address], stderr=subprocess.DEVNULL
        )
        try:
            said, _ = process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise HostsError("the head does not answer.") from None
        if process.returncode != 0:
            raise HostsError("the head does not answer.")
        addresses = set(said.split())
        return [host for host in range(self.count) if self.ip(host) in addresses]

    def wait_alive(self, hosts: Iterable[int], seconds: float) -> float:
        """Waits until the cluster takes just these hosts for alive.

        Returns:
            How many seconds that took.

        Raises:
            HostsError: where it does not come to that in time.
        """
        wanted, began = sorted(hosts), time.monotonic()
        while (found := self.alive()) != wanted:
            if time.monotonic() - began > seconds:
                raise HostsError(f"after {seconds:g} s alive are {found}, not {wanted}.")
            time.sleep(0.5)
        return time.monotonic() - began


#: Asks the head's Ray which nodes are alive, without connecting as a driver.
_ALIVE = """
import sys
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10).values()
alive = [n.node_manager_address for n in nodes if n.state == GcsNodeInfo.ALIVE]
print(*alive)
"""


# Slots


def _place(slot: int) -> Path:
    return _PLACE / str(slot)


def _take_slot() -> tuple[int, IO[str]]:
    """The first slot that nobody has; the file keeps it until it is closed or we die.

    What is left in other slots by processes that are dead is removed on the way.
    """
    taken: tuple[int, IO[str]] | None = None
    for slot in range(_SLOTS):
        if taken is not None and not _left(slot):
            continue
        lock = _locked(slot)
        if lock is None:
            continue
        _clear(slot)
        if taken is None:
            taken = slot, lock
        else:
            lock.close()
    if taken is None:
        raise HostsError(f"all {_SLOTS} slots are taken; see {_PLACE}.")
    _place(taken[0]).mkdir(mode=0o700)
    return taken


def _locked(slot: int) -> IO[str] | None:
    """A slot's lock, if nobody has it.

    Raises:
        HostsError: where the directory of the locks is not ours.
    """
    _PLACE.mkdir(mode=0o700, exist_ok=True)
    there = _PLACE.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
        raise HostsError(f"{_PLACE}: belongs to somebody else.")
    lock = (_PLACE / f"{slot}.lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _left(slot: int) -> list[str]:
    """The names of a slot's namespaces and cables, and its directory, where there are any."""
    names = [s for s in _names("/run/netns") if s.startswith(f"dt{slot}-")]
    names += [d for d in _names("/sys/class/net") if d.startswith((f"dt{slot}br", f"dt{slot}v"))]
    return names + [str(slot)] * _place(slot).exists()


def _clear(slot: int) -> None:
    """Ends and removes everything that has a slot's name."""
    spaces = [name for name in _names("/run/netns") if name.startswith(f"dt{slot}-")]
    for space in spaces:
        _kill_all(space)
        _ip("netns", "del", space, check=False)  # takes the cable with it, sooner or later
    for name in _left(slot):
        _ip("link", "del", name, check=False)
    shutil.rmtree(_place(slot), ignore_errors=True)


def _names(directory: str) -> list[str]:
    with suppress(FileNotFoundError):
        return [path.name for path in Path(directory).iterdir()]
    return []


# Processes


def _processes(space: str) -> list[int]:
    return [int(pid) for pid in _ip("netns", "pids", space, check=False).stdout.split()]


def _kill_all(space: str) -> None:
    """Kills every process in a namespace; those that they start meanwhile too."""
    until = time.monotonic() + _END_SECONDS
    while pids := _processes(space):
        if time.monotonic() > until:
            raise HostsError(f"{space}: processes {pids} do not end.")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _reap(process: subprocess.Popen[str]) -> None:
    """Ends a process of ours, and closes our ends of its pipes."""
    if process.poll() is None:
        process.kill()
    process.wait(_END_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent yet is for nobody
                pipe.close()


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise HostsError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done
