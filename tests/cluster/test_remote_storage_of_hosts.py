"""A search over hosts that have S3 in common and no directory: hosts and drivers are lost.

A real server that speaks S3 runs on a host of its own. At one path each host has a directory of its
own: a driver's copy of an experiment lies there, and the corpus, only where a search begins. So
whatever a worker or another driver has came through Ray or the object store.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks import lost_hosts
from tests.cluster.hosts import Hosts
from tests.cluster.test_lost_head import _ON_NODE
from tests.tuning.ray_support import ROOT, finish, wait_for_reports
from tests.tuning.storage.object_store import CREDENTIALS
from tuning.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]

TRIALS, ITERATIONS, EVERY = 5, 450, 30
ASKED = ("--trials", TRIALS, "--seed", 1, "--wandb", "disabled")
BUCKET, NAME = "bucket", "one"
RUNS = f"s3://{BUCKET}/runs"
HEAD, WORKERS, STORE = 0, (1, 2), 3
_STORE_PORT = 9000
_WAIT_SECONDS = 120.0

#: A command with a directory of the host's own at a path that all hosts have.
_APART = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
#: Makes a bucket, once the server answers.
_MAKE = """
import boto3, sys
from botocore.config import Config
patient = Config(retries={"max_attempts": 20, "mode": "standard"}, connect_timeout=5)
boto3.client("s3", config=patient).create_bucket(Bucket=sys.argv[1])
"""
#: Fetches everything below a prefix, by Amazon's own client, as ``aws s3 sync`` would.
_FETCH = """
import boto3, pathlib, sys
bucket, prefix, target = sys.argv[1:]
client = boto3.client("s3")
pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
for key in [o["Key"] for page in pages for o in page["Contents"] if not o["Key"].endswith("/")]:
    file = pathlib.Path(target, key.removeprefix(prefix))
    file.parent.mkdir(parents=True, exist_ok=True)
    client.download_file(bucket, key, str(file))
