"""Weights & Biases: with fakes first, then its own files read back, then a server that answers.

Nothing here leaves the machine: the server listens on the loopback address, and offline runs are
read back by a second reader of their format (`tests.tuning.ray_support.wandb_records`).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigurationError, ExperimentError
from tests.tuning.ray_support import (
    ROOT,
    command,
    finish,
    sweep_mapping,
    wait_for_reports,
    wandb_records,
    write_corpus,
)
from tests.tuning.wandb_server import KEY, WandbServer
from tuning.__main__ import main
from tuning.experiment import Experiment
from tuning.journal import Journal, Row, read_journal
from tuning.sweeps.sweep_file import parse_sweep
from tuning.tracking import Patience, WandbTracker, choose_mode, has_key
from tuning.tracking import tracker as tracking
from tuning.tracking.wandb_log import read_segment, read_segments
from tuning.tracking.wandb_send import send

CONFIG = {"clip": 50, "learning_rate": 0.001}


def row(kind, trial=0, state="running", **values):
    return Row(kind=kind, trial=trial, attempt=1, config=CONFIG, state=state, **values)


def report(trial, iteration, state="running", **metrics):
    """A report whose best value is 1/iteration."""
    value = 1 / iteration
    metrics = {"val_loss": value} | metrics
    return row("report", trial, state, iteration=iteration, metrics=metrics, values=[value])


def finished_trial(trial, iterations=(4, 8, 12)):
    """All rows of a trial that ends well."""
    *before, last = iterations
    reports = [report(trial, iteration) for iteration in before]
    return [row("proposed", trial), *reports, report(trial, last, "finished")]


class Tracking:
    """Trackers of one experiment, one session after the other, and what they said."""

    def __init__(self, directory, mode):
        self.directory, self.mode = directory, mode
        self.problems = []

    def session(self, rows, past=(), **options):
        options = {"patience": Patience(20, 20, 60), "mode": self.mode, "run_id": "id"} | options
        tracker = WandbTracker(
            self.directory,
            "group",
            tags=("a", "b"),
            past=past,
            on_problem=self.problems.append,
            **options,
        )
        for event in rows:
            tracker.heard(event)
        tracker.close()
        return tracker


class TestKeyAndMode:
    @pytest.fixture
    def no_key(self, monkeypatch, tmp_path):
        for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        return tmp_path / "netrc"

    def test_without_a_key_it_is_offline_and_never_asks(self, no_key):
        assert not has_key()
        assert choose_mode(None) == "offline"
        assert choose_mode("disabled") == "disabled"
        with pytest.raises(ConfigurationError, match="--wandb: online: needs a key; set WANDB_A"):
            choose_mode("online")

    @pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
    def test_a_key_in_the_environment_means_online(self, no_key, monkeypatch, name):
        monkeypatch.setenv(name, "k" * 40)
        assert choose_mode(None) == "online"
        assert choose_mode("offline") == "offline"

    def test_a_key_in_netrc_means_online_for_its_host_alone(self, no_key, monkeypatch):
        no_key.write_text("machine wandb.example.org login user password secret\n")
        assert choose_mode(None) == "offline"
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        assert choose_mode(None) == "online"

    def test_a_search_that_was_online_goes_on_offline_without_a_key(self, no_key, tmp_path, fake):
        """W&B itself would ask for a key on the terminal, and wait."""
        trackings = Tracking(tmp_path, "online")
        trackings.session(finished_trial(0))
        assert trackings.problems == [
            "Weights & Biases has no key here; its runs are kept offline."
        ]
        assert fake.modes == ["offline"]


class Fake:
    """Stands for the module ``wandb``; trials in ``failing`` cannot be opened."""

    run = None

    def __init__(self):
        self.events, self.modes, self.failing, self.ends = [], [], {}, 0
        self.opening = threading.Event()
        self.opening.set()

    def Settings(self, **values):
        return values

    def setup(self, settings):
        pass

    def teardown(self):
        self.ends += 1
        raise SystemExit(1)  # as W&B does where its process failed

    def init(self, **arguments):
        number = int(arguments["id"].split("-")[1])
        self.opening.wait()
        self.modes.append(arguments["mode"])
        if number in self.failing:
            raise RuntimeError(self.failing[number])
        self.events.append((number, "init"))
        config = SimpleNamespace(
            update=lambda values, allow_val_change: self.events.append((number, "config", values))
        )
        summary = {}

        def log(metrics, step, commit):
            assert commit  # or W&B keeps each row back until the next
            self.events.append((number, step, metrics))

        def finish(exit_code):
            self.events.append((number, "finish", exit_code, dict(summary)))

        return SimpleNamespace(
            config=config, summary=summary, log=log, finish=finish, starting_step=0
        )


@pytest.fixture
def fake(monkeypatch):
    module = Fake()
    monkeypatch.setitem(sys.modules, "wandb", module)
    yield module
    for thread in threading.enumerate():  # one that nobody waited for would use the next fake
        if thread.name == "wandb":
            thread.join(20)


class TestWithFakes:
    @pytest.fixture
    def trackings(self, tmp_path):
        return Tracking(tmp_path, "offline")

    def test_runs_are_opened_fed_and_closed(self, trackings, fake):
        trackings.session(
            [
                Row(kind="session"),
                row("proposed"),
                report(0, 4),
                row("restarted"),
                report(0, 4),  # a restarted trial says again where it goes on from
                report(0, 8, "finished"),
                row("proposed", 1),
                report(1, 4),
            ]
        )
        assert fake.events == [
            (0, "init"),
            (0, 4, {"val_loss": 1 / 4}),
            (0, 8, {"val_loss": 1 / 8}),
            (0, "finish", 0, {"state": "finished", "value": 1 / 8}),
            (1, "init"),
            (1, 4, {"val_loss": 1 / 4}),
            (1, "finish", 255, {"state": "interrupted", "value": 1 / 4}),
        ]
        assert trackings.problems == []

    @pytest.mark.parametrize(("state", "code"), [("finished", 0), ("stopped", 0), ("diverged", 1)])
    def test_the_state_that_a_report_ends_with(self, trackings, fake, state, code):
        trackings.session([row("proposed"), report(0, 4, state)])
        assert fake.events[-1] == (0, "finish", code, {"state": state, "value": 1 / 4})

    def test_a_trial_that_waited_when_the_target_was_reached_was_stopped(self, trackings, fake):
        failure = {"iteration": 4, "values": [0.25], "reason": "a worker died"}
        ended = row("stopped", state="stopped", iteration=4, values=[0.25], reason="target reached")
        trackings.session([row("proposed"), report(0, 4), row("failed", **failure), ended])
        assert fake.events[-1][:3] == (0, "finish", 0)
        assert fake.events[-1][3]["state"] == "stopped"

    def test_a_failed_trial_says_why_and_an_attempt_that_is_repeated_does_not_end_it(
        self, trackings, fake
    ):
        failure = {"iteration": 4, "values": [0.25], "reason": "ValueError: on purpose"}
        rows = [row("proposed"), report(0, 4), row("failed", **failure), row("restarted")]
        trackings.session([*rows, row("failed", state="failed", **failure)])
        assert [event[1] for event in fake.events] == ["init", 4, "finish"]
        summary = {"state": "failed", "value": 0.25, "reason": "ValueError: on purpose"}
        assert fake.events[-1] == (0, "finish", 1, summary)

    def test_a_trial_that_is_tried_again_later_goes_on_with_its_run(self, trackings, fake):
        again = [row("retried", state=None), row("restarted"), report(0, 8, "finished")]
        trackings.session([*finished_trial(0, (4,)), *again])
        assert [event[1] for event in fake.events] == ["init", 4, "finish", "init", 8, "finish"]

    def test_a_configuration_that_changes_on_the_way_is_told(self, trackings, fake):
        changed = Row(kind="report", trial=0, iteration=4, config=CONFIG | {"clip": 25})
        trackings.session([row("proposed"), changed])
        assert (0, "config", CONFIG | {"clip": 25}) in fake.events

    def test_numbers_and_texts_are_logged_and_nothing_else(self, trackings, fake):
        extra = {"worker": "h", "image": object(), "nothing": None}
        trackings.session([row("proposed"), report(0, 4, **extra)])
        assert fake.events[1] == (0, 4, {"val_loss": 1 / 4, "worker": "h"})

    def test_a_run_that_fails_is_said_and_left_alone_and_the_others_go_on(self, trackings, fake):
        fake.failing = {1: "no\nspace"}
        trackings.session([e for trial in range(4) for e in finished_trial(trial)])
        assert trackings.problems == [
            "Weights & Biases failed the run of trial 1: no space. "
            f"To send what it misses: python -m tuning sync {trackings.directory}"
        ]
        assert {event[0] for event in fake.events} == {0, 2, 3}

    def test_after_three_failures_in_a_row_it_is_left_alone(self, trackings, fake):
        fake.failing = dict.fromkeys(range(1, 9), "no network.")
        tracker = trackings.session([e for t in range(9) for e in finished_trial(t)])
        first, last = trackings.problems
        assert first.startswith("Weights & Biases failed the run of trial 1: no network. To send")
        assert last.startswith("Weights & Biases stopped logging: no network. To send")
        assert len(fake.modes) == 1 + 3
        left = tracker._rows.qsize()
        tracker.heard(row("proposed", 10))
        assert tracker._rows.qsize() == left, "nothing is kept for a thread that has ended"

    def test_without_wandb_the_search_goes_on(self, trackings, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        trackings.session([row("proposed", trial) for trial in range(3)])
        assert "import of wandb halted" in trackings.problems[-1]
        assert len(trackings.problems) == 2

    def test_a_hanging_wandb_holds_up_neither_the_search_nor_its_end(self, trackings, fake):
        fake.opening.clear()
        began = time.monotonic()
        trackings.session(
            [e for trial in range(100) for e in finished_trial(trial)],
            patience=Patience(close=0.2),
        )
        assert time.monotonic() - began < 2
        (problem,) = trackings.problems
        assert problem.startswith("Weights & Biases did not finish in time. To send what it misses")
        fake.opening.set()

    def test_slowness_is_said_once(self, trackings, fake, monkeypatch):
        monkeypatch.setattr(tracking, "SLOW_SECONDS", 0.01)
        fake.opening.clear()
        tracker = WandbTracker(
            trackings.directory,
            "g",
            mode="offline",
            run_id="id",
            on_problem=trackings.problems.append,
        )
        tracker.heard(row("proposed"))
        deadline = time.monotonic() + 5
        while not trackings.problems and time.monotonic() < deadline:
            time.sleep(0.02)
            tracker.heard(report(0, 4))
        for _ in range(3):
            tracker.heard(report(0, 4))
        fake.opening.set()
        tracker.close()
        (problem,) = trackings.problems
        assert problem.startswith("Weights & Biases is slow: ")
        assert problem.endswith(" rows wait; the search does not.")

    def test_its_process_is_ended_unless_somebody_else_has_a_run_there(self, trackings, fake):
        trackings.session(finished_trial(0))
        assert fake.ends == 1
        fake.run = object()
        trackings.session(finished_trial(0))
        assert fake.ends == 1
        fake.run = None
        trackings.session([Row(kind="session")])
        assert fake.ends == 1, "nothing was opened"
        assert trackings.problems == []

    def test_a_stop_asked_for_in_its_page_is_refused_aloud(self, trackings, fake):
        settings = []
        fake.Settings = lambda **values: settings.append(values)
        trackings.session([row("proposed")])
        for _ in range(2):
            settings[-1]["stop_fn"]()  # what W&B calls instead of interrupting our main thread
        assert trackings.problems == [
            "Weights & Biases asked to stop a run; not done: Ctrl-C here stops the search."
        ]


# The files that W&B leaves


def level_db(records):
    """The bytes of records in LevelDB's log format after W&B's header; checksums are left out."""
    content = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first, rest = True, record
        while first or rest:
            left = 32768 - len(content) % 32768
            if left < 7:
                content += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}
            head = bytes(4) + len(part).to_bytes(2, "little") + bytes([kind[first, not rest]])
            content += head + part
            first = False
    return bytes(content)


def history_record(step, padding):
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    record.history.step.num = step
    record.history.item.add(key="x", value_json="x" * padding)
    return record.SerializeToString()


class TestFiles:
    @settings(deadline=None)  # the first call imports wandb
    @given(
        paddings=st.lists(st.integers(0, 70_000) | st.integers(32_700, 32_780), max_size=6),
        cut=st.integers(0, 400_000),
    )
    def test_a_file_is_read_up_to_where_it_is_torn(self, tmp_path_factory, paddings, cut):
        directory = tmp_path_factory.mktemp("torn") / "offline-run-1-id-0000"
        directory.mkdir()
        file = directory / "run-id-0000.wandb"
        records = [history_record(step, padding) for step, padding in enumerate(paddings)]
        content = level_db(records)
        ends = [len(level_db(records[: n + 1])) for n in range(len(records))]
        file.write_bytes(content[: max(7, cut)])
        segment = read_segment(file)
        whole = [end for end in ends if end <= max(7, cut)]
        assert segment.last_step == len(whole) - 1
        segment.mend()
        assert file.stat().st_size == max([*whole, 7])
        assert file.with_name("run-id-0000.wandb.synced").exists(), "no run in it: it is hidden"
        assert len(wandb_records(file)) == len(whole)
        assert read_segment(file) == replace(segment, is_synced=True)

    def test_files_of_other_runs_are_passed_over(self, tmp_path):
        for name in ("id-0007", "id-promotion", "other-0007"):
            directory = tmp_path / f"offline-run-1-{name}"
            directory.mkdir()
            (directory / f"run-{name}.wandb").write_bytes(level_db([history_record(4, 1)]))
        ((trial, (segment,)),) = read_segments(tmp_path, "id").items()
        assert (trial, segment.last_step, segment.exit_code) == (7, 4, None)
        assert read_segments(tmp_path / "nowhere", "id") == {}


@pytest.fixture
def real(tmp_path, monkeypatch):
    """wandb itself, with nothing of a person's, and taken down after the test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def logged_offline(directory, trial):
    """Of each segment of a trial: its steps, its exit codes, its summary."""
    parts = []
    for file in sorted(directory.glob(f"wandb/offline-run-*-id-{trial:04d}*/*.wandb")):
        steps, codes, summary = [], [], {}
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                steps.append(record.history.step.num)
            elif kind == "exit":
                codes.append(record.exit.exit_code)
            elif kind == "summary":
                items = record.summary.update
                summary |= {i.key or i.nested_key[0]: json.loads(i.value_json) for i in items}
        parts.append((steps, codes, summary))
    return parts


