"""A promoted model as a Weights & Biases artifact, online or offline.

The artifact has the model's name, the type ``model``, and the sealed files of the model directory,
which W&B reads where they lie. Its run belongs to the group of the search's own runs. Our versions
count from 1 and W&B's from ``v0``, a form that it keeps for itself: ours is the alias
``version-N``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.promotion.versions import ModelVersion
from tuning.experiment import Experiment
from tuning.tracking import QUIET, choose_mode, has_key

#: Seconds to wait for an upload; afterwards we go on without.
PATIENCE = 300.0


@dataclass(frozen=True)
class Logged:
    """What became of an artifact.

    Attributes:
        problem: What went wrong, in words; None where nothing did.
        offline: Directory of its run, where that waits to be sent.
    """

    problem: str | None = None
    offline: Path | None = None


def artifact_mode(experiment: Experiment, asked: str | None) -> str:
    """The mode to log in: as asked, or as the search did.

    A search that was logged online is logged offline where there is no key now.

    Raises:
        ConfigurationError: where online is asked for and there is no key.
    """
    if asked is not None:
        return choose_mode(asked)
    mode = str(experiment.manifest["settings"].get("wandb", "disabled"))
    return "offline" if mode == "online" and not has_key() else mode


def log_artifact(
    version: ModelVersion, alias: str, experiment: Experiment, mode: str, patience: float = PATIENCE
) -> Logged:
    """Logs a version as an artifact; never raises, for the promotion has been made.

    Args:
        version: What was promoted.
        alias: The alias that was set.
        experiment: Where it comes from; offline files go into its directory.
        mode: ``online``, ``offline`` or ``disabled``.
        patience: Seconds to wait for Weights & Biases.
    """
    if mode == "disabled":
        return Logged()
    logged = [Logged("Weights & Biases did not finish in time; the artifact may be partial.")]

    def work() -> None:
        try:
            directory = _log(version, alias, experiment, mode)
            logged[:] = [Logged(offline=directory if mode == "offline" else None)]
        except Exception as error:  # whatever it is, the promotion stands
            logged[:] = [Logged(f"Weights & Biases has no artifact of it: {error}")]

    thread = threading.Thread(target=work, name="wandb-artifact", daemon=True)
    thread.start()
    thread.join(patience)
    return logged[0]


def _log(version: ModelVersion, alias: str, experiment: Experiment, mode: str) -> Path:
    """Logs it; returns the directory of its run."""
    import wandb

    sweep = experiment.sweep()
    run: Any = wandb.init(
        project=sweep.project or "dialogue-tune",
        entity=sweep.entity,
        group=experiment.name,
        job_type="promotion",
        name=f"{experiment.name}-{version.name}-{version.version}",
        tags=list(sweep.tags),
        dir=str(experiment.path),
        mode=mode,  # type: ignore[arg-type]
        reinit="create_new",
        settings=wandb.Settings(**QUIET),
    )
    code = 1
    try:
        run.summary.update(version.metrics)
        run.log_artifact(_artifact(version), aliases=[alias, f"version-{version.version}"])
        code = 0
    finally:
        run.finish(exit_code=code)
    return Path(run.dir).parent


def _artifact(version: ModelVersion) -> Any:
    import wandb

    metadata = {"metrics": version.metrics, "lineage": version.lineage}
    artifact = wandb.Artifact(version.name, type="model", metadata=metadata)
    for file in sorted(version.path.resolve().iterdir()):
        if file.is_file():
            # The files never change: W&B need not copy them before it sends them.
            artifact.add_file(str(file), name=file.name, policy="immutable", skip_cache=True)
    return artifact
