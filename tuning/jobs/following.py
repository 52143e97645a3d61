"""Showing what a job prints, over connections that come and go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from model.cli import EXIT_INTERRUPTED
from model.errors import ResourceError
from tuning.jobs.client import GRACE_SECONDS, Client, Job
from tuning.jobs.submission import command

#: Seconds between attempts to reach the cluster again, and after which we no longer try.
RETRY_SECONDS = 5.0
PATIENCE_SECONDS = 1800.0
#: Seconds in which a job that has printed its last is said to be over.
REACTION_SECONDS = 60.0


def follow(client: Client, job: Job, show: Callable[[str], object] | None = None) -> Job:
    """Shows what a job prints until it is over, each part once.

    Args:
        client: Of the cluster.
        job: Which one.
        show: Takes the text; None for standard output.

    Returns:
        The job, over.

    Raises:
        ResourceError: where the cluster could not be reached for half an hour.
        ExperimentError: where it knows the job no more.
        KeyboardInterrupt: at Ctrl-C, which the job does not hear of.
    """
    tail = _Tail(show or _print)
    lost: float | None = None
    while True:
        try:
            for piece in client.log(job.id):
                lost = None
                tail.take(piece)
            return client.wait(job.id, REACTION_SECONDS)
        except ResourceError as error:
            tail.again()
            there = _silent_but_there(client, job)
            if lost is None:
                lost = time.monotonic()
                if not there:
                    print(f"connection lost, trying again: {error}", file=sys.stderr)
            elif time.monotonic() - lost > PATIENCE_SECONDS:
                raise
            time.sleep(RETRY_SECONDS)


def _silent_but_there(client: Client, job: Job) -> bool:
    """Whether the cluster answers, so that the job had only nothing to say."""
    try:
        client.job(job.id)
    except ResourceError:
        return False
    return True


class _Tail:
    """Each connection tells a log from its beginning: passes over what was shown already."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._shown = 0
        self._passed = 0

    def take(self, piece: str) -> None:
        """Shows what is new of a piece."""
        new = piece[max(0, self._shown - self._passed) :]
        self._passed += len(piece)
        if new:
            self._show(new)
            self._shown += len(new)

    def again(self) -> None:
        """A new connection is about to begin."""
        self._passed = 0


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def follow_and_report(client: Client, job: Job) -> int:
    """Follows a search, says how it ended and what can be done next; returns the exit status."""
    try:
        over = follow(client, job)
    except KeyboardInterrupt:
        print(f"\nno longer following; job {job.id} goes on\n{later(client, job)}")
        return EXIT_INTERRUPTED
    except ResourceError:
        print(f"the job may well go on\n{later(client, job)}", file=sys.stderr)
        raise
    return report(client, over)


def report(client: Client, job: Job) -> int:
    """Says how a search stands and what can be done next; returns the exit status."""
    name = job.experiment
    if not job.is_over:
        print(f"job {job.id}: {job.state}\n{later(client, job)}")
        return 0
    print(f"job {job.id}: {job.state}{_why(job)}")
    if job.state == "SUCCEEDED":
        print(f"fetch the results: {command('fetch', client, name)}")
        return 0
    print(f"go on: {command('submit', client, '--resume', name)}")
    return EXIT_INTERRUPTED if job.state == "STOPPED" else job.exit_code or 1


def _why(job: Job) -> str:
    """What Ray says of a job that failed, where its log does not say it."""
    if job.state != "FAILED":
        return ""
    if job.exit_code is not None:
        return f", exit status {job.exit_code}"
    return f": {job.message}"


def later(client: Client, job: Job) -> str:
    """The commands for a job that runs."""
    return (
        f"how it stands: {command('status', client, job.experiment)}\n"
        f"follow it: {command('status', client, job.experiment, '--follow')}\n"
        f"stop it: {command('stop', client, job.experiment)}\n"
        f"fetch results: {command('fetch', client, job.experiment)}"
    )


def stop(client: Client, job: Job) -> Job:
    """Stops a job as Ctrl-C would, and waits until it has ended.

    Raises:
        ResourceError: where the cluster does not say so in time.
    """
    client.stop(job.id)
    over = client.wait(job.id, GRACE_SECONDS + REACTION_SECONDS)
    if not over.is_over:
        raise ResourceError(f"{job.id}: still runs after {GRACE_SECONDS + REACTION_SECONDS:g} s.")
    return over
