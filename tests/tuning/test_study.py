"""The study on file: what Optuna and optuna-dashboard read of it, live, killed and resumed."""

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from pathlib import Path

import optuna
import pytest

from tests.tuning.ray_support import ROOT
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.journal import Journal, Row, read_journal
from tuning.objective import Objective
from tuning.scheduling import AshaScheduler, Decision
from tuning.searchers import RandomSearcher
from tuning.study import STUDY, StudyListener, bring_up_to_date
from tuning.study import __main__ as command
from tuning.study import listener as study_module
from tuning.study.file import StudyFile
from tuning.study.trials import StudyTrials, trials_of
from tuning.sweeps.sweep_file import parse_sweep

State = optuna.trial.TrialState
SWEEP = {
    "method": "random",
    "parameters": {
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "clip": {"min": 0, "max": 100},
        "optimizer": {"values": ["adam", "sgd"]},
        "teacher_forcing_ratio": {"min": 0.0, "max": 1.0},
        "corpus": {"value": "tiny"},
    },
}
CONFIG = {
    "learning_rate": 0.01,
    "clip": 50,
    "optimizer": "sgd",
    "teacher_forcing_ratio": 0.5,
    "corpus": "tiny",
}
PARAMS = {name: value for name, value in CONFIG.items() if name != "corpus"}
LAST = 9


@pytest.fixture
def experiment(tmp_path, tiny_data):
    sweep = parse_sweep(SWEEP, "small.yaml")
    return Experiment.create(
        tmp_path, "small", sweep, tiny_data, seed=0, trials=20, settings={"max_failures": 2}
    )


def read(experiment):
    """The study as Optuna reads it from the file."""
    backend = optuna.storages.journal.JournalFileBackend(str(experiment.path / STUDY))
    storage = optuna.storages.JournalStorage(backend)
    assert [study.study_name for study in storage.get_all_studies()] == [experiment.name]
    return optuna.load_study(study_name=experiment.name, storage=storage)


def coordinator_of(experiment, trials=20):
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    coordinator = Coordinator(
        RandomSearcher(experiment.sweep().space, 0),
        AshaScheduler(rungs=(1, 3), eta=3, goal="minimize"),
        Journal(experiment.journal, next_seq=len(rows)),
        experiment.objectives,
        trials=trials,
    )
    coordinator.replay(rows)
    return coordinator


class Killed(Exception):
    """Stands for SIGKILL: nothing is cleaned up."""


def drive(coordinator, iterations, kill_after=None):
    """Two trials at a time, of every kind of end; dies after so many reports."""
    coordinator.session("session", "trials known")
    live, reports = [], 0
    while True:
        while len(live) < 2 and (assignment := coordinator.next_assignment()) is not None:
            live.append(assignment)
        if not live:
            return
        assignment = live.pop(0)
        trial = assignment.trial
        iteration = iterations[trial] = iterations.get(trial, 0) + 1
        if reports == kill_after:
            raise Killed
        reports += 1
        if trial % 7 == 3 and iteration == 2 and assignment.attempt < 3:
            coordinator.failed(trial, "ValueError: on purpose")
            continue
        decision = coordinator.report(
            trial,
            iteration,
            {"val_loss": assignment.config["learning_rate"] + 1 / iteration + trial},
            state="diverged" if trial % 5 == 4 else "finished" if iteration >= LAST else "running",
            worker="host:1",
        )
        if decision is Decision.CONTINUE:
            live.append(assignment)


def listen(experiment, coordinator, problems=None):
    listener = StudyListener(experiment, (problems if problems is not None else []).append)
    coordinator.listeners.append(listener)
    return listener


def abandon(listener):
    """Lets a listener die as SIGKILL would: what it has not written by now stays unwritten."""
    listener.heard = lambda row: None
    listener._rows.put(Row(kind="die"))
    listener._thread.join(10)


@pytest.fixture
def mortal(monkeypatch):
    """Listeners whose thread dies of a row of the kind ``die``."""
    take = study_module._Writer.take

    def dying(self, rows):
        alive = [row for row in rows if row.kind != "die"]
        take(self, alive)
        if len(alive) < len(rows):
            raise Killed

    monkeypatch.setattr(study_module._Writer, "take", dying)


EXPECTED = {
    "finished": State.COMPLETE,
    "stopped": State.PRUNED,
    "diverged": State.FAIL,
    "failed": State.FAIL,
}


