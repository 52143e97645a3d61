"""Sending an experiment to Weights & Biases after the fact, from its journal."""

from __future__ import annotations

from tuning.experiment import Experiment
from tuning.journal import read_journal
from tuning.tracking import Patience, WandbTracker, choose_mode

#: Seconds for all runs of an experiment; each has its own limits within.
_DAY = 86400.0


def send(experiment: Experiment) -> list[str]:
    """Sends what Weights & Biases lacks of an experiment: all of it, a part, or nothing.

    The journal says what there is, and W&B's server what it has, run by run: an experiment may have
    been logged offline, online in part, or not at all, and may be sent twice. Offline files of runs
    that are sent are marked, so that ``wandb sync`` does not send their rows again.

    Args:
        experiment: It must not be running.

    Returns:
        What went wrong, in words; empty where nothing did.

    Raises:
        ConfigurationError: where there is no key.
        ExperimentError: where the experiment is running, or its journal is damaged.
    """
    choose_mode("online")
    problems: list[str] = []
    sweep = experiment.sweep()
    with experiment.hold():
        tracker = WandbTracker(
            experiment.path,
            experiment.name,
            mode="online",
            run_id=str(experiment.manifest["id"]),
            project=sweep.project,
            entity=sweep.entity,
            tags=tuple(sweep.tags),
            past=read_journal(experiment.journal).rows,
            everything=True,
            patience=Patience(close=_DAY),
            on_problem=problems.append,
        )
        tracker.close()
    return problems
