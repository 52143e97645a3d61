"""A trial was told to copy another, and then the driver's machine is lost: real training, S3."""

import numpy as np

import tuning.storage.mirror
import tuning.storage.session
from analysis import Results
from tests.analysis.conftest import make_experiment
from tests.tuning.coordinator_support import GOAL
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.journal import Journal, read_journal
from tuning.scheduling import Decision, FifoScheduler
from tuning.scheduling.base import Clone
from tuning.searchers import make_searcher
from tuning.trials.trainable import DialogueTrainable
from tuning.trials.trial_files import TrialFiles

SWEEP = {
    "method": "grid",
    "parameters": {
        "learning_rate": {"values": [0.01, 0.001]},
        "hidden_size": {"value": 16},
        "encoder_layers": {"value": 1},
        "decoder_layers": {"value": 1},
        "batch_size": {"value": 8},
        "iterations": {"value": 24},
        "report_every": {"value": 4},
        "device": {"value": "cpu"},
        "threads": {"value": 1},
    },
}


class OnceCloning(FifoScheduler):
    """Tells trial 1 to go on from trial 0 at its second report."""

    def report(self, trial, report_number, value, *, latest=None):
        return Decision.CLONE if (trial, report_number) == (1, 2) else Decision.CONTINUE

    def clone_of(self, trial):
        return Clone(0, self.configuration | {"learning_rate": 0.012})

    def started(self, trial, config):
        self.configuration = dict(config)


class Machine:
    """A driver that sends what it has written when it is told to, and its workers."""

    def __init__(self, experiment, data):
        self.experiment, self.data = experiment, data
        self.lock = experiment.lock()
        names = ("data.safetensors", "experiment.json")
        self.mirror = tuning.storage.mirror.Mirror(experiment.remote, experiment.path, names)
        rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
        self.coordinator = Coordinator(
            make_searcher(experiment.sweep(), 0),
            OnceCloning(),
            Journal(experiment.journal, next_seq=len(rows)),
            [GOAL],
            trials=2,
        )
        self.coordinator.keep_weights = self._keep_weights
        self.coordinator.keep_safe = self.mirror.flush
        self.coordinator.replay(rows)

    def _keep_weights(self, source, trial, iteration):
        place = self.experiment.place
        TrialFiles(place, trial).keep_clone(TrialFiles(place, source), iteration)

    def begin(self):
        """The next attempt, in a worker; gives a function that takes its next report."""
        assignment = self.coordinator.next_assignment()
        machine, content = self, np.frombuffer(self.data.as_bytes(), dtype=np.uint8)

        class Worker(DialogueTrainable):
            def setup(self, config):
                where, session = str(machine.experiment.place), machine.mirror.session
                arguments = (content, where, [GOAL], frozenset({2}))
                super().setup(config, *arguments, clones=True, session=session)

        worker = Worker(dict(vars(assignment)))

        def step():
            result = worker.step()
            report = result["report"]
            decision = self.coordinator.report(
                assignment.trial,
                report.iteration,
                report.metrics,
                state=report.state,
                note=result.get("note"),
            )
            worker.saver.wait()
            return report.iteration, decision

        return step

    def is_lost(self, monkeypatch):
        """Nothing is sent any more; its disk is gone with it."""
        monkeypatch.setattr(self.mirror, "_push", lambda: None)
        self.mirror._end_thread()
        self.coordinator.journal.close()
        self.lock.close()


def test_the_clone_goes_on_as_the_clone(remote, tiny_data, monkeypatch, tmp_path):
    monkeypatch.setattr(tuning.storage.mirror, "INTERVAL_SECONDS", 1e9)
    monkeypatch.setattr(tuning.storage.session, "DEAD_SECONDS", 0.5)
    monkeypatch.setattr(tuning.storage.session, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(tuning.storage.session, "_SETTLE_SECONDS", 0.05)
    lost = Machine(make_experiment(remote, tiny_data, SWEEP, trials=2), tiny_data)
    source, told = lost.begin(), lost.begin()
    for _ in range(3):
        source()
    assert told() == (4, Decision.CONTINUE)
    lost.mirror.flush()  # as it does every two seconds
    assert told() == (8, Decision.CLONE)
    clone = lost.begin()
    assert [clone() for _ in range(3)] == [(i, Decision.CONTINUE) for i in (8, 12, 16)]
    lost.is_lost(monkeypatch)

    monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "another-machine"))
    new = Machine(Experiment.open("small", str(remote)), tiny_data)
    new.begin()
    record = new.coordinator.trials[1]
    assert record.cloned_at == 8 or record.copy is not None
    clone = new.begin()
    assert record.config["learning_rate"] == 0.012
    heard = [clone()]
    while heard[-1][0] < 24:
        heard.append(clone())
    assert [iteration for iteration, _ in heard] == [12, 16, 20, 24]
    new.mirror.close()
    new.lock.close()
    results = Results.open("small", str(remote))
    trial = results.history[results.history["trial"] == 1]
    assert trial["iteration"].tolist() == [4, 8, 12, 16, 20, 24]
    assert results.problems == []
