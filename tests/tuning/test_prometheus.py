"""Metrics of a search: what they say, by hand; then read from a real Ray, where it serves them."""

import importlib.util
import os
import subprocess
import sys
from typing import ClassVar

import pytest
import ray.util.metrics

from tests.tuning.coordinator_support import coordinator, drive, loss
from tests.tuning.ray_support import ROOT
from tuning.journal import Row
from tuning.journal.row import PREEMPTED
from tuning.prometheus import SearchMetrics


class Fake:
    """A metric of Ray's, which keeps what it is told by name and tags."""

    told: ClassVar = {}

    def __init__(self, name, description, tag_keys):
        self.name, self.keys, self.default = name, tag_keys, {}
        assert description

    def set_default_tags(self, tags):
        self.default = tags

    def _key(self, tags):
        tags = self.default | (tags or {})
        assert set(tags) == set(self.keys), "Ray refuses tags that are missing or unknown"
        return (self.name, *(tags[key] for key in self.keys))

    def set(self, value, tags=None):
        self.told[self._key(tags)] = value

    def inc(self, value=1.0, tags=None):
        self.told[self._key(tags)] = self.told.get(self._key(tags), 0) + value


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(Fake, "told", {})
    monkeypatch.setattr(ray.util.metrics, "Gauge", Fake)
    monkeypatch.setattr(ray.util.metrics, "Counter", Fake)
    return Fake.told


def states(told):
    return {key[2]: n for key, n in told.items() if key[0] == "dialogue_tune_trials" and n}


def test_a_search(told, tmp_path):
    search = coordinator(tmp_path, trials=3)
    search.listeners = [SearchMetrics(search, "demo")]
    assignments = [search.next_assignment() for _ in range(3)]
    assert states(told) == {"running": 3}
    search.report(0, 1, {"val_loss": 2.0, "iteration": 1}, worker="10.0.0.1:7")
    search.report(1, 1, {"val_loss": 3.0, "iteration": 1}, worker="10.0.0.2:7")
    search.report(0, 2, {"val_loss": 1.5, "iteration": 2}, worker="10.0.0.1:7", state="finished")
    search.failed(1, "boom")
    search.next_assignment()
    search.failed(1, PREEMPTED)
    search.failed(2, "refused", retry=False)
    assert len(assignments) == 3
    assert states(told) == {"finished": 1, "running": 1, "failed": 1}
    assert told["dialogue_tune_best", "demo", "val_loss"] == 1.5
    assert told["dialogue_tune_reports", "demo", "10.0.0.1"] == 2
    assert told["dialogue_tune_reports", "demo", "10.0.0.2"] == 1
    assert told["dialogue_tune_failed_attempts", "demo"] == 2


def test_a_resumed_search_begins_with_what_is_known(told, tmp_path):
    first = coordinator(tmp_path, trials=2)
    drive(first, {})
    first.journal.close()
    again = coordinator(tmp_path, trials=2)
    SearchMetrics(again, "demo")
    assert states(told) == {"finished": 2}
    best = min(loss(record.config, 9) for record in again.trials.values())
    assert told["dialogue_tune_best", "demo", "val_loss"] == pytest.approx(best)


def test_there_are_no_more_series_however_many_trials(told, tmp_path):
    search = coordinator(tmp_path, trials=40)
    search.listeners = [SearchMetrics(search, "demo")]
    drive(search, {})
    assert states(told) == {"finished": 40}
    assert len(told) == 5 + 1 + 1


def test_rows_of_no_trial_and_values_that_are_none(told, tmp_path):
    metrics = SearchMetrics(coordinator(tmp_path), "demo")
    metrics.heard(Row(kind="session"))
    for value in (None, float("inf"), float("nan")):
        metrics.heard(Row(kind="report", trial=0, state="running", values=[value]))
    assert states(told) == {"running": 1}
    assert ("dialogue_tune_best", "demo", "val_loss") not in told


#: Drives a search without training, and prints what the node serves of it.
SERVED = """
import sys, time, urllib.request
from pathlib import Path
import ray
from tests.tuning.coordinator_support import coordinator, drive
from tuning.prometheus import SearchMetrics
ray.init(address="local", num_cpus=1, include_dashboard=True, dashboard_port=0,
         log_to_driver=False, logging_level=40)
search = coordinator(Path(sys.argv[1]), trials=5)
search.listeners = [SearchMetrics(search, "demo")]
drive(search, {})
until = time.monotonic() + 60
while time.monotonic() < until:
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        served = urllib.request.urlopen(url, timeout=5).read().decode()
    except (OSError, ValueError):  # not up yet
        served = ""
    lines = [line for line in served.splitlines() if line.startswith("ray_dialogue_tune")]
    if lines:
        print(*lines, sep="\\n")
        break
    time.sleep(1)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(
    not importlib.util.find_spec("aiohttp_cors"), reason="needs ray[default], which serves metrics"
)
def test_a_real_ray_serves_them(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(tmp_path / "journal")],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    lines = done.stdout.splitlines()
    finished = [
        line for line in lines if 'state="finished"' in line and 'experiment="demo"' in line
    ]
    assert [float(line.split()[-1]) for line in finished] == [5.0], done.stdout + done.stderr
    reports = [line for line in lines if line.startswith("ray_dialogue_tune_reports_total{")]
    assert [float(line.split()[-1]) for line in reports] == [45.0]
