"""A Ray cluster of one node, started as a person would, with an environment of its own."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.processes import free_port

_START_SECONDS = 90.0

#: Everything that Ray tells about jobs and actors to whoever may connect.
_LIST = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
from ray._private.state import state
from ray._private.worker import global_worker
print(global_worker.gcs_client.get_all_job_info(job_or_submission_id=None))
print(b"".join(state._connect_and_get_accessor().get_actor_table(None, None)))
"""


class RayHead:
    """A context manager that starts Ray's head on this machine and ends it, come what may.

    Args:
        temporary: Directory of Ray's session; its name must be short.
        environment: Of Ray's processes.

    Attributes:
        address: Of the cluster.
    """

    def __init__(self, temporary: Path, environment: dict[str, str]) -> None:
        self.temporary = temporary
        self.environment = environment | {"RAY_USAGE_STATS_ENABLED": "0"}
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> "RayHead":
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--node-ip-address=127.0.0.1", f"--port={self.port}", "--num-cpus=2"),
                *("--include-dashboard=false", f"--temp-dir={self.temporary}"),
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        """Until the port answers and the node has joined, which its session's files say."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if list(self.temporary.glob("session_*/sockets/raylet*")):
                    return
            time.sleep(0.2)
        raise AssertionError("Ray did not start")

    def __exit__(self, *error: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        mark = f"{self.temporary}/".encode()
        for process in Path("/proc").glob("[0-9]*"):  # all of ours have the directory's name
            with suppress(OSError):
                if mark in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        self._process.wait(20)

    def listed(self) -> str:
        """What Ray tells of jobs and actors."""
        done = subprocess.run(
            [sys.executable, "-c", _LIST, self.address],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def listening(temporary: Path) -> set[tuple[str, int]]:
    """The addresses and ports on which the processes of a Ray listen, and those of its drivers.

    Args:
        temporary: Its directory of sessions, which their command lines name or their environment.
    """
    mark = str(temporary).encode()
    sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(mark in (process / file).read_bytes() for file in ("cmdline", "environ")):
                sockets |= {str(entry.readlink()) for entry in (process / "fd").iterdir()}
    rows = [
        line.split()
        for family in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{family}").read_text(encoding="ascii").splitlines()[1:]
    ]
    return {_address(row[1]) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def _address(text: str) -> tuple[str, int]:
    """An address as Linux writes it in /proc/net/tcp: words of the machine's own byte order."""
    digits, port = text.split(":")
    words = [bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)
