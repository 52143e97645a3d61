"""A Ray cluster of one machine with a dashboard and a token, as a laptop meets it."""

import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path

from tests.processes import free_port, with_settings
from tests.tuning.ray_support import ROOT

#: Runs commands one after the other in one process, for importing Ray takes seconds. What is no
#: command is a journal to wait for.
COMMANDS = """
import json, sys, time
from pathlib import Path
from model.cli import run_main
from tuning.__main__ import main
from tuning.journal import read_journal
for words in json.loads(sys.argv[1]):
    if words[0] != "wait":
        print("status", run_main(main, words), flush=True)
        continue
    journal, until = Path(words[1]), time.monotonic() + 120
    while not journal.is_dir() or sum(r.kind == "report" for r in read_journal(journal).rows) < 2:
        assert time.monotonic() < until, "no report came"
        time.sleep(0.05)
"""


def names_in(package):
    """The files of a package that is sent to a cluster."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return archive.namelist()


class Head:
    """A cluster of one machine, with everything it writes in one directory.

    Attributes:
        place: That directory; its name is short: the paths of Ray's sockets may have 107 bytes.
        runs: Directory of experiments.
        project: A copy of our packages, from which a laptop's commands run.
        address: Of the dashboard, for jobs.
        cluster: Of the cluster itself, for drivers.
        laptop: More variables of the environment of commands.
    """

    def __init__(self):
        self.place = Path(tempfile.mkdtemp(prefix="dtj", dir="/tmp"))
        self.runs = self.place / "runs"
        self.runs.mkdir()
        self.laptop = {}
        self.token = self.place / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.mark = f"DIALOGUE_TUNE_TEST_HEAD={secrets.token_hex(8)}"
        port, cluster = free_port(), free_port()
        self.address, self.cluster = f"http://127.0.0.1:{port}", f"127.0.0.1:{cluster}"
        self.project = self.place / "project"
        for package in ("model", "tuning"):
            shutil.copytree(
                ROOT / package,
                self.project / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        command = ["start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
        command += [f"--port={cluster}", f"--temp-dir={self.place / 'ray'}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        command += [f"--ray-client-server-port={free_port()}", "--node-ip-address=127.0.0.1"]
        command += [f"--object-store-memory={100 * 2**20}"]
        name, value = self.mark.split("=")
        with (self.place / "head.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.place,
                env=self.environment() | {name: value},
            )

    def environment(self):
        """Ours, but for what is about Ray; Python is found by its name, as on a cluster."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "WANDB_"))}
        return outer | {
            "PATH": f"{Path(sys.executable).parent}:{outer['PATH']}",
            "HOME": str(self.place),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def wait(self):
        until = time.monotonic() + 120
        while True:
            with suppress(urllib.error.URLError, ConnectionError):
                if self.asked(self.token.read_text()) == 200:
                    return
            assert self.process.poll() is None and time.monotonic() < until, (
                self.place / "head.log"
            ).read_text()
            time.sleep(0.5)

    def asked(self, token):
        """The HTTP status that listing the jobs has, with a token or without."""
        request = urllib.request.Request(f"{self.address}/api/jobs/")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            # No proxy of the machine's is asked.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=20) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def start(self, *arguments, **environment):
        """Starts Python with some arguments, as on a laptop; no variable where one is None."""
        laptop = self.environment() | self.laptop | {"PYTHONUNBUFFERED": "1"} | environment
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.project,
            env={k: v for k, v in laptop.items() if v is not None},
        )

    def run(self, *commands):
        """Runs commands, with our address where they have none.

        Returns:
            What they printed, and their exit statuses.
        """
        lines = [[*map(str, words)] for words in commands]
        for words in lines:
            if words[0] != "wait" and "--address" not in words:
                words += ["--address", self.address]
        process = self.start("-c", COMMANDS, json.dumps(lines))
        said, _ = process.communicate(timeout=300)
        lines = said.splitlines()
        assert process.returncode == 0, said
        return said, [int(line[7:]) for line in lines if line.startswith("status ")]

    def close(self):
        """Ends every process that this head has started, whatever became of it."""
        until = time.monotonic() + 30
        while pids := with_settings(self.mark):
            assert time.monotonic() < until, f"processes {pids} do not end"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
        shutil.rmtree(self.place, ignore_errors=True)