class TestOffline:
    @pytest.fixture
    def trackings(self, tmp_path, real):
        return Tracking(tmp_path, "offline")

    def test_the_files_hold_the_runs_and_nothing_but_numbers(self, trackings, tmp_path):
        trackings.session([*finished_trial(0), row("proposed", 1), report(1, 4, "stopped")])
        assert trackings.problems == []
        first, second = (logged_offline(tmp_path, trial) for trial in range(2))
        ((steps, codes, summary),) = first
        assert (steps, codes) == ([4, 8, 12], [0])
        assert (summary["state"], summary["value"]) == ("finished", 1 / 12)
        ((steps, codes, summary),) = second
        assert (steps, codes) == ([4], [0])
        assert (summary["state"], summary["value"]) == ("stopped", 1 / 4)

        (file,) = tmp_path.glob("wandb/offline-run-*-id-0000/*.wandb")
        records = wandb_records(file)
        run = next(r.run for r in records if r.WhichOneof("record_type") == "run")
        assert (run.run_group, run.job_type, run.display_name) == ("group", "trial", "group-0000")
        assert list(run.tags) == ["a", "b"]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert {name: config[name] for name in CONFIG} == CONFIG
        kinds = {record.WhichOneof("record_type") for record in records}
        assert not kinds & {"output", "output_raw", "stats", "artifact", "tbrecord"}
        sent = [
            f.path for r in records if r.WhichOneof("record_type") == "files" for f in r.files.files
        ]
        assert sent == []

    def test_a_resumed_search_neither_repeats_nor_leaves_out(self, trackings, tmp_path):
        before = [row("proposed"), report(0, 4), report(0, 8)]
        trackings.session(before)
        after = [row("restarted"), report(0, 8), report(0, 12, "finished")]
        trackings.session(after, past=before)
        first, second = logged_offline(tmp_path, 0)
        assert (first[:2], second[:2]) == (([4, 8], [255]), ([12], [0]))
        assert first[2]["state"] == "interrupted"
        trackings.session([], past=before + after)
        assert len(logged_offline(tmp_path, 0)) == 2, "what is whole is not opened again"
        assert trackings.problems == []

    def test_what_was_never_logged_is_filled_in(self, trackings, tmp_path):
        """As where the first session ran without W&B."""
        trackings.session([], past=[*finished_trial(0), row("proposed", 1), report(1, 4)])
        ((steps, codes, summary),) = logged_offline(tmp_path, 0)
        assert (steps, codes, summary["state"]) == ([4, 8, 12], [0], "finished")
        assert logged_offline(tmp_path, 1) == []
        trackings.session([row("restarted", 1), report(1, 8, "finished")], past=[report(1, 4)])
        assert logged_offline(tmp_path, 1)[0][:2] == ([4, 8], [0])