def check(experiment, coordinator):
    """The file says of every trial what the coordinator knows."""
    trials = read(experiment).trials
    assert [trial.number for trial in trials] == list(coordinator.trials)
    for trial, record in zip(trials, coordinator.trials.values(), strict=True):
        assert trial.state is EXPECTED.get(record.state, State.WAITING)
        value = record.value if trial.state in (State.COMPLETE, State.PRUNED) else None
        assert trial.value == value
        assert trial.params == {name: record.config[name] for name in PARAMS}
        assert list(trial.intermediate_values) == sorted(record.decisions)
        state = "interrupted" if record.state == "running" else record.state
        attributes = {"state": state, "iteration": record.iteration}
        assert attributes.items() <= trial.user_attrs.items()
    return trials


def without_times(experiment):
    names = ("number", "state", "values", "params", "distributions", "intermediate_values")
    trials = read(experiment).trials
    return [[getattr(trial, name) for name in (*names, "user_attrs")] for trial in trials]


class TestSearch:
    def test_every_trial_is_there_in_the_end(self, experiment):
        coordinator = coordinator_of(experiment)
        problems = []
        listener = listen(experiment, coordinator, problems)
        drive(coordinator, {})
        listener.close()
        trials = check(experiment, coordinator)
        assert {trial.state for trial in trials} == {State.COMPLETE, State.PRUNED, State.FAIL}
        assert trials[0].user_attrs["worker"] == "host:1"
        assert trials[0].distributions == {
            "learning_rate": optuna.distributions.FloatDistribution(1e-5, 0.1, log=True),
            "clip": optuna.distributions.IntDistribution(0, 100),
            "optimizer": optuna.distributions.CategoricalDistribution(("adam", "sgd")),
            "teacher_forcing_ratio": optuna.distributions.FloatDistribution(0.0, 1.0),
        }
        assert read(experiment).metric_names == ["val_loss"]
        assert problems == []

    def test_times_are_those_of_the_journal(self, experiment):
        coordinator = coordinator_of(experiment, trials=4)
        listener = listen(experiment, coordinator)
        drive(coordinator, {})
        listener.close()
        rows = read_journal(experiment.journal).rows
        for trial in read(experiment).trials:
            since = rows[0].time - rows[0].elapsed  # the clock of its duration nobody sets
            own = [since + row.elapsed for row in rows if row.trial == trial.number]
            assert trial.datetime_start.timestamp() == pytest.approx(own[0], abs=1e-3)
            assert trial.datetime_complete.timestamp() == pytest.approx(own[-1], abs=1e-3)

    def test_it_is_written_while_the_search_runs(self, experiment):
        coordinator = coordinator_of(experiment)
        listener = listen(experiment, coordinator)
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 3.0}, worker="host:1")
        until = time.monotonic() + 20
        while time.monotonic() < until and not (
            (experiment.path / STUDY).exists()
            and (trials := read(experiment).trials)
            and trials[0].intermediate_values
        ):
            time.sleep(0.05)
        trial = read(experiment).trials[0]
        assert (trial.state, trial.intermediate_values) == (State.RUNNING, {1: 3.0})
        assert trial.user_attrs == {"state": "running", "iteration": 1, "worker": "host:1"}
        listener.close()
        trial = read(experiment).trials[0]
        assert (trial.state, trial.user_attrs["state"]) == (State.WAITING, "interrupted")

    def test_nothing_is_logged(self, experiment, capfd):
        coordinator = coordinator_of(experiment, trials=3)
        listener = listen(experiment, coordinator)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drive(coordinator, {})
            listener.close()
        assert capfd.readouterr() == ("", "")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO

    def test_hearing_never_waits(self, experiment, monkeypatch):
        blocked = threading.Event()
        monkeypatch.setattr(study_module, "_CLOSE_SECONDS", 0.1)
        monkeypatch.setattr(study_module._Writer, "take", lambda self, rows: blocked.wait(20))
        problems = []
        listener = StudyListener(experiment, problems.append)
        started = time.monotonic()
        for seq in range(1000):
            listener.heard(Row(kind="proposed", seq=seq, trial=seq, config=CONFIG))
        listener.close()
        assert time.monotonic() - started < 10
        assert problems == ["study.log was not finished in time; the next resume brings it up."]
        blocked.set()
        listener._thread.join(20)


