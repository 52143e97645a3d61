"""Taking an experiment's files from the log of the job that prints them; see `sending`.

Nothing is put in place before all of it has come and every digest is right.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from model.errors import ExperimentError, ResourceError
from model.files import storage_errors
from tuning.experiment import MANIFEST, Experiment
from tuning.jobs.client import Client, Job
from tuning.jobs.following import REACTION_SECONDS
from tuning.jobs.sending import BEGIN, DATA, DONE, END, FILE, LIMIT_BYTES
from tuning.jobs.submission import start_sending

#: What an experiment's files can be called; nothing else is written.
_PATH = re.compile(
    r"experiment\.json|try\.json|warm_start\.json|study\.log|data\.safetensors"
    r"|journal/[A-Za-z0-9_-][A-Za-z0-9._-]*|trials/[0-9]{4,9}/best\.pt"
)
_JOURNAL = "journal"


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    Attributes:
        path: The experiment's directory, here.
        files: How many files came.
        bytes: How many bytes they have.
    """

    path: Path
    files: int
    bytes: int


def fetch(
    client: Client,
    name: str,
    *,
    storage: str,
    words: Sequence[str],
    out: Path,
    progress: Callable[[int, int], object],
) -> Fetched:
    """Fetches an experiment.

    Args:
        client: Of the cluster.
        name: The experiment's name.
        storage: Where it lies, on the cluster.
        words: Options of `tuning.jobs.sending`.
        out: Directory of experiments, here.
        progress: Told how many bytes of how many have come.

    Raises:
        ExperimentError: where it is unknown or damaged, does not come whole, or `out` has
            something else of that name.
    """
    check_place(out, name)
    job = start_sending(client, name, storage, words)
    with scratch(out) as directory, closing(Receiver(directory, progress)) as receiver:
        try:
            for piece in client.log(job.id):
                receiver.take(piece)
                if receiver.is_complete:
                    break
            else:
                raise _failed(client, job, receiver)
        finally:
            _forget(client, job)
        place = put(directory, out, name, receiver.id)
        return Fetched(place, receiver.files, receiver.received)


def _failed(client: Client, job: Job, receiver: Receiver) -> ExperimentError:
    """Why a job ended before it had printed everything: as it says itself, or as Ray says."""
    errors = [line for line in receiver.said if line.startswith("error: ")]
    if errors:
        return ExperimentError("\n".join(line.removeprefix("error: ") for line in errors))
    over = client.wait(job.id, REACTION_SECONDS)
    said = "\n".join([over.message, *receiver.said[-5:]]).strip()
    return ExperimentError(f"job {job.id} ended ({over.state}) before everything had come: {said}")


def _forget(client: Client, job: Job) -> None:
    """Ends the job, which empties its log, and takes it off the list of jobs."""
    with suppress(ResourceError):  # it ends by itself in ten minutes
        client.stop(job.id)
        if client.wait(job.id, REACTION_SECONDS).is_over:
            client.delete(job.id)