#: A process of its own: hears rows, and stays until it is killed, or closes and ends.
DRIVER = """
import json, sys, time
from contextlib import suppress
from pathlib import Path
from tuning.journal import Row
from tuning.tracking import Patience, WandbTracker

order = json.load(sys.stdin)
began = time.monotonic()
tracker = WandbTracker(
    Path(order["directory"]), "group", mode=order["mode"], run_id="id",
    patience=Patience(*order["patience"]), on_problem=lambda text: print("said:", text, flush=True),
)
for row in order["rows"]:
    tracker.heard(Row(**row))
print("heard:", time.monotonic() - began, flush=True)
while order["stay"]:
    time.sleep(0.01)
    if tracker._waiting_since is None and tracker._rows.empty():
        print("logged", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            break
tracker.close()
print("closed:", time.monotonic() - began, flush=True)
"""


def driver(directory, rows, mode="offline", patience=(3, 3, 30), stay=False):
    order = {
        "directory": str(directory),
        "rows": [json.loads(event.to_json()) for event in rows],
        "mode": mode,
        "patience": patience,
        "stay": stay,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    process.stdin = None
    return process


def output_of(process, timeout=60):
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


def kill_once_logged(process):
    """SIGKILL to the driver, when it has handed everything to W&B's process."""
    for line in process.stdout:
        if line == "logged\n":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def processes_below(pid):
    """The children of a process, their children, and so on."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.fixture
def server(tmp_path, real, monkeypatch):
    """A W&B server for this process and those that it starts."""
    import wandb

    with WandbServer() as served:
        for name, value in served.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # it reads its environment once
        yield served
        assert served.unknown == []
        wandb.teardown()


def wandb_sync(*paths):
    """What ``wandb sync`` prints."""
    command = [sys.executable, "-m", "wandb", "sync", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


class TestOnline:
    @pytest.fixture
    def trackings(self, tmp_path, server):
        return Tracking(tmp_path, "online")

    def test_runs_are_sent_with_group_tags_and_state(self, trackings, server, tmp_path):
        trackings.session([*finished_trial(0), row("proposed", 1), report(1, 4, "diverged")])
        assert trackings.problems == []
        first, second = server.runs["id-0000"], server.runs["id-0001"]
        assert first.steps == [4, 8, 12]
        assert [line["val_loss"] for line in first.history] == [1 / 4, 1 / 8, 1 / 12]
        assert (first.exits, first.summary["state"]) == ([0], "finished")
        assert (second.exits, second.summary["state"]) == ([1], "diverged")
        assert first.summary["value"] == 1 / 12
        assert first.fields["groupName"] == "group"
        assert first.fields["displayName"] == "group-0000"
        assert first.fields["jobType"] == "trial"
        assert first.fields["tags"] == ["a", "b"]
        assert first.config == CONFIG
        assert set(first.lines) == {"wandb-history.jsonl", "wandb-summary.json"}
        assert server.keys == {KEY}
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or KEY.encode() not in file.read_bytes(), file

    def test_a_resumed_search_goes_on_with_the_same_history(self, trackings, server):
        before = [row("proposed"), report(0, 4), report(0, 8)]
        trackings.session(before)
        run = server.runs["id-0000"]
        assert (run.steps, run.exits, run.summary["state"]) == ([4, 8], [255], "interrupted")
        trackings.session([row("restarted"), report(0, 8), report(0, 12, "finished")], past=before)
        assert (run.steps, run.overwritten) == ([4, 8, 12], [])
        assert (run.exits, run.summary["state"]) == ([255, 0], "finished")

    def test_the_server_says_what_it_has_after_a_kill(self, trackings, server, tmp_path):
        """The driver dies with its W&B process, before everything was sent or on disk."""
        before = [*finished_trial(0), row("proposed", 1), report(1, 4), report(1, 8)]
        kill_once_logged(driver(tmp_path, before, mode="online", stay=True))
        assert server.runs["id-0001"].exits == []
        trackings.session([row("restarted", 1), report(1, 12, "finished")], past=before)
        assert set(server.runs) == {"id-0000", "id-0001"}
        for run in server.runs.values():
            assert (run.steps, run.overwritten) == ([4, 8, 12], [])
            assert run.summary["state"] == "finished"

    def test_a_job_that_ray_stops_closes_its_runs(self, server, tmp_path, monkeypatch):
        """Ray signals the driver and every process below it, W&B's too if it is there."""
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
        rows = [*finished_trial(0), row("proposed", 1), report(1, 4)]
        process = driver(tmp_path, rows, mode="online", patience=(20, 20, 60), stay=True)
        while process.stdout.readline() != "logged\n":
            assert process.poll() is None
        for pid in [process.pid, *processes_below(process.pid)]:
            os.kill(pid, signal.SIGINT)
        said = output_of(process)
        assert said.startswith("closed:"), said
        run = server.runs["id-0001"]
        assert (run.steps, run.exits, run.summary["state"]) == ([4], [255], "interrupted")

    def test_what_was_closed_but_not_sent_is_sent_by_the_next_session(
        self, trackings, server, tmp_path
    ):
        """The driver dies while W&B's process sends; its file says that the run has ended."""
        rows = finished_trial(0)
        server.hanging.add("file_stream")
        process = driver(tmp_path, rows, mode="online", patience=(20, 60, 60))
        deadline = time.monotonic() + 30
        while not any(
            part.exit_code == 0 for part in read_segments(tmp_path / "wandb", "id").get(0, [])
        ):
            assert time.monotonic() < deadline, "the run was not closed"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        run = server.runs["id-0000"]
        assert (run.steps, run.exits) == ([], [])

        server.hanging.clear()
        trackings.session([], past=rows)
        assert (run.steps, run.overwritten, run.exits) == ([4, 8, 12], [], [0])
        assert run.summary["state"] == "finished"
        asked = len(server.asked)
        trackings.session([], past=rows)
        assert len(server.asked) == asked, "what was sent is not opened again"

    def test_what_was_logged_offline_is_sent_by_an_online_session(
        self, trackings, server, tmp_path
    ):
        rows = finished_trial(0)
        Tracking(tmp_path, "offline").session(rows)
        assert server.runs == {}
        trackings.session([], past=rows)
        run = server.runs["id-0000"]
        assert (run.steps, run.overwritten, run.exits) == ([4, 8, 12], [], [0])
        assert trackings.problems == []
        assert "No runs to sync" in wandb_sync(*tmp_path.glob("wandb/offline-run-*"))

    @pytest.mark.parametrize(
        "fault",
        [401, *(pytest.param(f, marks=pytest.mark.slow) for f in ("refused", 500, "hangs"))],
    )
    def test_a_server_that_does_not_answer_is_said_once(self, fault, server, tmp_path, monkeypatch):
        """And is waited for as long as was said, the end of the process included."""
        if fault == "refused":
            monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
        elif fault == "hangs":
            server.hanging.add("graphql")
        else:
            server.statuses["graphql"] = fault
        began = time.monotonic()
        rows = [e for trial in range(2) for e in finished_trial(trial)]
        output = output_of(driver(tmp_path, rows, mode="online", patience=(2, 2, 20)))
        said = [line for line in output.splitlines() if line.startswith("said: ")]
        (problem,) = said
        assert problem.startswith("said: Weights & Biases failed the run of trial 0: Failed to get")
        assert problem.endswith(f"To send what it misses: python -m tuning sync {tmp_path}")
        heard = float(output.split("heard: ")[1].split()[0])
        assert heard < 1
        assert time.monotonic() - began < 25
        assert server.runs == {}

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (403, "403 Forbidden"),
            pytest.param("hangs", "Timed out finishing run.", marks=pytest.mark.slow),
        ],
    )
    def test_what_a_server_no_longer_takes_is_sent_later(self, fault, words, trackings, server):
        """History is refused in the middle; afterwards it is sent once and in order."""
        before = [row("proposed"), report(0, 4), report(0, 8)]
        after = [row("restarted"), report(0, 8), report(0, 12, "finished")]
        trackings.session(before)
        if fault == "hangs":
            server.hanging.add("file_stream")
        else:
            server.statuses["file_stream"] = fault
        trackings.session(after, past=before, patience=Patience(20, 2, 30))
        (problem,) = trackings.problems
        assert problem.startswith("Weights & Biases failed the run of trial 0: ")
        assert words in problem
        run = server.runs["id-0000"]
        assert (run.steps, run.exits) == ([4, 8], [255])

        server.hanging.clear()
        server.statuses.clear()
        trackings.session([], past=before + after, everything=True)
        assert (run.steps, run.overwritten, run.exits) == ([4, 8, 12], [], [255, 0])
        assert run.summary["state"] == "finished"
        assert len(trackings.problems) == 1

    def test_a_slow_server_gets_everything_and_nobody_waits_for_it(self, server, tmp_path):
        server.delays = {"graphql": 0.3, "file_stream": 0.3}
        tracker = WandbTracker(tmp_path, "group", mode="online", run_id="id")
        began = time.monotonic()
        for event in finished_trial(0):
            tracker.heard(event)
        assert time.monotonic() - began < 0.3
        tracker.close()
        assert (server.runs["id-0000"].steps, server.runs["id-0000"].exits) == ([4, 8, 12], [0])

    @pytest.mark.slow
    def test_the_end_of_the_process_is_not_held_up_for_ever(self, server, tmp_path):
        """By nothing but what W&B may take to end its runs: its own process waits for them."""
        server.hanging.add("file_stream")
        began = time.monotonic()
        rows = [e for trial in range(3) for e in finished_trial(trial)]
        output = output_of(driver(tmp_path, rows, mode="online", patience=(5, 6, 1)))
        assert time.monotonic() - began < 20
        (problem,) = [line for line in output.splitlines() if line.startswith("said: ")]
        assert problem.startswith("said: Weights & Biases did not finish in time. To send what")

    @pytest.mark.slow  # W&B looks every 15 s whether it is to stop
    def test_stop_in_its_page_does_not_interrupt_the_search(self, trackings, server, tmp_path):
        server.stopped.add("id-0000")
        tracker = WandbTracker(
            tmp_path, "group", mode="online", run_id="id", on_problem=trackings.problems.append
        )
        tracker.heard(row("proposed"))
        tracker.heard(report(0, 4))
        deadline = time.monotonic() + 40
        while not trackings.problems and time.monotonic() < deadline:
            time.sleep(0.1)
        tracker.close()
        (problem,) = trackings.problems
        assert problem.startswith("Weights & Biases asked to stop a run; not done")