class TestDeath:
    def test_killed_again_and_again(self, experiment, mortal):
        """And the file is brought up to date by appending: whoever reads it may go on reading."""
        iterations, deaths = {}, 0
        before = b""
        while True:
            coordinator = coordinator_of(experiment)
            listener = listen(experiment, coordinator)
            try:
                drive(coordinator, iterations, kill_after=random.Random(deaths).randrange(2, 9))
                break
            except Killed:
                deaths += 1
                abandon(listener)
                coordinator.journal.close()
            now = (experiment.path / STUDY).read_bytes()
            assert now.startswith(before)
            before = now
        listener.close()
        assert deaths > 2
        assert (experiment.path / STUDY).read_bytes().startswith(before)
        check(experiment, coordinator)

    def test_killed_and_not_resumed(self, experiment, mortal):
        coordinator = coordinator_of(experiment)
        listener = listen(experiment, coordinator)
        with pytest.raises(Killed):
            drive(coordinator, {}, kill_after=12)
        abandon(listener)
        assert bring_up_to_date(experiment) == experiment.path / STUDY
        trials = check(experiment, coordinator)
        assert State.WAITING in {trial.state for trial in trials}
        assert State.RUNNING not in {trial.state for trial in trials}

    def test_an_experiment_without_a_study_gets_one(self, experiment):
        coordinator = coordinator_of(experiment)
        drive(coordinator, {})
        assert not (experiment.path / STUDY).exists()
        bring_up_to_date(experiment)
        check(experiment, coordinator)
        written = (experiment.path / STUDY).read_bytes()
        bring_up_to_date(experiment)
        assert (experiment.path / STUDY).read_bytes() == written

    def test_rebuilt_is_as_if_written_while_it_ran(self, experiment):
        coordinator = coordinator_of(experiment)
        listener = listen(experiment, coordinator)
        drive(coordinator, {})
        listener.close()
        live = without_times(experiment)
        (experiment.path / STUDY).unlink()
        bring_up_to_date(experiment)
        assert without_times(experiment) == live

    def test_a_torn_last_line_and_a_lock_left_behind(self, experiment, mortal):
        coordinator = coordinator_of(experiment)
        listener = listen(experiment, coordinator)
        with pytest.raises(Killed):
            drive(coordinator, {}, kill_after=12)
        abandon(listener)
        file = experiment.path / STUDY
        whole = file.read_bytes()
        file.write_bytes(whole + b'{"op_code":4,"wor')
        lock = Path(f"{file}.lock")
        lock.symlink_to(file)
        bring_up_to_date(experiment)
        assert file.read_bytes().startswith(whole)
        check(experiment, coordinator)
        assert not lock.is_symlink()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: "",
            lambda text: "no json\n" + text,
            lambda text: text.replace('"small"', '"other"'),
            lambda text: text.replace('"directions":[1]', '"directions":[2]'),
            lambda text: text.replace('"val_loss"', '"other"'),
            lambda text: text.replace('\\"high\\": 100', '\\"high\\": 99'),
            lambda text: text.replace('"state":1', '"state":3', 1),
            lambda text: text.replace('"op_code":4', '"op_code":99', 1),
            lambda text: text + text.splitlines()[2] + "\n",
            lambda text: text + json.dumps({"op_code": 1, "study_id": 0, "worker_id": "x"}) + "\n",
        ],
    )
    def test_what_does_not_match_is_written_anew(self, experiment, damage):
        coordinator = coordinator_of(experiment)
        drive(coordinator, {})
        file = bring_up_to_date(experiment)
        expected, text = without_times(experiment), file.read_text()
        assert damage(text) != text
        file.write_text(damage(text))
        bring_up_to_date(experiment)
        check(experiment, coordinator)
        assert without_times(experiment) == expected

    def test_what_others_add_is_left_alone(self, experiment):
        coordinator = coordinator_of(experiment)
        drive(coordinator, {})
        bring_up_to_date(experiment)
        study = read(experiment)
        study.set_user_attr("seen", True)
        study._storage.set_study_system_attr(study._study_id, "note", "as the dashboard does")
        written = (experiment.path / STUDY).read_bytes()
        bring_up_to_date(experiment)
        assert (experiment.path / STUDY).read_bytes() == written
        assert read(experiment).user_attrs == {"seen": True}


class TestFailure:
    def test_of_the_file_is_said_once_and_the_search_goes_on(self, experiment):
        (experiment.path / STUDY).mkdir()
        problems = []
        coordinator = coordinator_of(experiment)
        listener = listen(experiment, coordinator, problems)
        drive(coordinator, {})
        listener.close()
        listener.close()
        assert problems == [
            f"study.log is no longer written: {experiment.path / STUDY}: cannot be written: it is "
            "not a file; name a file."
        ]
        assert coordinator.done
        assert listener._rows.qsize() < 5  # nothing piles up that nobody will read

    def test_in_the_middle(self, experiment, monkeypatch):
        def fail(self):
            raise OSError(28, "No space left on device")

        coordinator = coordinator_of(experiment)
        problems = []
        listener = listen(experiment, coordinator, problems)
        monkeypatch.setattr(StudyFile, "flush", fail)
        drive(coordinator, {})
        listener.close()
        assert len(problems) == 1
        assert problems[0].startswith("study.log is no longer written: ")
        assert coordinator.done
        monkeypatch.undo()
        bring_up_to_date(experiment)
        check(experiment, coordinator)

    def test_of_the_journal_is_told_by_the_command(self, experiment, capsys):
        drive(coordinator_of(experiment), {})
        segment = next(experiment.journal.glob("*.jsonl"))
        segment.write_text(segment.read_text().replace('"kind"', '"kin', 1))
        arguments = ["small", "--storage", str(experiment.path.parent)]
        assert command.run_main(command.main, arguments) == 2
        assert "000001.jsonl:2: damaged row" in capsys.readouterr().err


