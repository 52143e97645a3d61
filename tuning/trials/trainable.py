"""The Ray Tune trainable: one trial after another in one reused process.

Ray calls `step` once for each report. The trial's files are written while training goes on, of
snapshots (see ``tuning.trials.saving``):

- The best weights are taken before their report is returned. A report after which the trial may
  have ended (its last one, or one at which the scheduler may stop it) is returned only when they
  are on disk, so that what the journal says of an ended trial is there.
- A checkpoint is taken when the next step begins, for only then does the trial go on.
- A restarted trial goes to its newest whole checkpoint and first returns again the report made
  there: the driver knows it or does not, and either way nothing is lost and nothing counted twice
  (see ``tuning.coordinator``). Reports before that one which the driver has lost, with its machine,
  come first: a checkpoint holds the last hundred. What is best so far it reads from the best
  weights themselves: the journal may know of a better report, whose weights had not been written.
- Where the scheduler may let trials copy each other, a checkpoint is on disk before the report is
  returned; a trial that was told to copy another begins anew from that one's (`cloning`).
- What cannot be written is raised at the trial's next report, or before it ends.
- On a node that is taken back (`tuning.preemption`), a trial that would go on after a report writes
  a checkpoint of it and leaves, to go on elsewhere; one that would begin leaves at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ray import tune

from model.checkpoint import snapshot
from model.config import Config, TrainingConfig
from model.errors import CheckpointError, PreemptedError, StorageError
from model.prepared_data import PreparedData
from model.training import Report, Trainer, resolve_device
from tuning.coordinator import Objective
from tuning.preemption.marks import Mark, own_mark
from tuning.storage.place import place
from tuning.trials.cloning import adopt
from tuning.trials.gpu_memory import give_back, keep_to_share, memory_error, out_of_memory
from tuning.trials.joining import check_versions, take_patience, wait_for
from tuning.trials.observation import announce, device_name, peaks, reset_peaks, worker_type
from tuning.trials.saving import TrialSaver
from tuning.trials.trial_files import TrialFiles


class DialogueTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains the configuration of an `Assignment` (its fields, as a mapping)."""

    def setup(
        self,
        config: dict[str, Any],
        data: np.ndarray | None = None,
        experiment: str = "",
        objectives: Sequence[Objective] = (),
        stops_at: frozenset[int] | None = None,
        *,
        clones: bool = False,
        versions: Mapping[str, str] | None = None,
        patience: float | None = None,
        session: int = 0,
    ) -> None:
        """Called once for each process; `reset_config` takes the trials after the first.

        Args:
            config: The assignment, as a mapping.
            data: The bytes of the prepared data set, read in place from the object store.
            experiment: The experiment's directory.
            objectives: The best weights are chosen by the first.
            stops_at: As in `Scheduler`.
            clones: Whether at these reports trials may be told to copy each other.
            versions: The driver's, with which ours must agree.
            patience: For how many seconds the storage may be away.
            session: As in `TrialFiles`.
        """
        take_patience(patience)
        assert data is not None and objectives
        self.objective = objectives[0]
        self.measure_latency = any(each.name == "latency_ms" for each in objectives)
        self.stops_at, self.clones, self.versions = stops_at, clones, versions
        self.data = PreparedData.from_buffer(data, "object store")
        self.experiment, self.session = place(experiment), session
        self.saver: TrialSaver | None = None
        self.failure: Exception | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial. Nothing here can fail: work begins in `step`, which may."""
        self._settle()
        self.assignment = new_config
        self.trainer: Trainer | None = None
        self.saver = None  # it may hold a snapshot
        give_back()
        return True

    def _settle(self) -> None:
        """Waits for what is being written; what goes wrong is kept for the next `step`."""
        try:
            if self.saver is not None:
                self.saver.wait()
        except Exception as error:
            self.failure = self.failure or error

    def step(self) -> dict[str, Any]:
        """Trains up to the next report."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        try:
            return self._step()
        except Exception as error:
            self._settle()  # the trial may be given up: its best weights must be there
            self.failure = None
            if (memory := memory_error(error)) is not None:
                raise out_of_memory(memory, self._granted("GPU")) from None
            if isinstance(error, StorageError):  # whose storage? it may be this node's alone
                raise StorageError(f"node {self.get_current_ip_pid()[0]}: {error}") from error
            raise

    def _step(self) -> dict[str, Any]:
        self._heed(own_mark())
        first = self.trainer is None
        started = time.perf_counter()
        if first:
            self.repeated = self._begin()
        restored = self.repeated.pop(0) if self.repeated else None
        built = time.perf_counter()
        assert self.trainer is not None and self.saver is not None
        if self.checkpoint_due:
            self.saver.save_checkpoint(snapshot(self.trainer.state()))
        training = time.perf_counter()
        report = restored or self.trainer.train_interval()
        saving = time.perf_counter()
        self._save(report, restored=restored is not None)
        ended = time.perf_counter()
        seconds = {"build_seconds": built - started} if first else {}
        seconds["save_seconds"] = training - built + ended - saving
        seconds["write_seconds"] = self._written_seconds()
        seconds["step_seconds"] = ended - started
        measured = {**report.metrics, **seconds, **peaks(self.trainer.device)}
        worker = f"{self.get_current_ip_pid()[0]}:{os.getpid()}"
        said = self._said_once() if first else {}
        return {"report": replace(report, metrics=measured), "worker": worker, **said}

    def _heed(self, mark: Mark | None) -> None:
        """On a node that is taken back: writes a checkpoint of the last report, and leaves.

        Raises:
            PreemptedError: once Ray would start the trial elsewhere; it has written everything.
        """
        if mark is None:
            return
        if self.trainer is not None and self.saver is not None:
            self.saver.save_checkpoint(snapshot(self.trainer.state()))
            self.checkpoint_due = False
        if mark.leave:
            if self.saver is not None:
                self.saver.wait()
            raise PreemptedError("the node is taken back; the trial goes on elsewhere.")

    def _said_once(self) -> dict[str, Any]:
        """What an attempt's first report says beside its figures."""
        assert self.trainer is not None
        return {
            "note": self.note,
            "worker_device": device_name(self.trainer.device),
            "worker_type": worker_type(),
        }

    def _begin(self) -> list[Report]:
        """Builds the trainer; returns the reports to be repeated, where it was restored."""
        announce(self.experiment, self.assignment["trial"], self.assignment["attempt"])
        check_versions(self.versions)
        wait_for(self.experiment)
        config = self._with_device(Config.from_mapping(self.assignment["config"], source="trial"))
        torch.set_num_threads(config.training.threads or self._cpus())
        device = resolve_device(config.training.device)
        reset_peaks(device)
        keep_to_share(device, self._granted("GPU"))
        trainer = Trainer(self.data, config, measure_latency=self.measure_latency)
        attempt = self.assignment["attempt"]
        trial = self.assignment["trial"]
        self.files = TrialFiles(self.experiment, trial, attempt, self.session)
        self.files.take_over()
        self.saver, self.seconds_written = TrialSaver(self.files), 0.0
        self.best_value: float | None = None
        self.checkpoint_due = False
        self.note: str | None = None
        repeated: list[Report] = []
        if attempt > 1:
            repeated = self._restore(trainer)
        else:  # of a driver that was lost, with its machine, before anybody knew of this trial
            self.files.begin_anew()
        self.trainer = trainer
        return repeated

    def _restore(self, trainer: Trainer) -> list[Report]:
        """Brings a restarted trial to where its files are.

        Returns:
            The reports before that which the driver does not have, and the one made there.
        """
        cloned_at = self.assignment.get("cloned_at")
        copied = None if cloned_at is None else adopt(self.files, trainer, cloned_at)
        report, refused = self.files.restore(trainer)
        try:
            self.best_value = self.files.best_metrics().get(self.objective.name)
        except CheckpointError as error:
            refused.append(str(error))
        self.note = "; ".join([*refused, *([copied] if copied else [])]) or None
        if report is None:
            return []
        reported = self.assignment.get("reported", 0)
        lost = [each for each in trainer.earlier_reports() if each.iteration > reported]
        return [_without_times(each) for each in (*lost, report)]

    def _cpus(self) -> int:
        return max(1, int(self._granted("CPU")))

    def _granted(self, resource: str) -> float:
        """How much of a resource Ray holds for the trial; 1 where Ray does not run it."""
        granted = self.trial_resources
        return float(granted.required_resources.get(resource, 0)) if granted is not None else 1.0

    def _with_device(self, config: Config) -> Config:
        """``auto`` is the CPU for a trial that holds no GPU: Ray would let it see every one."""
        if config.training.device != "auto" or self._granted("GPU") > 0:
            return config
        return replace(config, training=replace(config.training, device="cpu"))

    def _save(self, report: Report, *, restored: bool) -> None:
        """Takes the best weights where these are, and waits where the trial may end here."""
        assert self.trainer is not None and self.saver is not None
        training = self.trainer.config.training
        # The weights are those of where the trainer is, which a repeated report may be before.
        here = report.iteration == self.trainer.iteration
        improved = here and report.state != "diverged" and self._improves(report)
        if improved:
            weights = snapshot(self.trainer.weights())
            self.saver.save_best(weights, hold=training.checkpoint_when == "end")
        running = report.state == "running"
        number = -(-report.iteration // training.report_every)
        self.checkpoint_due = (
            running and not restored and _checkpoint_due(training, number, improved=improved)
        )
        if not running or self.stops_at is None or number in self.stops_at:
            if self.clones and running and not restored:
                self.saver.save_checkpoint(snapshot(self.trainer.state()))
                self.checkpoint_due = False
            self.saver.wait(ended=not running)
        self.saver.check()

    def _improves(self, report: Report) -> bool:
        value = report.metrics.get(self.objective.name)
        if not self.objective.better(value, self.best_value):
            return False
        self.best_value = value
        return True

    def _written_seconds(self) -> float:
        """Time that the saver's thread spent since it was asked last."""
        assert self.saver is not None
        before, self.seconds_written = self.seconds_written, self.saver.seconds
        return self.seconds_written - before

    def cleanup(self) -> None:
        """Called before the process ends."""
        self._settle()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray asks for none: the trial's own files are its checkpoints."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to do, see `save_checkpoint`."""


def _without_times(report: Report) -> Report:
    """A report of another attempt: this one has not spent the time."""
    times = ("train_seconds", "eval_seconds")
    metrics = {name: v for name, v in report.metrics.items() if name not in times}
    return replace(report, metrics=metrics)


def _checkpoint_due(config: TrainingConfig, number: int, *, improved: bool) -> bool:
    """Whether there is to be a checkpoint of a report, which is the trial's n-th."""
    if config.checkpoint_when == "report":
        return number % config.checkpoint_every == 0
    return config.checkpoint_when == "improved" and improved