class TestSending:
    def test_wandb_sync_sends_a_killed_and_resumed_search_whole(self, server, tmp_path):
        """Offline; the driver is killed, and its file is torn in the middle of a record."""
        before = [*finished_trial(0), row("proposed", 1), report(1, 4), report(1, 8)]
        kill_once_logged(driver(tmp_path, before, stay=True))
        empty = tmp_path / "wandb/offline-run-1-id-0001"
        empty.mkdir()
        (empty / "run-id-0001.wandb").write_bytes(level_db([]))
        (file,) = tmp_path.glob("wandb/offline-run-2*-id-0001/*.wandb")
        file.write_bytes(file.read_bytes() + bytes(4) + (500).to_bytes(2, "little") + b"\1torn")
        trackings = Tracking(tmp_path, "offline")
        trackings.session([row("restarted", 1), report(1, 12, "finished")], past=before)
        assert trackings.problems == []
        assert server.runs == {}
        for trial in range(2):
            parts = logged_offline(tmp_path, trial)
            assert [step for steps, _, _ in parts for step in steps] == [4, 8, 12]

        paths = sorted(tmp_path.glob("wandb/offline-run-*"))
        wandb_sync(*paths)
        assert set(server.runs) == {"id-0000", "id-0001"}
        for run in server.runs.values():
            assert (run.steps, run.overwritten) == ([4, 8, 12], [])
            assert (run.exits[-1], run.summary["state"]) == (0, "finished")
        assert "No runs to sync" in wandb_sync(*paths)

    @pytest.fixture
    def experiment(self, tmp_path, tiny_data, server):
        """Logged offline: a trial that ended, and one that did not."""
        sweep = parse_sweep(
            {"method": "random", "parameters": {"clip": {"values": [25, 50]}}, "name": "s"}
        )
        experiment = Experiment.create(
            tmp_path / "runs", "s", sweep, tiny_data, seed=0, trials=2, settings={}
        )
        rows = [*finished_trial(0), row("proposed", 1), report(1, 4)]
        journal = Journal(experiment.journal)
        for event in rows:
            journal.append(event)
        journal.close()
        Tracking(experiment.path, "offline").session(rows, run_id=experiment.manifest["id"])
        return experiment

    def test_send_gives_the_server_what_it_lacks_once(self, experiment, server):
        identity = experiment.manifest["id"]
        for _ in range(2):
            assert send(experiment) == []
            first, second = (server.runs[f"{identity}-{trial:04d}"] for trial in range(2))
            assert (first.steps, first.summary["state"], first.exits[-1]) == (
                [4, 8, 12],
                "finished",
                0,
            )
            assert (second.steps, second.summary["state"], second.exits[-1]) == (
                [4],
                "interrupted",
                255,
            )
            assert first.overwritten == second.overwritten == []
        assert first.fields["groupName"] == "s"
        said = wandb_sync(*experiment.path.glob("wandb/offline-run-*"))
        assert "No runs to sync" in said, "or W&B would have every row twice"

    def test_send_needs_a_key_and_an_experiment_at_rest(self, experiment, server, monkeypatch):
        with experiment.lock(), pytest.raises(ExperimentError, match="is being run by"):
            send(experiment)
        monkeypatch.delenv("WANDB_API_KEY")
        with pytest.raises(ConfigurationError, match="needs a key"):
            send(experiment)
        assert server.runs == {}

    def test_the_command_says_what_it_did_or_why_not(self, experiment, server, capsys):
        assert main(["sync", "s", "--storage", str(experiment.path.parent)]) == 0
        assert capsys.readouterr().out == "sent: s\n"
        server.statuses["graphql"] = 401
        assert main(["sync", str(experiment.path)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("Weights & Biases failed the run of trial 0: ")
        assert "401" in said.err


@pytest.mark.chaos
@pytest.mark.ray
def test_a_search_that_is_killed_twice_has_whole_histories(server, tmp_path):
    """The whole command, offline; then sent by W&B's command and, elsewhere, by ours."""
    mapping = sweep_mapping(write_corpus(tmp_path), iterations=60, hidden_size=32)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    storage = tmp_path / "runs"
    start = ("run", tmp_path / "sweep.yaml", "--name", "killed", "--trials", 3)
    more = ("--storage", storage, "--concurrency", 1, "--wandb", "offline")
    for arguments, reports in (((*start, *more), 7), (("resume", "killed", *more), 20)):
        process = command(*arguments)
        wait_for_reports(storage / "killed", reports, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = command("resume", "killed", *more)
    output = finish(process)
    assert process.returncode == 0, output

    experiment = Experiment.open("killed", storage)
    identity = experiment.manifest["id"]
    told: dict[str, list[int]] = {}
    for event in read_journal(experiment.journal).rows:
        if event.kind == "report":
            steps = told.setdefault(f"{identity}-{event.trial:04d}", [])
            steps += [event.iteration] if event.iteration not in steps else []
    assert len(told) == 3

    wandb_sync(*experiment.path.glob("wandb/offline-run-*"))
    assert {name: run.steps for name, run in server.runs.items()} == told
    server.runs.clear()
    assert send(experiment) == []
    assert {name: run.steps for name, run in server.runs.items()} == told
    assert all(run.exits == [0] and not run.overwritten for run in server.runs.values())
