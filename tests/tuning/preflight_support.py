"""A cluster of `ray start` processes on this machine, each node with faults of its own.

    with Machines(directory) as machines:
        machines.head(cpus=0)
        machines.start("alpha", cpus=1, mounts={storage: "4k"}, environment={...})
        machines.wait(2)

A node may have a mount namespace of its own, in which empty file systems lie over directories
that the others share: another disk, a full one, a small /dev/shm.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.processes import free_port, with_settings
from tests.tuning.ray_support import ROOT

_STORE = 80_000_000
_START_SECONDS = 120


def why_no_mounts() -> str | None:
    """Why a node cannot have mounts of its own on this machine; None where it can."""
    if os.geteuid() != 0:
        return "mount namespaces need root"
    made = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "no mount namespace can be made" if made.returncode else None


class Machines:
    """The nodes; ending the block ends all their processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.token = secrets.token_hex(32)
        self.mark = f"PREFLIGHT_TEST={secrets.token_hex(8)}"
        self.address = f"127.0.0.1:{free_port()}"
        self.started: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in with_settings(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started.values():
            process.wait(30)

    def environment(self, **more: str) -> dict[str, str]:
        outer = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        settings |= {"RAY_AUTH_TOKEN": self.token, "RAY_raylet_start_wait_time_s": "120"}
        # As in our cluster files. By its defaults Ray's head would wait for minutes for a node that
        # is silent when it is asked for a place, and place nothing elsewhere meanwhile.
        settings |= {"RAY_grpc_keepalive_timeout_ms": "60000"}
        settings |= {"RAY_grpc_client_keepalive_time_ms": "20000"}
        settings |= {"RAY_grpc_client_keepalive_timeout_ms": "60000"}
        return outer | settings | dict([self.mark.split("=")]) | {"OMP_NUM_THREADS": "1"} | more

    def head(self, cpus: int = 0, *options: str, environment: dict[str, str] | None = None) -> None:
        port = self.address.rpartition(":")[2]
        role = ("--head", f"--port={port}", "--include-dashboard=false")
        self._start("head", (*role, *options), cpus=cpus, environment=environment)
        self._wait("head")

    def start(self, name: str, *options: str, **facts) -> None:
        """Begins to start a node; see `_start`."""
        self._start(name, (f"--address={self.address}", *options), **facts)

    def _start(self, name, role, *, cpus=1, gpus=0, mounts=None, environment=None) -> None:
        """Starts Ray in a node's environment, over which some directories are new and empty.

        Args:
            name: Of the node.
            role: Options of `ray start`.
            cpus: What it offers.
            gpus: Likewise; nobody looks whether they exist.
            mounts: Directory to size of a file system that lies there; one that ends in "!" is
                filled to the last byte; "overlay" shows what is there, and keeps what the node
                writes to the node.
            environment: Variables of its own.
        """
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role]
        command += [f"--node-name={name}", "--node-ip-address=127.0.0.1"]
        self.temporary(name).mkdir()
        command += [f"--temp-dir={self.temporary(name)}"]
        command += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={_STORE}"]
        steps = []
        for place, size in (mounts or {}).items():
            if size == "overlay":
                upper, work = (self.directory / f"{name}-{part}" for part in ("upper", "work"))
                layers = f"lowerdir={place},upperdir={upper},workdir={work}"
                steps.append(f"mkdir {upper} {work} && mount -t overlay -o {layers} own {place}")
                continue
            steps.append(f"mount -t tmpfs -o size={size.rstrip('!')} tmpfs {place}")
            if size.endswith("!"):
                steps.append(f"{{ cat /dev/zero > {place}/filler 2> /dev/null || true; }}")
        if steps:
            script = " && ".join([*steps, 'exec "$@"'])
            command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
        with self.log(name).open("w") as output:
            self.started[name] = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=self.environment(PREFLIGHT_NODE=name, **(environment or {})),
                start_new_session=True,
            )

    def temporary(self, name: str) -> Path:
        """Ray's directory on a node; short, because names of sockets have 107 bytes at most."""
        return self.directory / name[0]

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def wait(self) -> None:
        """Until every node that was started runs."""
        for name in self.started:
            self._wait(name)

    def _wait(self, name: str) -> None:
        until = time.monotonic() + _START_SECONDS
        while "block forever" not in (said := self.log(name).read_text()):
            assert self.started[name].poll() is None and time.monotonic() < until, said
            time.sleep(0.1)

    def stop_answering(self, name: str) -> None:
        """Lets a node's raylet live, but do nothing any more."""
        for pid in self.processes(f"PREFLIGHT_NODE={name}"):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                os.kill(pid, signal.SIGSTOP)

    def processes(self, setting: str) -> list[int]:
        """Processes of this cluster whose environment has a setting."""
        return with_settings(self.mark, setting)


def other_versions(directory: Path) -> dict[str, str]:
    """The environment of a node that has other versions of Python, Ray and torch installed."""
    directory.mkdir()
    for package, version in (("torch", "9.9.9"), ("ray", "2.59.0")):
        there = directory / f"{package}-{version}.dist-info"
        there.mkdir()
        facts = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        (there / "METADATA").write_text(facts)
    # Ray itself refuses a node with another Python, unless it is told not to.
    change = 'import sys\nsys.version = "3.10.13 " + sys.version.partition(" ")[2]\n'
    (directory / "sitecustomize.py").write_text(change)
    return {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}


def without_our_code(directory: Path) -> dict[str, str]:
    """The environment of a node where something that our code needs cannot be imported."""
    directory.mkdir()
    take_away = 'import sys\nsys.modules["tuning"] = None\n'
    (directory / "sitecustomize.py").write_text(take_away)
    return {"PYTHONPATH": str(directory)}
