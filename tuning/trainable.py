"""The Ray Tune trainable: one trial after another in one reused process.

Ray calls `step` once for each report. The trial's files are written before a report is returned,
and a restarted trial first returns again the report its checkpoint was written at: the driver
knows it or does not, and either way nothing is lost and nothing counted twice (see
``tuning.coordinator``).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from model.config import Config
from model.errors import StorageError
from model.prepared_data import PreparedData
from model.training import Report, Trainer
from tuning.coordinator import Objective
from tuning.experiment import MANIFEST
from tuning.trial_files import TrialFiles


class DialogueTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains the configuration of an `Assignment` (``trial``, ``attempt``, ``config``)."""

    def setup(
        self,
        config: dict[str, Any],
        data: np.ndarray | None = None,
        experiment: str = "",
        objective: Objective | None = None,
    ) -> None:
        """Called once for each process; `reset_config` takes the trials after the first.

        Args:
            config: The assignment, as a mapping.
            data: The bytes of the prepared data set, read in place from the object store.
            experiment: The experiment's directory.
            objective: What the best weights are chosen by.
        """
        assert data is not None and objective is not None
        self.objective = objective
        self.data = PreparedData.from_buffer(data, "object store")
        self.experiment = Path(experiment)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial. Nothing here can fail: work begins in `step`, which may."""
        self.assignment = new_config
        self.trainer: Trainer | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Trains up to the next report."""
        started = time.perf_counter()
        if self.trainer is None:
            report = self._begin()
            if report is not None:
                return self._result(report, started)
        assert self.trainer is not None
        report = self.trainer.train_interval()
        saving = time.perf_counter()
        self._save(report)
        report.metrics["save_seconds"] = time.perf_counter() - saving
        return self._result(report, started)

    def _begin(self) -> Report | None:
        """Builds the trainer; returns the report it was restored to, if it was."""
        if not (self.experiment / MANIFEST).is_file():
            raise StorageError(
                f"{self.experiment}: this worker does not see the experiment; --storage must be a "
                "directory that every node reaches, under the same path."
            )
        config = self._with_device(Config.from_mapping(self.assignment["config"], source="trial"))
        torch.set_num_threads(config.training.threads or self._cpus())
        trainer = Trainer(self.data, config)
        self.files = TrialFiles(self.experiment, self.assignment["trial"])
        report, refused = (
            self.files.restore(trainer) if self.assignment["attempt"] > 1 else (None, [])
        )
        self.note = "; ".join(refused) or None
        self.trainer = trainer
        self.best_value: float | None = self.assignment["value"]
        return report

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

    def _save(self, report: Report) -> None:
        assert self.trainer is not None
        if report.state == "diverged":
            return
        value = report.metrics.get(self.objective.name)
        if self.objective.better(value, self.best_value):
            self.files.save_best(self.trainer)
            self.best_value = value
        training = self.trainer.config.training
        number = -(-report.iteration // training.report_every)
        if report.state == "finished" or number % training.checkpoint_every == 0:
            self.files.save(self.trainer)

    def _result(self, report: Report, started: float) -> dict[str, Any]:
        report.metrics["step_seconds"] = time.perf_counter() - started
        note, self.note = self.note, None
        worker = f"{self.get_current_ip_pid()[0]}:{os.getpid()}"
        return {"report": report, "worker": worker, "note": note}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray asks for none: the trial's own files are its checkpoints."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to do, see `save_checkpoint`."""