@dataclass
class Receiver:
    """Takes a log in pieces, and writes the files that it holds.

    Args:
        directory: An empty one, for the files.
        progress: Told how many bytes of how many have come.

    Attributes:
        id: The experiment's id.
        files: How many have come whole.
        total: How many bytes are to come.
        received: How many have.
        is_complete: Whether all have come, whole.
        said: Lines that are not ours: what went wrong, say.
    """

    directory: Path
    progress: Callable[[int, int], object] = lambda received, total: None
    id: str = ""
    files: int = 0
    total: int = 0
    received: int = 0
    is_complete: bool = False
    said: list[str] = field(default_factory=list)
    _rest: list[str] = field(default_factory=list)
    _expected: int = 0
    _open: _Open | None = None

    def take(self, text: str) -> None:
        """Takes the next piece of the log.

        Raises:
            ExperimentError: where it is not what a whole, honest sender prints.
            StorageError: where nothing can be written.
        """
        *lines, rest = text.split("\n")
        for line in lines:
            self._line("".join([*self._rest, line]))
            self._rest = []
        self._rest.append(rest)

    def _line(self, line: str) -> None:
        word, _, value = line.partition(" ")
        if self.is_complete or word not in (BEGIN, FILE, DATA, DONE, END):
            self.said = [*self.said, line][-20:]
            return
        try:
            self._ours(word, value)
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
            raise _torn(f"a line of the job's log cannot be read: {line[:60]!r}") from None

    def _ours(self, word: str, value: str) -> None:
        if word == BEGIN:
            head = json.loads(value)
            self.id, self._expected = str(head["experiment"]), int(head["files"])
            self.total = int(head["bytes"])
        elif word == FILE:
            self._begin_file(json.loads(value))
        elif word == DATA:
            self._write(base64.b64decode(value, validate=True))
        elif word == DONE:
            self._end_file(value)
        else:
            if self._open is not None or self.files != self._expected:
                raise _torn(f"{self.files} of {self._expected} files came")
            self.is_complete = True

    def _begin_file(self, head: dict[str, Any]) -> None:
        name, size = str(head["path"]), int(head["size"])
        if self._open is not None or not _PATH.fullmatch(name) or (self.directory / name).exists():
            raise _torn(f"{name!r} is no file to expect")
        if self.received + size > LIMIT_BYTES:
            raise _torn(f"more than {LIMIT_BYTES / 2**20:.0f} MB")
        path = self.directory / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = _Open(name, size, path.open("xb"))

    def _write(self, chunk: bytes) -> None:
        file = self._open
        if file is None or file.written + len(chunk) > file.size:
            raise _torn("more came than was announced")
        with storage_errors(self.directory / file.name):
            file.stream.write(chunk)
        file.digest.update(chunk)
        file.written += len(chunk)
        self.received += len(chunk)
        self.progress(self.received, self.total)

    def _end_file(self, digest: str) -> None:
        file = self._open
        if file is None or file.written != file.size or file.digest.hexdigest() != digest:
            raise _torn(f"{file.name if file else 'a file'} came damaged")
        self.close()
        self.files += 1

    def close(self) -> None:
        """Closes the file that is being written, if there is one."""
        if self._open is not None:
            with storage_errors(self.directory / self._open.name):
                self._open.stream.close()
            self._open = None


@dataclass
class _Open:
    """A file that is on its way."""

    name: str
    size: int
    stream: BinaryIO
    written: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


def _torn(problem: str) -> ExperimentError:
    return ExperimentError(f"the experiment did not come whole: {problem}; fetch it again.")


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A directory beside the place where files will be put, removed at the end."""
    directory = out / f".fetch-{secrets.token_hex(4)}"
    with storage_errors(directory):
        directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def check_place(out: Path, name: str) -> None:
    """Refuses a place where something else is, before anything is sent.

    Raises:
        ExperimentError: where it holds something that is no experiment, or one that runs here.
    """
    place = out / name
    if place.exists() and not (place / MANIFEST).is_file():
        raise ExperimentError(f"{place}: is there, and is no experiment; choose another --out.")
    if place.exists() and Experiment.open(place).is_running():
        raise ExperimentError(f"{place}: is being run on this machine; choose another --out.")


def put(received: Path, out: Path, name: str, id: str) -> Path:
    """Puts an experiment in its place: whole, or where it was fetched before, what is new.

    A first fetch is one step. A later one exchanges file after file, first weights and last the
    journal, which is what results are read from; weights that were fetched earlier stay.

    Args:
        received: A directory with all its files.
        out: Directory of experiments.
        name: The experiment's.
        id: Its id.

    Raises:
        ExperimentError: where another experiment has the name there.
        StorageError: where the files cannot be put there.
    """
    place = out / name
    if str(Experiment.open(received).manifest.get("id")) != id:
        raise _torn("the manifest is another experiment's")
    with storage_errors(place):
        if not place.exists():
            received.replace(place)
            return place
        if str(Experiment.open(place).manifest.get("id")) != id:
            raise ExperimentError(f"{place}: is another experiment; choose another --out.")
        for path in sorted(received.rglob("*")):
            relative = path.relative_to(received)
            if path.is_file() and relative.parts[0] != _JOURNAL:
                (place / relative).parent.mkdir(parents=True, exist_ok=True)
                path.replace(place / relative)
        _exchange(received / _JOURNAL, place / _JOURNAL)
    return place


def _exchange(new: Path, old: Path) -> None:
    """Puts a directory in the place of another: its segments belong together."""
    if not new.is_dir():
        return
    aside = new.with_name("journal-before")
    if old.exists():
        old.replace(aside)
    try:
        os.replace(new, old)  # noqa: PTH105 - tests make exactly this call fail
    except OSError:
        if aside.exists():
            aside.replace(old)
        raise
