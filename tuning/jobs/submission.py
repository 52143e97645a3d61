"""Starting searches on a cluster from elsewhere."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from model.errors import ConfigurationError, ExperimentError
from model.model_directory import valid_name
from tuning.environment import git_commit
from tuning.jobs.client import EXPERIMENT, STORAGE, VERB, Client, Job
from tuning.shipping import package
from tuning.sweeps.sweep_file import Sweep

#: Where cluster.yaml and the Kubernetes manifests have the storage that all nodes share.
DEFAULT_STORAGE = "/mnt/runs"
#: "exec": Ray's stop signal shall go to the driver, with no shell between.
_TUNING = ("exec", "python", "-m", "tuning")


def name_of(sweep: Sweep) -> str:
    """A name for an experiment, made here so that it is known here: the sweep's and the time."""
    stem = sweep.name or Path(sweep.source).stem
    allowed = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem) or "sweep"
    return f"{allowed}-{datetime.now():%Y%m%d-%H%M%S}"


def problems_with(name: str | None, storage: str) -> list[str]:
    """What is wrong with an experiment's name and with its place on a cluster."""
    problems = []
    if name is not None and (not valid_name(name) or name == "latest"):
        problems.append(f"--name {name}: must be letters, digits and ._- only, 200 at most.")
    if not (PurePosixPath(storage).is_absolute() or "://" in storage):
        problems.append(
            f"--storage {storage}: must be a directory that every node of the cluster reaches, "
            f"such as {DEFAULT_STORAGE}, or a URL, since a job's own directory is removed."
        )
    return problems


def start_run(
    client: Client, name: str, storage: str, words: Sequence[str], files: Mapping[str, Path]
) -> Job:
    """Starts a search.

    Args:
        client: Of the cluster.
        name: The experiment's name.
        storage: Directory of all experiments, as the cluster's nodes have it.
        words: The arguments of `run` but for these and the address.
        files: What they name, by its path in the package.

    Raises:
        ExperimentError: where the cluster has a job of that experiment already.
        ConfigurationError: where what would be sent is too large.
    """
    for job in client.jobs():
        if (job.experiment, job.storage) != (name, storage) or job.verb == "fetch":
            continue
        if job.state != "FAILED":  # one that failed may never have come to make the experiment
            raise ExperimentError(
                f"{name}: the cluster has a job of that experiment ({job.state}); choose another "
                f"--name, or go on with it: {command('submit', client, '--resume', name)}"
            )
    entry = [*_TUNING, "run", *words, "--address=auto", f"--storage={storage}", f"--name={name}"]
    return _submit(client, "run", name, storage, entry=entry, content=package(files))


def start_resume(client: Client, name: str, storage: str | None, words: Sequence[str]) -> Job:
    """Goes on with a search that was started so, or from the head.

    Args:
        client: Of the cluster.
        name: The experiment's name.
        storage: Where it lies; None for where the cluster's newest job of it had it.
        words: The options of `resume` but for storage and address.

    Raises:
        ExperimentError: where a job of it has not ended.
    """
    jobs = [job for job in client.jobs() if job.experiment == name and job.verb != "fetch"]
    for job in jobs:
        if not job.is_over:
            raise ExperimentError(
                f"{name}: is being run by job {job.id}; "
                f"stop it first: {command('stop', client, name)}"
            )
    if storage is None:
        storage = jobs[-1].storage if jobs else DEFAULT_STORAGE
    entry = [*_TUNING, "resume", name, *words, "--address=auto", f"--storage={storage}"]
    return _submit(client, "resume", name, storage, entry=entry, content=package({}))


def start_sending(client: Client, name: str, storage: str, words: Sequence[str]) -> Job:
    """Starts a job that prints an experiment's files; see `tuning.jobs.sending`."""
    entry = ["exec", "python", "-m", "tuning.jobs.sending", name, f"--storage={storage}", *words]
    return _submit(client, "fetch", name, storage, entry=entry, content=package({}))


def _submit(
    client: Client, verb: str, name: str, storage: str, *, entry: Sequence[str], content: bytes
) -> Job:
    now = datetime.now(UTC)
    job = f"{name}-{verb}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    metadata = {VERB: verb, EXPERIMENT: name, STORAGE: storage, "commit": git_commit() or "unknown"}
    client.submit(job, shlex.join(entry), content, metadata)
    return Job(job, verb, name, storage, "PENDING", started=now.timestamp())


def command(verb: str, client: Client, *words: str) -> str:
    """A command line for later."""
    return shlex.join(["python", "-m", "tuning", verb, *words, "--address", client.address])


def check_place(name: str | None, storage: str) -> None:
    """Refuses a name or a place that cannot be one.

    Raises:
        ConfigurationError: naming both, where both are wrong.
    """
    problems = problems_with(name, storage)
    if problems:
        raise ConfigurationError("submit", problems)
