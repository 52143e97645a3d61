"""Population-based training's copy: a trial goes on with another's weights and new settings.

Jaderberg et al. 2017, "Population Based Training of Neural Networks" (arXiv:1711.09846),
Algorithm 1: a member takes over weights and optimizer state of a better one, and keeps its own
count of steps. So the trial's iterations, and with them its reports, go on where they were; the
figures of its own reports stay its own.
"""

from __future__ import annotations

import math
from typing import Any

from model.checkpoint import write_checkpoint
from model.errors import CheckpointError
from model.files import storage_errors
from model.training import Trainer
from tuning.storage.place import AnyPath
from tuning.trials.trial_files import TrialFiles


def adopt(files: TrialFiles, trainer: Trainer, iteration: int) -> str | None:
    """Makes the checkpoint that a cloned trial goes on from, where it was not made before.

    Its weights and the state of its optimizers are the source's; its figures, its report and its
    iteration are the trial's own; its configuration is the trainer's.

    Args:
        files: The trial's files, with the source's checkpoint among them.
        trainer: Just built from the trial's new configuration.
        iteration: The trial's iteration at which it was told to take over another's weights.

    Returns:
        What was not as it should be, in words, or None.

    Raises:
        StorageError: where the checkpoint cannot be written, or one there may not be read.
    """
    kept, target = files.clone(iteration), files.checkpoint(iteration)
    if any(checkpoint.name > target.name for checkpoint in files.checkpoints()):
        return None  # it has gone on since
    own, source = _read(files, target), _read(files, kept)
    config = trainer.config.to_mapping()
    if source is None and (own is None or own["config"] == config):
        return None
    note = None if source is not None else "no checkpoint to clone; it goes on with its own weights"
    figures = own if own is not None else _without_figures(iteration)
    donor = source if source is not None else own
    assert donor is not None
    state = figures | {
        "config": config,
        "fingerprint": trainer.fingerprint,
        "weights": donor["weights"],
        "optimizers": _with_settings_of(trainer, donor["optimizers"]),
    }
    files.patiently(lambda: write_checkpoint(target, state))
    with storage_errors(files.directory, "removed"):
        for other in (*files.checkpoints(), kept):  # what is older is of the former settings
            if other != target:
                other.unlink(missing_ok=True)
    return note


def _read(files: TrialFiles, path: AnyPath) -> dict[str, Any] | None:
    try:
        return files.read(path)
    except CheckpointError:
        return None


def _without_figures(iteration: int) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "best_val_loss": math.inf,
        "best_iteration": 0,
        "metrics": {},
        "last_good": {},
        "report": None,
    }


def _with_settings_of(trainer: Trainer, states: dict[str, Any]) -> dict[str, Any]:
    """The source's moments and counts, with the learning rates of the new configuration."""
    ours = trainer.optimizers.state_dict()
    return {
        side: {"state": state["state"], "param_groups": ours[side]["param_groups"]}
        for side, state in states.items()
    }
