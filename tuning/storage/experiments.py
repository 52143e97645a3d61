"""Which experiments a storage holds, and finding one among them."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from model.errors import ExperimentError
from model.files import storage_errors
from model.model_directory import valid_name
from model.validation import did_you_mean
from tuning.storage.file_lock import is_locked
from tuning.storage.place import AnyPath, is_uri, place
from tuning.storage.remote_path import RemotePath, modified

MANIFEST = "experiment.json"
DATA = "data.safetensors"
#: Stands for the newest experiment wherever a name is asked for.
LATEST = "latest"


def list_experiments(storage: AnyPath) -> list[AnyPath]:
    """Where the experiments of a storage are, the newest last.

    Raises:
        StorageError: where it cannot be read.
    """
    times: dict[AnyPath, float] = {}
    if isinstance(storage, RemotePath):
        with storage_errors(storage, "read"):
            found = modified([path / MANIFEST for path in storage.iterdir()])
        times |= {manifest.parent: time for manifest, time in found.items()}
    elif storage.is_dir():
        for path in storage.iterdir():
            if (path / MANIFEST).is_file():
                times[path] = (path / MANIFEST).stat().st_mtime_ns
    return sorted(times, key=lambda path: times[path])


def find_experiment(reference: str | Path, storage: str | Path) -> AnyPath:
    """Where the experiment is that is named by its directory or URI, by its name, or ``latest``.

    Raises:
        ExperimentError: where there is none, with the nearest name.
        StorageError: where an object store cannot be read.
    """
    home = place(storage)
    places = [home / reference]
    if is_uri(reference):
        named = place(reference)
        home, places = named.parent, [named]
    elif not isinstance(home, RemotePath):
        places.insert(0, Path(reference))
    if reference != LATEST:
        for path in places:
            with suppress(OSError):  # a name that no file can have
                if (path / MANIFEST).is_file():
                    return path
    known = list_experiments(home)
    if reference == LATEST and known:
        return known[-1]
    hint = did_you_mean(str(reference), [p.name for p in known]) if known else "."
    raise ExperimentError(
        f"{reference}: unknown experiment{hint}"
        + ("" if known else f" There are none in {home}; start one: python -m tuning run FILE")
    )


def check_name(name: str) -> None:
    """Refuses what cannot name an experiment.

    Raises:
        ExperimentError: saying what can.
    """
    if not valid_name(name):
        raise ExperimentError(
            f"{name!r}: cannot name an experiment; use letters, digits and ._- only, 200 at most."
        )
    if name == LATEST:
        raise ExperimentError(f"{name!r}: cannot name an experiment; it means the newest one.")


def check_free(path: Path, remote: RemotePath | None, leftovers: Collection[str]) -> None:
    """Refuses a name that is taken.

    Args:
        path: The directory of the new experiment.
        remote: Its place on an object store, where it is to be on one.
        leftovers: Files that may be there: a driver leaves them that died before the manifest.

    Raises:
        ExperimentError: saying what is there.
        StorageError: where that cannot be found out.
    """
    there = remote or path
    with storage_errors(there, "read"):
        taken = (there / MANIFEST).exists()
    if taken:
        raise ExperimentError(
            f"{there}: exists already; choose another --name, "
            f"or go on with it: python -m tuning resume {path.name}"
        )
    if remote is not None:  # what is here is the copy of one that is there no more, or never was
        if is_locked(path):
            raise ExperimentError(f"{there}: is being run on this machine; choose another --name.")
        shutil.rmtree(path, ignore_errors=True)
        return
    with storage_errors(path):
        found = {p.name for p in path.iterdir()} if path.is_dir() else set()
    if {name for name in found if not name.startswith(".")} - set(leftovers):
        raise ExperimentError(
            f"{path}: holds files, but is no experiment; remove it, or choose another --name."
        )
