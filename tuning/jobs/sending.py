"""Prints an experiment's files, for `tuning.jobs.fetching` to read from the job's log.

    python -m tuning.jobs.sending NAME --storage DIRECTORY --top 1

Runs as a job on the cluster: a job's log is all that comes back through Ray's dashboard. Lines
that begin with a word of `WORDS` are ours; what else is in the log is for people.

    dt-begin {"files": 3, "bytes": 123456, "experiment": "0a1b2c3d"}
    dt-file {"path": "journal/000000.jsonl", "size": 4567}
    dt-data BASE64 (of up to `CHUNK` bytes; as many lines as it takes)
    dt-done SHA-256 of the file
    dt-end

It then waits to be stopped, and empties its log: weights have no business there.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from model.cli import natural, run_main
from model.errors import ExperimentError
from model.files import storage_errors
from tuning.experiment import MANIFEST, Experiment
from tuning.journal import current_reports, read_journal
from tuning.storage.working_copy import fetch_file
from tuning.trials.trial_files import best_file

BEGIN, FILE, DATA, DONE, END = "dt-begin", "dt-file", "dt-data", "dt-done", "dt-end"
#: Bytes of a file in one line. A line passes as one message, which may have 4 MiB.
CHUNK = 384 * 1024
#: The most that is sent: more has better ways.
LIMIT_BYTES = 2**30
#: Seconds to wait for whoever reads.
_WAIT_SECONDS = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tuning.jobs.sending", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--storage", required=True)
    parser.add_argument("--top", type=natural, default=1)
    parser.add_argument("--with-data", action="store_true")
    arguments = parser.parse_args(argv)
    experiment = Experiment.open(arguments.name, arguments.storage)
    paths = files_of(experiment, top=arguments.top, data=arguments.with_data)
    send(experiment, paths, sys.stdout)
    return 0


def files_of(experiment: Experiment, *, top: int, data: bool) -> list[Path]:
    """The files to send.

    Args:
        experiment: One that may still run.
        top: Of so many trials the best weights, the best trials first.
        data: The prepared data set too.
    """
    home = experiment.path
    names = [MANIFEST, "try.json", "warm_start.json", "study.log"]
    if data:
        experiment.data()  # brings it here
        names.append(experiment.data_file.name)
    segments = sorted(p for p in experiment.journal.glob("*") if not p.name.startswith("."))
    return [
        *(home / name for name in names if (home / name).is_file()),
        *(path for path in segments if path.is_file()),
        *_best_weights(experiment, top),
    ]


def _best_weights(experiment: Experiment, top: int) -> list[Path]:
    objective, best = experiment.objective, dict[int, float]()
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    for row in current_reports(rows):
        value = row.metrics.get(objective.name)
        if row.trial is not None and objective.better(value, best.get(row.trial)):
            best[row.trial] = row.metrics[objective.name]
    sign = 1 if objective.goal == "minimize" else -1
    ranked = sorted(best, key=lambda trial: (sign * best[trial], trial))
    files: list[Path] = []
    for trial in ranked:
        if len(files) < top and (file := _weights_of(experiment, trial)).is_file():
            files.append(file)
    return files


def _weights_of(experiment: Experiment, trial: int) -> Path:
    """Where the best weights of a trial are on this machine, if it has any."""
    place = best_file(experiment.place, trial)
    if isinstance(place, Path):
        return place
    assert experiment.remote is not None
    name = place.key.removeprefix(f"{experiment.remote.key}/")
    fetch_file(experiment.remote, name, again=True)
    return experiment.path / name


def send(experiment: Experiment, paths: Sequence[Path], out: IO[str]) -> None:
    """Writes files line by line; a file is as it was when it was opened, though a search goes on.

    Raises:
        ExperimentError: where they are too many bytes.
        StorageError: where one cannot be read.
    """
    with storage_errors(experiment.path, "read"):
        total = sum(path.stat().st_size for path in paths)
    if total > LIMIT_BYTES:
        raise ExperimentError(
            f"{experiment.name}: {total / 2**20:.0f} MB are more than a job's log should carry "
            f"({LIMIT_BYTES / 2**20:.0f} MB); take a smaller --top, or copy the files: "
            f"mkdir -p runs/{experiment.name} && "
            f"ray rsync-down cluster.yaml {experiment.path}/ runs/{experiment.name}/"
        )
    head = {"files": len(paths), "bytes": total, "experiment": str(experiment.manifest["id"])}
    print(BEGIN, json.dumps(head), file=out)
    for path in paths:
        _send_file(path, path.relative_to(experiment.path).as_posix(), out)
    print(END, file=out, flush=True)


def _send_file(path: Path, name: str, out: IO[str]) -> None:
    digest = hashlib.sha256()
    with storage_errors(path, "read"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        print(FILE, json.dumps({"path": name, "size": size}), file=out)
        for chunk in _chunks(file, size):
            digest.update(chunk)
            print(DATA, base64.b64encode(chunk).decode(), file=out)
    print(DONE, digest.hexdigest(), file=out)


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """So many bytes of a file, to which somebody may still append."""
    while size > 0 and (chunk := file.read(min(CHUNK, size))):
        size -= len(chunk)
        yield chunk


def _wait_and_forget() -> None:
    """Waits until the one who reads has everything and stops us; then empties the log."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with suppress(KeyboardInterrupt):
        time.sleep(_WAIT_SECONDS)
    with suppress(OSError):  # a terminal or a pipe has nothing to empty
        os.ftruncate(sys.stdout.fileno(), 0)


if __name__ == "__main__":
    status = run_main(main)
    if status == 0:
        _wait_and_forget()
    sys.exit(status)
