"""Who drives an experiment on an object store: one driver at a time, on whatever machine.

An object store has no locks. A driver writes who it is, and a number that it counts up as long as
it lives (a lease, Gray & Cheriton 1989, "Leases: An Efficient Fault-Tolerant Mechanism for
Distributed File Cache Consistency"). Another one takes over only when the number has stood still
for longer than it ever should, by its own clock: the machines' clocks need not agree.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace

from model.errors import ExperimentError
from tuning.storage.file_lock import this_process
from tuning.storage.remote_path import RemotePath

SESSION = "session.json"
#: Seconds between two beats, and after how long without one a driver is taken for dead.
BEAT_SECONDS, DEAD_SECONDS = 10.0, 45.0
_LOOK_SECONDS = 1.0
#: Longer than a request takes, so that of two who write at the same time one sees the other's.
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Session:
    """One driver's time with an experiment.

    Attributes:
        token: Of this session alone.
        owner: Host and process, in words.
        beat: Counted up as long as it lives.
        number: Of all sessions of the experiment, from 1.
        ended: Whether it ended in good order.
    """

    token: str
    owner: str
    beat: int = 0
    number: int = 1
    ended: bool = False


def read_session(experiment: RemotePath) -> Session | None:
    """The newest session of an experiment; None where there was none.

    Raises:
        OSError: where it cannot be read.
    """
    try:
        return Session(**json.loads((experiment / SESSION).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise ExperimentError(f"{experiment / SESSION}: cannot be read; remove it.") from None


def write_session(experiment: RemotePath, session: Session) -> None:
    """Makes a session the newest.

    Raises:
        OSError: where it cannot be written.
    """
    (experiment / SESSION).write(json.dumps(asdict(session)).encode())


def new_session() -> Session:
    """A session of this process."""
    return Session(secrets.token_hex(8), this_process())


def begin_session(
    experiment: RemotePath, session: Session, found: Session | None, own: str | None
) -> Session:
    """Takes the right to drive an experiment.

    Args:
        experiment: The experiment.
        session: The one to begin.
        found: Its newest session.
        own: Token of this machine's own last session, which has died: another would hold the
            copy's lock.

    Raises:
        ExperimentError: where another driver has it.
        OSError: where the object store does not answer.
    """
    if found is not None and not found.ended and found.token not in (own, session.token):
        print(f"note: {found.owner} ran this search; is it alive? {DEAD_SECONDS:g} s", flush=True)
        _wait_for_death(experiment, found)
    session = replace(session, number=1 if found is None else found.number + 1)
    write_session(experiment, session)
    if found is not None:  # two may have waited for the same death
        time.sleep(_SETTLE_SECONDS)
        check_ours(experiment, session)
    return session


def _wait_for_death(experiment: RemotePath, found: Session) -> None:
    until = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        now = read_session(experiment)
        if now is None or now.ended:
            return
        if now != found:
            raise ExperimentError(f"{experiment}: is being run by {now.owner}.")


def is_alive(experiment: RemotePath) -> bool:
    """Whether a driver seems to live, by the age of its last beat; the clocks should agree."""
    session = read_session(experiment)
    if session is None or session.ended:
        return False
    for path, info in experiment.walk(recursive=False):
        if path.name == SESSION and info.mtime is not None:
            return bool(time.time() - info.mtime.timestamp() < DEAD_SECONDS)
    return False


def check_ours(experiment: RemotePath, session: Session) -> None:
    """Refuses to go on where another driver has taken over: it took us for dead.

    Raises:
        ExperimentError: saying who has.
        OSError: where the object store does not answer.
    """
    found = read_session(experiment)
    if found is not None and found.token != session.token:
        raise ExperimentError(
            f"{experiment}: was taken over by {found.owner}, for nothing was heard of this driver "
            f"for a while; what it did since is not kept."
        )


def beat(experiment: RemotePath, session: Session) -> Session:
    """Says that a session lives.

    Raises:
        ExperimentError: as `check_ours`.
        OSError: where the object store does not answer.
    """
    check_ours(experiment, session)
    session = replace(session, beat=session.beat + 1)
    write_session(experiment, session)
    return session