def row(kind, trial=0, **values):
    values = {"config": CONFIG, "state": "running", "attempt": 1} | values
    return Row(kind=kind, trial=trial, **values)


def report(iteration, value, state="running", **more):
    metrics = {"val_loss": value}
    return row("report", iteration=iteration, metrics=metrics, state=state, **more)


GOALS = [Objective("val_loss", "minimize")]


def frozen(*rows, goals=GOALS):
    trials = trials_of(rows, parse_sweep(SWEEP, "small.yaml").space, goals)
    return [trials.frozen(trial) for trial in trials]


class TestRows:
    """One trial, row by row."""

    def test_proposed(self):
        (trial,) = frozen(row("proposed"))
        assert (trial.state, trial.params, trial.values) == (State.RUNNING, PARAMS, None)

    def test_failed_and_to_be_restarted(self):
        rows = [row("proposed"), report(3, 2.0, values=[2.0]), row("failed", values=[2.0])]
        (trial,) = frozen(*rows)
        assert (trial.state, trial.user_attrs["state"]) == (State.WAITING, "waiting")
        (trial,) = frozen(*rows, row("restarted", attempt=2))
        assert (trial.state, trial.intermediate_values) == (State.RUNNING, {3: 2.0})
        (trial,) = frozen(*rows, row("failed", state="failed", values=[2.0]))
        assert (trial.state, trial.values) == (State.FAIL, None)

    def test_the_next_session_begins_with_nothing_running(self):
        (trial,) = frozen(row("proposed"), Row(kind="session"))
        assert (trial.state, trial.user_attrs["state"]) == (State.WAITING, "interrupted")
        (trial,) = frozen(row("proposed"), Row(kind="session"), row("restarted", attempt=2))
        assert trial.state is State.RUNNING

    def test_figures_that_are_none(self):
        rows = [row("proposed"), report(1, float("nan"), values=[None])]
        (trial,) = frozen(*rows, report(2, None, "finished", values=[None]))
        assert (trial.state, trial.values, trial.intermediate_values) == (State.FAIL, None, {})
        (trial,) = frozen(*rows, report(2, None, "stopped", values=[None]))
        assert (trial.state, trial.values) == (State.PRUNED, None)

    def test_stopped_while_it_waited(self):
        """As the target of the search was reached."""
        rows = [row("proposed"), report(3, 2.0, values=[2.0]), row("failed", values=[2.0])]
        (trial,) = frozen(*rows, row("stopped", state="stopped", values=[2.0]))
        assert (trial.state, trial.values) == (State.PRUNED, [2.0])

    def test_changed_while_it_ran(self):
        """By population-based training: the study's parameters stay those of the proposal."""
        changed = CONFIG | {"learning_rate": 0.02}
        (trial,) = frozen(row("proposed"), row("restarted", attempt=2, config=changed))
        assert trial.params == PARAMS
        assert trial.user_attrs["changed"] == {"learning_rate": 0.02}

    def test_several_objectives(self):
        goals = [*GOALS, Objective("val_token_accuracy", "maximize")]
        (trial,) = frozen(
            row("proposed"), report(1, 2.0, "finished", values=[2.0, 0.5]), goals=goals
        )
        assert (trial.state, trial.values) == (State.COMPLETE, [2.0, 0.5])
        assert trial.intermediate_values == {}  # Optuna has none with several objectives

    def test_several_objectives_on_file(self, tmp_path):
        goals = [*GOALS, Objective("val_token_accuracy", "maximize")]
        rows = [row("proposed"), report(1, 2.0, "finished", values=[2.0, 0.5])]
        trials = trials_of(rows, parse_sweep(SWEEP, "small.yaml").space, goals)
        assert StudyFile(tmp_path / STUDY, "two", trials).open() is False
        assert StudyFile(tmp_path / STUDY, "two", trials).open() is True
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / STUDY))
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.load_study(study_name="two", storage=storage)
        assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
        assert study.metric_names == ["val_loss", "val_token_accuracy"]
        assert [trial.values for trial in study.best_trials] == [[2.0, 0.5]]

    def test_ended_trials_take_no_memory(self):
        trials = StudyTrials(parse_sweep(SWEEP, "small.yaml").space, GOALS)
        for event in (row("proposed"), report(1, 2.0, "finished", values=[2.0])):
            trials.take(event)
        trials.forget_ended()
        assert trials.trials == {}
        assert trials.take(report(1, 2.0, "finished", values=[2.0])) == []  # its worker was late


