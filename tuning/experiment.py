"""An experiment's directory: everything about a search, in files that need no Ray to be read.

runs/NAME/experiment.json    the manifest: sweep, seeds, versions, data, commit, command line
runs/NAME/data.safetensors   the prepared data set, so that a resume needs nothing else
runs/NAME/try.json           configurations tried first, where there are any
runs/NAME/warm_start.json    trials of earlier experiments, where it began with any
runs/NAME/journal/           what happened, see ``tuning.journal``
runs/NAME/study.log          the search as an Optuna study, see ``tuning.study``
runs/NAME/trials/            the best weights of every trial, see ``tuning.trials.trial_files``
runs/NAME/wandb/             Weights & Biases' files, when it runs offline
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from model.errors import ExperimentError, StorageError
from model.evaluation import unigram_loss
from model.files import atomic_write_json, reason_of, storage_errors
from model.model_directory import valid_name
from model.prepared_data import PreparedData
from model.validation import did_you_mean
from tuning.environment import environment, git_commit, versions
from tuning.journal.row import check_format
from tuning.objective import Objective
from tuning.starting.starting_points import FILES, StartingPoints
from tuning.sweeps.sweep_file import Sweep, parse_sweep

__all__ = [
    "FORMAT",
    "LATEST",
    "MANIFEST",
    "Experiment",
    "git_commit",
    "list_experiments",
    "versions",
]

#: Number of the format written here; a newer one is refused.
FORMAT = 1
MANIFEST = "experiment.json"
_DATA = "data.safetensors"
#: Stands for the newest experiment wherever a name is asked for.
LATEST = "latest"


@dataclass(frozen=True)
class Experiment:
    """An experiment on disk.

    Attributes:
        path: Its directory.
        manifest: What was asked for and in which environment; never changed afterwards.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def create(
        cls,
        storage: Path,
        name: str,
        sweep: Sweep,
        data: PreparedData,
        *,
        seed: int,
        trials: int | None,
        settings: Mapping[str, Any],
        command: Sequence[str] = (),
        starting: StartingPoints | None = None,
        repeats: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Makes the directory, with the manifest and the data.

        Args:
            storage: Directory of all experiments, reachable by every worker.
            name: Letters, digits, ``._-``; must not be taken.
            sweep: What is searched, overrides included.
            data: The prepared data set.
            seed: Seed of the searcher.
            trials: How many trials, or None for all points of a grid.
            settings: Resources and tracking, kept for a resume.
            command: The command line, for the record.
            starting: What to try first, and what earlier experiments found.
            repeats: Name and id of the experiment that this one repeats.

        Raises:
            ExperimentError: where the name is taken or cannot be one.
            StorageError: where nothing can be written.
        """
        _check_name(name)
        path = storage.resolve() / name
        _check_free(path)
        manifest = {
            "format": FORMAT,
            "name": name,
            "id": secrets.token_hex(4),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "sweep_file": sweep.source,
            "sweep": sweep.to_mapping(),
            "seed": seed,
            "trials": trials,
            "objectives": [objective.to_mapping() for objective in sweep.objectives],
            "settings": dict(settings),
            "data": {
                "fingerprint": data.fingerprint,
                "settings": data.settings,
                "counts": data.counts,
                "unigram_val_loss": unigram_loss(data, "validation"),
            },
            "command": list(command),
            **environment(),
        }
        if repeats is not None:
            manifest["repeats"] = dict(repeats)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        try:
            data.save(path / _DATA)
            (starting or StartingPoints()).write(path)
            atomic_write_json(path / MANIFEST, manifest)  # last: it makes it an experiment
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path, manifest)

    @classmethod
    def open(cls, reference: str | Path, storage: str | Path = "runs") -> Experiment:
        """Opens an experiment by its directory, its name in a storage directory, or ``latest``.

        Raises:
            ExperimentError: where it is unknown (with the nearest name), damaged or newer.
        """
        path = _find(reference, Path(storage))
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExperimentError(f"{file}: cannot be read: {error}") from None
        number = manifest.get("format") if isinstance(manifest, dict) else None
        check_format(number, file, FORMAT)
        return cls(path.resolve(), manifest)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["name"])

    @property
    def journal(self) -> Path:
        """Directory of the journal."""
        return self.path / "journal"

    @property
    def data_file(self) -> Path:
        """File of the prepared data set."""
        return self.path / _DATA

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is optimised."""
        return tuple(Objective(**objective) for objective in self.manifest["objectives"])

    @property
    def objective(self) -> Objective:
        """The first objective, which trials are ranked by."""
        return self.objectives[0]

    def sweep(self) -> Sweep:
        """What is searched, as the manifest has it."""
        return parse_sweep(self.manifest["sweep"], str(self.path / MANIFEST))

    def data(self) -> PreparedData:
        """The prepared data set.

        Raises:
            PreparedDataError: where it is missing or damaged.
            ExperimentError: where it is not the one that the experiment began with.
        """
        file = self.path / _DATA
        data = PreparedData.open(file)
        data.verify(str(file))
        if data.fingerprint != self.manifest["data"]["fingerprint"]:
            raise ExperimentError(f"{file}: is not the data that the experiment began with.")
        return data

    def starting_points(self) -> StartingPoints:
        """What it began with beside its sweep.

        Raises:
            ExperimentError: where a file is damaged or newer.
        """
        return StartingPoints.read(self.path)

    def lock(self) -> IO[str]:
        """Takes the right to write; it is given back when the file is closed or we die.

        Raises:
            ExperimentError: where another driver has it.
        """
        with storage_errors(self.path):
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ExperimentError(f"{self.path}: is being run by {owner}.") from None
        except OSError as error:
            file.close()
            reason = f"cannot be locked: {reason_of(error)}; choose another --storage."
            raise StorageError(f"{self.path}: {reason}") from error
        file.truncate(0)
        file.write(f"{platform.node()}, process {os.getpid()}")
        file.flush()
        return file

    def is_running(self) -> bool:
        """Whether a driver has the lock now."""
        try:
            with (self.path / ".lock").open("r", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # never locked, or the file system has no locks
            return False
        return False


def _take(file: IO[str], patience: float = 0.5) -> None:
    """Locks a file; `Experiment.is_running` of another process may hold it for an instant."""
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _check_name(name: str) -> None:
    if not valid_name(name):
        raise ExperimentError(
            f"{name!r}: cannot name an experiment; use letters, digits and ._- only, 200 at most."
        )
    if name == LATEST:
        raise ExperimentError(f"{name!r}: cannot name an experiment; it means the newest one.")


def _check_free(path: Path) -> None:
    if (path / MANIFEST).exists():
        raise ExperimentError(
            f"{path}: exists already; choose another --name, "
            f"or go on with it: python -m tuning resume {path.name}"
        )
    with storage_errors(path):
        there = {p.name for p in path.iterdir()} if path.is_dir() else set()
    if there - {_DATA, *FILES}:  # what a driver leaves that died before it wrote the manifest
        raise ExperimentError(
            f"{path}: holds files, but is no experiment; remove it, or choose another --name."
        )


def _find(reference: str | Path, storage: Path) -> Path:
    known = list_experiments(storage)
    if reference == LATEST and known:
        return known[-1]
    for path in (Path(reference), storage / reference):
        with suppress(OSError):  # a name that no file can have
            if (path / MANIFEST).is_file():
                return path
    hint = did_you_mean(str(reference), [p.name for p in known]) if known else "."
    raise ExperimentError(
        f"{reference}: unknown experiment{hint}"
        + ("" if known else f" There are none in {storage}; start one: python -m tuning run FILE")
    )


def list_experiments(storage: Path) -> list[Path]:
    """Directories of the experiments in a storage directory, the newest last."""
    if not storage.is_dir():
        return []
    manifests = [p / MANIFEST for p in storage.iterdir() if (p / MANIFEST).is_file()]
    return [m.parent for m in sorted(manifests, key=lambda m: m.stat().st_mtime_ns)]
