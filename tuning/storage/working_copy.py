"""The copy, on this machine, of an experiment that is kept on an object store.

The driver keeps its journal, its data and its manifest there and sends them (see ``mirror``), for
an object store cannot append to a file; who only looks fetches them. Weights and checkpoints are
not in it: workers write them to the object store itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from model.files import atomic_write, atomic_write_json, storage_errors
from tuning.journal.compaction import COMPACTED
from tuning.storage.experiments import DATA
from tuning.storage.file_lock import is_locked, lock_directory
from tuning.storage.patience import patience_seconds, patiently
from tuning.storage.remote_path import RemotePath
from tuning.storage.session import SESSION, Session, read_session

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

#: Where copies lie, instead of the user's directory for caches.
CACHE_VARIABLE = "DIALOGUE_TUNE_CACHE"
#: The directories of an experiment that are copied, beside the files of its root.
DIRECTORIES = ("journal",)
#: Files of the root that are copied when they are asked for, or never.
_NOT_COPIED = (DATA, SESSION)
_FETCHED = ".fetched.json"
_FETCHING = ".fetching"
_OWN = ".session"
_TRIES = 3


def home_of(storage: RemotePath) -> Path:
    """Where the copies of a storage's experiments lie on this machine."""
    given = os.environ.get(CACHE_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dialogue-tune"
    server = f"{storage.remote.options} {os.environ.get('AWS_ENDPOINT_URL', '')}".strip()
    mark = f"@{hashlib.sha256(server.encode()).hexdigest()[:8]}" if server else ""
    return (Path(given) if given else cache) / f"{storage.remote.scheme}{mark}" / storage.key


def copy_of(experiment: RemotePath) -> Path:
    """Where the copy of an experiment lies on this machine."""
    return home_of(experiment.parent) / experiment.name


def own_token(copy: Path) -> str | None:
    """The token of the session in which this machine wrote the copy itself, if it did."""
    with suppress(OSError):
        return (copy / _OWN).read_text(encoding="ascii")
    return None


def keep_token(copy: Path, session: Session) -> None:
    """Remembers that the copy is this machine's own from now on."""
    atomic_write(copy / _OWN, session.token.encode())


def fetch(experiment: RemotePath) -> Path:
    """Brings the copy of an experiment up to date, and returns where it lies.

    A copy that was written here, by a driver that nobody followed elsewhere, is at least as new as
    what has been sent of it, and stays as it is.

    Raises:
        StorageError: where the object store cannot be read, or the copy cannot be written.
    """
    copy = copy_of(experiment)
    with storage_errors(experiment, "read"):
        for tries in range(1, _TRIES + 1):
            try:
                patiently(lambda: _fetch(experiment, copy))
                break
            except FileNotFoundError:  # the journal was compacted just now
                if tries == _TRIES:
                    raise
    return copy


def _fetch(experiment: RemotePath, copy: Path) -> None:
    if is_locked(copy):  # its driver runs here
        return
    session = read_session(experiment)
    if session is None or session.token != own_token(copy):
        copy.mkdir(parents=True, exist_ok=True)
        with fetching(copy):
            if not is_locked(copy):  # else a driver began here meanwhile
                bring_up_to_date(experiment, copy)


def fetching(copy: Path) -> IO[str]:
    """The right to fetch, until it is closed; waits for whoever has it.

    It is not the right to drive: who only looks keeps no driver out, which waits here once it has
    its own right. From then on nobody fetches.

    Raises:
        ExperimentError: where another process has it for too long.
    """
    return lock_directory(copy, _FETCHING, doing="fetched", patience=patience_seconds())


def bring_up_to_date(experiment: RemotePath, copy: Path) -> None:
    """Replaces in a copy what is newer on the object store: somebody else has driven it since.

    Raises:
        OSError: where that is not possible; `FileNotFoundError` where something went meanwhile.
    """
    (copy / _OWN).unlink(missing_ok=True)
    known, now = _known(copy), dict[str, list[object]]()
    for name, info in files_below(experiment):
        if name in _NOT_COPIED:
            continue
        now[name] = [info.size, info.mtime_ns]
        if known.get(name) != now[name] or not (copy / name).is_file():
            atomic_write(copy / name, (experiment / name).read_bytes())
    for directory in DIRECTORIES:
        for file in (copy / directory).glob("*"):
            if f"{directory}/{file.name}" not in now:
                file.unlink(missing_ok=True)
    if now != known:
        atomic_write_json(copy / _FETCHED, now)


def has_unsent(experiment: RemotePath) -> bool:
    """Whether this machine's copy may hold what nobody has sent: its driver here was killed.

    Raises:
        StorageError: where the object store cannot be read.
    """
    copy = copy_of(experiment)
    with storage_errors(experiment, "read"):
        session = patiently(lambda: read_session(experiment))
    if session is None or session.ended or is_locked(copy):
        return False
    return session.token == own_token(copy)


def lacks_some(experiment: RemotePath, copy: Path) -> bool:
    """Whether a copy has less of the journal than has been sent: somebody removed a part of it.

    Raises:
        OSError: where that cannot be found out.
    """
    there = {name: info.size for name, info in files_below(experiment) if "/" in name}
    if (copy / "journal" / COMPACTED).is_file():  # which takes the place of segments
        there = {name: size for name, size in there.items() if not name.endswith(".jsonl")}
        return any(not (copy / name).is_file() for name in there)
    return any(_size(copy / name) < size for name, size in there.items())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _known(copy: Path) -> dict[str, list[object]]:
    try:
        known = json.loads((copy / _FETCHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def files_below(experiment: RemotePath) -> Iterator[tuple[str, FileInfo]]:
    """The files of an experiment but for those of its trials: their names and pyarrow's facts.

    Raises:
        OSError: where they cannot be listed.
    """
    for directory in ("", *DIRECTORIES):
        for path, info in (experiment / directory).walk(recursive=False):
            if info.type.name == "File" and not path.name.startswith("."):
                yield f"{directory}/{path.name}" if directory else path.name, info


def fetch_file(experiment: RemotePath, name: str, *, again: bool = False) -> None:
    """Fetches one file more, where the copy does not have it, or again.

    Raises:
        StorageError: where it cannot be read or written.
    """
    file = copy_of(experiment) / name
    if file.is_file() and not again:
        return
    source = experiment / name
    with storage_errors(source, "read"), suppress(FileNotFoundError):  # missed by who opens it
        atomic_write(file, patiently(source.read_bytes))