class TestRetry:
    def test_a_failed_trial_that_runs_again(self, experiment):
        coordinator = coordinator_of(experiment, trials=1)
        coordinator.max_failures = 1
        listener = listen(experiment, coordinator)
        coordinator.next_assignment()
        coordinator.failed(0, "ValueError: on purpose")
        listener.close()
        assert read(experiment).trials[0].state is State.FAIL
        coordinator.listeners.clear()
        listener = listen(experiment, coordinator)
        coordinator.retry([0])
        coordinator.next_assignment()
        coordinator.report(0, 1, {"val_loss": 1.0}, state="finished")
        listener.close()
        (trial,) = read(experiment).trials
        assert (trial.state, trial.values) == (State.COMPLETE, [1.0])


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture
def dashboard(experiment):
    """Starts optuna-dashboard on a file, as ``make dashboard`` does; gives its address."""
    started = []

    def start(file):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = Path(sys.executable).with_name("optuna-dashboard")
        command = [str(program), str(file), "--host", "127.0.0.1", "--port", str(port)]
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 60
        while True:
            try:
                get(f"{address}/api/studies")
                return address
            except OSError:
                assert started[-1].poll() is None, "the dashboard ended"
                assert time.monotonic() < until, "the dashboard did not answer in a minute"
                time.sleep(0.1)

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_optuna_dashboard_shows_a_search_live(experiment, dashboard):
    """The real dashboard, by its own HTTP API: what it says follows the search."""
    coordinator = coordinator_of(experiment)
    listener = listen(experiment, coordinator)
    coordinator.next_assignment()
    coordinator.report(0, 1, {"val_loss": 3.0}, worker="host:1")
    until = time.monotonic() + 20
    while not (experiment.path / STUDY).exists() and time.monotonic() < until:
        time.sleep(0.05)
    address = dashboard(experiment.path / STUDY)
    (summary,) = get(f"{address}/api/studies")["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("small", ["minimize"])
    detail = f"{address}/api/studies/{summary['study_id']}"

    def wait_for(fulfilled):
        until = time.monotonic() + 30  # it looks into the file every few seconds
        while not fulfilled(found := get(detail)):
            assert time.monotonic() < until, found["trials"]
            time.sleep(0.2)
        return found

    found = wait_for(lambda found: any(t["intermediate_values"] for t in found["trials"]))
    (trial,) = found["trials"]
    assert trial["state"] == "Running"
    assert trial["intermediate_values"] == [{"step": 1, "value": 3.0}]

    coordinator.report(0, 2, {"val_loss": 2.0}, state="finished", worker="host:1")
    drive(coordinator, {})
    listener.close()
    found = wait_for(lambda found: len(found["trials"]) == 20)
    states = {State.COMPLETE: "Complete", State.PRUNED: "Pruned", State.FAIL: "Fail"}
    expected = check(experiment, coordinator)
    assert [t["state"] for t in found["trials"]] == [states[trial.state] for trial in expected]
    assert [t.get("values") for t in found["trials"]] == [trial.values for trial in expected]
    assert [p["name"] for p in found["intersection_search_space"]] == sorted(PARAMS)
    assert found["best_trials"][0]["number"] == read(experiment).best_trial.number
    importances = get(f"{detail}/param_importances")["param_importances"]
    assert {row["name"] for row in importances[0]} == set(PARAMS)


def test_the_command_prints_the_file_of_the_newest_experiment(experiment, capsys):
    drive(coordinator_of(experiment), {})
    assert command.main(["--storage", str(experiment.path.parent)]) == 0
    assert capsys.readouterr() == (f"{experiment.path / STUDY}\n", "")
    assert len(read(experiment).trials) == 20


def test_the_command_leaves_a_running_search_alone(experiment, capsys):
    drive(coordinator_of(experiment), {})
    with experiment.lock():
        assert command.main(["small", "--storage", str(experiment.path.parent)]) == 0
    assert capsys.readouterr() == (f"{experiment.path / STUDY}\n", "")
    assert not (experiment.path / STUDY).exists()