"""


class HostsApart(Hosts):
    """Hosts that have no directory in common, and S3 on one of them.

    Args:
        directory: An empty one.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(len(WORKERS) + 1)
        self.directory, self.here = directory, directory / "here"
        for path in (self.here, *map(self.own, range(self.count))):
            path.mkdir()
        self._more = CREDENTIALS | {
            "AWS_ENDPOINT_URL": f"http://{self.ip(STORE)}:{_STORE_PORT}",
            "DIALOGUE_TUNE_CACHE": str(self.here / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def own(self, host):
        """What a host has at `here`."""
        return self.directory / f"host-{host}"

    def run(self, host, command, **options):
        """As `Hosts.run`, with the host's own directory in its place."""
        place = ("sh", "-c", _APART, "sh", self.own(host), self.here)
        return super().run(host, [*place, *command], **options)

    def python(self, host, code, *arguments):
        """Runs a piece of Python on a host to its end."""
        process = self.run(host, [sys.executable, "-c", code, *arguments])
        said = finish(process)
        assert process.returncode == 0, said

    def tuning(self, host, *arguments):
        """Starts ``python -m tuning`` with its driver on a host of the cluster."""
        code = ["-c", _ON_NODE, self.ip(host), *arguments, "--storage", RUNS]
        return self.run(host, [sys.executable, *code, "--address", self.address], cwd=ROOT)

    def in_peace(self):
        """Starts the same search on the host of the store alone, in a directory of its own."""
        options = {"env": {"RAY_TMPDIR": str(self.temporary(STORE))}, "cwd": ROOT}
        self.temporary(STORE).mkdir()
        where = ("--name", "quiet", "--storage", self.here / "runs")
        code = ("-m", "tuning", "run", self.here / "sweep.yaml", *ASKED, *where)
        return self.run(STORE, [sys.executable, *code], **options)

    def copy(self, host):
        """The copy of the experiment on a host where a driver runs or ran."""
        return next(self.own(host).glob(f"cache/*/{BUCKET}/runs/{NAME}"), Path("/nowhere"))

    def start(self):
        """S3, and Ray on all other hosts."""
        server = ("-m", "moto.server", "-H", self.ip(STORE), "-p", _STORE_PORT)
        with (self.directory / "store.log").open("w", encoding="utf-8") as log:
            self.run(STORE, [sys.executable, *server], stdout=log)
        self.start_head()
        self.start_workers(WORKERS)
        self.python(STORE, _MAKE, BUCKET)

    def fetch(self):
        """The experiment as it is in the bucket, fetched by a host that no driver was on."""
        target = self.directory / "fetched" / NAME
        self.python(STORE, _FETCH, BUCKET, f"runs/{NAME}/", target)
        return target


@pytest.fixture
def hosts(tmp_path):
    """With Ray and S3 running; two of them have the sweep and its corpus."""
    pytest.importorskip("moto", reason="moto is not installed")
    with HostsApart(tmp_path) as hosts:
        hosts.start()
        written = lost_hosts.write_search(hosts.here, iterations=ITERATIONS, report_every=EVERY)
        for file in (written, written.with_name("tiny.txt")):
            for host in (HEAD, STORE):
                shutil.copy(file, hosts.own(host))
            file.unlink()
        yield hosts


def start(hosts, host, *more):
    """The search with its driver on a host, once it has begun; and the driver's copy."""
    search = hosts.tuning(host, "run", hosts.here / "sweep.yaml", "--name", NAME, *ASKED, *more)
    wait_until(search, lambda: hosts.copy(host).is_dir())
    wait_for_reports(hosts.copy(host), 4, search)
    return search, hosts.copy(host)


def wait_until(process, there):
    until = time.monotonic() + _WAIT_SECONDS
    while not there():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)


def rows_of(directory):
    journal = directory / "journal"
    return read_journal(journal).rows if journal.is_dir() else []


def reports(directory):
    return [row for row in rows_of(directory) if row.kind == "report"]


def in_the_middle(directory, address):
    """Whether a trial that a host trains has been reported some times, and goes on."""
    last = [row for row in reports(directory) if row.worker.startswith(f"{address}:")][-1:]
    return any(6 * EVERY <= row.iteration < ITERATIONS - 4 * EVERY for row in last)


def check_went_on_from_checkpoints(directory):
    """Each further attempt began where the last one was, but for reports without a checkpoint."""
    reached, ahead = {}, {}
    for row in reports(directory):
        if row.attempt > 1 and (row.trial, row.attempt) not in ahead:
            ahead[row.trial, row.attempt] = row.iteration - reached.get(row.trial, 0)
        reached[row.trial] = row.iteration
    assert ahead and all(-3 * EVERY <= each <= EVERY for each in ahead.values()), ahead


@pytest.mark.long
def test_a_host_and_the_driver_with_its_machine_are_lost_and_another_goes_on(hosts):
    lost, other = WORKERS
    search, copy = start(hosts, HEAD)
    wait_until(search, lambda: in_the_middle(copy, hosts.ip(lost)))
    hosts.kill(lost)
    wait_until(search, lambda: any(r.attempt == 2 for r in reports(copy)[:-4]))
    os.kill(search.pid, signal.SIGKILL)
    said = finish(search)
    finished = {row.trial for row in reports(copy) if row.state == "finished"}
    assert 0 < len(finished) < TRIALS, said

    resumed = hosts.tuning(other, "resume", NAME)
    quiet = hosts.in_peace()  # while nobody trains: the other driver waits for 45 s
    said = finish(resumed, 240)
    assert resumed.returncode == 0, said
    assert "ran this search; is it alive? 45 s" in said
    said = finish(quiet)
    assert quiet.returncode == 0, said

    fetched = hosts.fetch()
    lost_hosts.check_search(fetched, hosts.own(STORE) / "runs" / "quiet", TRIALS)
    check_went_on_from_checkpoints(fetched)
    # Nothing went past Ray and the object store.
    assert list(hosts.here.iterdir()) == []
    assert list(hosts.own(lost).iterdir()) == []
    assert [path.name for path in hosts.own(other).iterdir()] == ["cache"]

    late = hosts.tuning(HEAD, "resume", NAME)  # whose copy has another end
    said = finish(late)
    assert late.returncode == 0, said
    assert rows_of(copy) == rows_of(fetched)


@pytest.mark.long
def test_a_driver_that_is_cut_off_is_superseded_and_spoils_nothing_when_it_is_back(hosts):
    away, other = WORKERS
    shutil.copytree(hosts.own(HEAD), hosts.own(away), dirs_exist_ok=True)
    first, copy = start(hosts, away)
    wait_until(first, lambda: in_the_middle(copy, hosts.ip(other)))
    hosts.cut(away)
    second = hosts.tuning(other, "resume", NAME)
    wait_until(second, lambda: any(row.attempt > 1 for row in reports(hosts.copy(other))))
    hosts.restore(away)
    said = finish(first)
    assert first.returncode == 2, said
    assert "error: " in said and "Traceback" not in said

    quiet = hosts.in_peace()
    for process in (second, quiet):
        said = finish(process, 240)
        assert process.returncode == 0, said
    fetched = hosts.fetch()
    lost_hosts.check_search(fetched, hosts.own(STORE) / "runs" / "quiet", TRIALS)
    check_went_on_from_checkpoints(fetched)


@pytest.mark.long
def test_of_two_drivers_the_second_is_refused_until_the_first_has_ended(hosts):
    many = ("--trials", 500)  # none of these drivers comes to the end
    first, copy = start(hosts, HEAD, *many)
    second = hosts.tuning(WORKERS[0], "resume", NAME)
    said = finish(second)
    assert second.returncode == 2, said
    assert f"error: {RUNS}/{NAME}: is being run by " in said
    assert f", process {first.pid}." in said
    assert "Traceback" not in said

    wait_for_reports(copy, len(reports(copy)) + 4, first)
    said = interrupt(first)
    assert "storage" not in said.partition("stopping")[0]
    left = rows_of(hosts.fetch())
    assert left == rows_of(copy)
    assert not any(row.kind in ("restarted", "failed") for row in left)

    third = hosts.tuning(WORKERS[0], "resume", NAME)
    wait_until(third, lambda: len(rows_of(hosts.copy(WORKERS[0]))) >= len(left) + 6)
    said = interrupt(third)
    assert "is it alive?" not in said
    after = rows_of(hosts.fetch())
    assert after[: len(left)] == left
    assert [row.seq for row in after] == list(range(len(after)))
    assert [row.kind for row in after].count("session") == 2


def interrupt(process):
    """Ctrl-C, and what the search has printed."""
    os.killpg(process.pid, signal.SIGINT)
    said = finish(process)
    assert process.returncode == 130, said
    return said
