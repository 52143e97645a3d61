"""The agent: waits for the notice, and lets the node's trials leave.

python -m tuning watch-preemption                      beside `ray start`, on spot machines
python -m tuning watch-preemption --now --deadline 60  where somebody else says that it is over
python -m tuning watch-preemption --check              before `ray start`: may it start here at all?
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from tuning.preemption.marks import Mark, leave_mark
from tuning.preemption.metadata import (
    ENDPOINT,
    ENDPOINT_VARIABLE,
    NOTICE_SECONDS,
    AnswerError,
    AwayError,
    MetadataService,
    Notice,
)
from tuning.preemption.node import Cluster, RayError

DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"
#: Amazon's advice: ask so often (seconds).
POLL_SECONDS = 5.0
#: Tries at the beginning, a second apart, before a machine counts as one without the service.
_FIRST_TRIES = 5
#: Seconds for which Ray is tried with ``--now``.
_PATIENCE_NOW = 20.0


def _say(text: str) -> None:
    print(f"watch-preemption: {text}", file=sys.stderr, flush=True)


def act(
    notice: Notice,
    cluster: Cluster,
    *,
    patience: float = NOTICE_SECONDS,
    say: Callable[[str], None] = _say,
    pause: Callable[[float], None] = time.sleep,
) -> str | None:
    """Leaves the mark and lets Ray drain the node.

    Args:
        notice: What is about to happen.
        cluster: Is told.
        patience: Seconds for which that is tried, at most until the notice's time is over.
        say: Hears what happens.
        pause: Waits.

    Returns:
        The node, or None where Ray could not be told in time.
    """
    say(f"{notice.what} in {notice.seconds:.0f} s")
    until, said, node = time.monotonic() + min(notice.seconds, patience), "", None
    while True:
        try:
            node = node or cluster.own_node()
            leave_mark(node, Mark(leave=False))
            cluster.drain(node, notice)
            leave_mark(node, Mark(leave=True))
        except (RayError, OSError) as error:
            if str(error) != said:
                said = str(error)
                say(f"{said}; trying again")
        else:
            say(f"Ray drains node {node}; its trials go on elsewhere from their next report")
            return node
        if time.monotonic() >= until:
            return None
        pause(1.0)


def watch(
    service: MetadataService,
    *,
    say: Callable[[str], None] = _say,
    pause: Callable[[float], None] = time.sleep,
) -> Notice | None:
    """Waits for the notice.

    Returns:
        None where there will never be one: the machine has no metadata service, or it is not a
        spot instance.
    """
    kind = _life_cycle(service, say, pause)
    if kind is None or kind == "on-demand":
        return None
    say(f"a {kind or 'cloud'} machine; waiting for a notice of its end from {service.endpoint}")
    said = ""
    while True:
        try:
            notice = service.notice()
        except (AwayError, AnswerError) as error:
            if str(error) != said:
                said = str(error)
                say(f"{said}; trying again")
        else:
            said = ""
            if notice is not None:
                return notice
        pause(POLL_SECONDS)


def _is_disabled() -> bool:
    return os.environ.get(DISABLED_VARIABLE, "").lower() == "true"


def _life_cycle(
    service: MetadataService, say: Callable[[str], None], pause: Callable[[float], None]
) -> str | None:
    """What kind of instance this is; None where it is none."""
    if _is_disabled():
        say(f"{DISABLED_VARIABLE} is set: there is nothing to watch")
        return None
    problem: Exception | None = None
    for attempt in range(_FIRST_TRIES):
        if attempt:
            pause(1.0)
        try:
            kind = service.life_cycle()
        except (AwayError, AnswerError) as error:
            problem = error
            continue
        if kind == "on-demand":
            say("an on-demand machine: it is not taken back, there is nothing to watch")
        return kind
    say(f"{problem}: there is nothing to watch")
    return None


def is_taken_back(service: MetadataService, *, say: Callable[[str], None] = _say) -> bool:
    """Whether a notice stands: Ray has nothing to start here any more.

    Returns:
        False too where the service does not answer: most machines without it are nobody's to take.
    """
    if _is_disabled():
        return False
    try:
        notice = service.notice()
    except (AwayError, AnswerError):
        return False
    if notice is not None:
        say(f"{notice.what} in {notice.seconds:.0f} s: start nothing here")
    return notice is not None


def wait_left(
    node: str, cluster: Cluster, seconds: float, *, pause: Callable[[float], None] = time.sleep
) -> bool:
    """Waits until a node that is drained has left the cluster, its trials having ended there.

    Returns:
        Whether it has, within the time.
    """
    until = time.monotonic() + seconds
    while cluster.is_alive(node):
        if time.monotonic() >= until:
            return False
        pause(0.5)
    return True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--check",
        action="store_true",
        help="do not watch: say only whether the machine is being taken back (exit status 1), "
        "before Ray is started there",
    )
    when.add_argument(
        "--now",
        action="store_true",
        help="do not watch: the machine is over (a Kubernetes preStop hook, ExecStop of systemd, a "
        "signal from Slurm); ends when the node has left the cluster, or at the deadline",
    )
    parser.add_argument(
        "--deadline",
        type=_seconds,
        default=NOTICE_SECONDS,
        metavar="SECONDS",
        help="with --now, how long the machine has left (%(default)g)",
    )
    parser.add_argument(
        "--address",
        default="auto",
        metavar="HOST:PORT",
        help="of the cluster's head; default what 'ray start' joined on this machine",
    )
    parser.add_argument(
        "--node-id", metavar="ID", help="Ray's id of the node, where this machine has several"
    )


DESCRIPTION = (
    "Runs on a node of the cluster, beside 'ray start'. When the cloud says that it takes the "
    "machine back, Ray places nothing new there, and every trial there writes a checkpoint at its "
    "next report and goes on elsewhere. Watches the metadata service of EC2 "
    f"({ENDPOINT_VARIABLE}, else {ENDPOINT}); on a machine without one, or one on demand, it says "
    "so and ends."
)
EPILOG = "example: nohup python -m tuning watch-preemption > watch-preemption.log 2>&1 &"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, but got {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Watches, or acts at once; 1 where Ray could not be told, or trials were left there.

    With ``--check`` it is 1 where the machine is being taken back.
    """
    if arguments.check:
        return 1 if is_taken_back(MetadataService()) else 0
    cluster = Cluster(arguments.address, arguments.node_id)
    if not arguments.now:
        notice = watch(MetadataService())
        return 0 if notice is None or act(notice, cluster) is not None else 1
    notice = Notice("this machine is about to be ended", time.monotonic() + arguments.deadline)
    # A cluster that is being deleted has lost its head already.
    node = act(notice, cluster, patience=_PATIENCE_NOW)
    if node is None:
        return 1
    left = wait_left(node, cluster, notice.seconds)
    _say("the node has left the cluster" if left else "the time is over; trials are left there")
    return 0 if left else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command where the rest of the project is not."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.preemption", description=DESCRIPTION, epilog=EPILOG
    )
    add_options(parser)
    return run(parser.parse_args(argv))
