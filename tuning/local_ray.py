"""A Ray that is started on this machine: for our code, and out of everybody else's reach."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import ResourceError

#: Where our packages lie.
ROOT = Path(__file__).resolve().parents[1]
#: Users that want to decide themselves say so by this; Ray reads it too.
_PLACE = "RAY_TMPDIR"
_ADVICE = f"remove it, or set {_PLACE} to a directory that is yours alone, with a short name."


def sessions() -> Path:
    """Where the Rays that searches of this user start keep their files; it may not exist.

    Only the directory above it keeps others out, for Ray opens its own to everybody. Both names are
    short: the paths of Ray's sockets may have 107 bytes.
    """
    usual = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None  # as Ray has it
    return Path(usual or "/tmp", f"ray-{os.getuid()}", "s")


def private_options() -> dict[str, Any]:
    """Options of `ray.init` by which its files are for this user alone.

    By itself Ray lets every user of the machine write where its sockets and logs are. Where
    RAY_TMPDIR is set, that is left as it is.

    Raises:
        ResourceError: where the directory cannot be made, or is open to others.
    """
    if os.environ.get(_PLACE):
        return {}
    directory = sessions().parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = directory.lstat()
    except OSError as error:
        raise ResourceError(f"{directory}: cannot be made ({error.strerror}); {_ADVICE}") from None
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
        raise ResourceError(f"{directory}: is not for you alone; {_ADVICE}")
    return {"_temp_dir": str(sessions())}


@contextmanager
def here() -> Iterator[None]:
    """What a Ray that is started on this machine needs: our code, and nobody else."""
    with _importable(), on_loopback():
        yield


@contextmanager
def on_loopback() -> Iterator[None]:
    """Lets a Ray that is started here listen on the loopback address alone.

    Ray replaces 127.0.0.1 in its own option by the address that other machines know, and listens
    on all of them, but for where it has no clusters: that is what it is told here.
    """
    from ray._private import ray_constants

    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    variable = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if variable is None:
            del os.environ[name]
        else:
            os.environ[name] = variable


@contextmanager
def _importable() -> Iterator[None]:
    """Lets the processes of a Ray that is started here import our packages where they lie.

    Shipping them, as to a cluster, would let Ray start every worker anew, seconds later.
    """
    name, before = "PYTHONPATH", os.environ.get("PYTHONPATH")
    os.environ[name] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
