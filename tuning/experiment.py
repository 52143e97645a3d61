"""An experiment's directory: everything about a search, in files that need no Ray to be read.

runs/NAME/experiment.json    the manifest: sweep, seeds, versions, data, commit, command line
runs/NAME/data.safetensors   the prepared data set, so that a resume needs nothing else
runs/NAME/try.json           configurations tried first, where there are any
runs/NAME/warm_start.json    trials of earlier experiments, where it began with any
runs/NAME/journal/           what happened, see ``tuning.journal``
runs/NAME/study.log          the search as an Optuna study, see ``tuning.study``
runs/NAME/trials/            the best weights of every trial, see ``tuning.trials.trial_files``
runs/NAME/wandb/             Weights & Biases' files, when it runs offline

On an object store, ``s3://BUCKET/runs/NAME/`` holds the same, but for what is read out of the
journal again: the study, and Weights & Biases' files. The driver works on a copy of its own, see
``tuning.storage``.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from model.errors import DialogueTuneError, ExperimentError, PreparedDataError
from model.evaluation import unigram_loss
from model.files import atomic_write_json, reason_of, storage_errors
from model.prepared_data import PreparedData
from tuning.environment import environment, git_commit, versions
from tuning.journal.row import check_format
from tuning.objective import Objective
from tuning.starting.starting_points import FILES, StartingPoints
from tuning.storage.experiments import (
    DATA,
    LATEST,
    MANIFEST,
    check_free,
    check_name,
    find_experiment,
    list_experiments,
)
from tuning.storage.file_lock import is_locked, lock_directory
from tuning.storage.mirror import Mirror
from tuning.storage.place import AnyPath
from tuning.storage.remote_path import RemotePath
from tuning.storage.session import is_alive
from tuning.storage.working_copy import copy_of, fetch, fetch_file
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


@dataclass(frozen=True)
class Experiment:
    """An experiment on disk.

    Attributes:
        path: Its directory; of an experiment on an object store, that of its copy here.
        manifest: What was asked for and in which environment; never changed afterwards.
        remote: Where it is on an object store, if it is on one.
    """

    path: Path
    manifest: dict[str, Any]
    remote: RemotePath | None = None

    @classmethod
    def create(
        cls,
        storage: AnyPath,
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
        check_name(name)
        there = storage.resolve() / name
        remote = there if isinstance(there, RemotePath) else None
        path = there if isinstance(there, Path) else copy_of(there)
        check_free(path, remote, (DATA, *FILES))
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
            data.save(path / DATA)
            (starting or StartingPoints()).write(path)
            atomic_write_json(path / MANIFEST, manifest)  # last: it makes it an experiment
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path, manifest, remote)

    @classmethod
    def open(cls, reference: str | Path, storage: str | Path = "runs") -> Experiment:
        """Opens an experiment by its directory, its name in a storage, its URI, or ``latest``.

        Raises:
            ExperimentError: where it is unknown (with the nearest name), damaged or newer.
        """
        there = find_experiment(reference, storage)
        path = fetch(there) if isinstance(there, RemotePath) else there.resolve()
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ExperimentError(f"{file}: cannot be read: {reason_of(error)}.") from None
        except ValueError as error:
            raise ExperimentError(f"{file}: cannot be read: {error}") from None
        number = manifest.get("format") if isinstance(manifest, dict) else None
        check_format(number, file, FORMAT)
        return cls(path, manifest, there if isinstance(there, RemotePath) else None)

    @property
    def place(self) -> AnyPath:
        """Where it is for whoever looks from elsewhere: its workers, and its users."""
        return self.remote or self.path

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
        return self.path / DATA

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
        if self.remote is None:
            return self._data()
        fetch_file(self.remote, DATA)
        try:
            return self._data()
        except (PreparedDataError, ExperimentError):  # of the copy, which may be fetched again
            fetch_file(self.remote, DATA, again=True)
            return self._data()

    def _data(self) -> PreparedData:
        file = self.path / DATA
        data = PreparedData.open(file)
        data.verify(str(file))
        if data.fingerprint != self.manifest["data"]["fingerprint"]:
            raise ExperimentError(f"{file}: is not the data that the experiment began with.")
        return data

    def has_data(self) -> bool:
        """Whether the prepared data set is still there."""
        there = self.place / DATA
        with storage_errors(there, "read"):
            return self.data_file.is_file() or there.is_file()

    def starting_points(self) -> StartingPoints:
        """What it began with beside its sweep.

        Raises:
            ExperimentError: where a file is damaged or newer.
        """
        return StartingPoints.read(self.path)

    def lock(self) -> IO[str]:
        """Takes the right to write into the directory, see `lock_directory`.

        Raises:
            ExperimentError: where another process has it.
        """
        return lock_directory(self.path)

    @contextmanager
    def hold(self) -> Iterator[Mirror | None]:
        """Has the right to drive it, for the time of a block.

        Gives what keeps an object store up to date, where the experiment is on one.

        Raises:
            ExperimentError: where another driver has it.
            StorageError: where the object store is away.
        """
        with self.lock():
            if self.remote is None:
                yield None
                return
            mirror = Mirror(self.remote, self.path, (DATA, *FILES, MANIFEST))
            try:
                yield mirror
            except BaseException:
                with suppress(DialogueTuneError):  # the first error is the one to hear of
                    mirror.close()
                raise
            mirror.close()

    def is_running(self) -> bool:
        """Whether a driver has it now."""
        return is_locked(self.path) or (self.remote is not None and is_alive(self.remote))
