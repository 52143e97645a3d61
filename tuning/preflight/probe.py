"""What is found out on a node: by the driver about its own, and by a small task on each other.

Nothing heavy is imported here: a node should answer within a second.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.files import reason_of
from tuning.environment import versions
from tuning.storage.place import AnyPath, place
from tuning.storage.remote_path import RemotePath

#: The driver's own name among those who write into the storage.
DRIVER = "driver"
_SHM = Path("/dev/shm")
#: A network file system may show a new file a little later.
_PATIENCE = 2.0
_FETCH_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What a node says of itself; sizes in bytes.

    Attributes:
        versions: Of Python and of packages, as `tuning.environment.versions` gives them.
        there: Whether the storage is a directory there.
        shared: Whether it holds what the driver wrote.
        storage_problem: Why it could not be written and read back.
        storage_free: Free where the storage is.
        temporary: Ray's directory for temporary files, and what its disk has free.
        temporary_free: Likewise.
        shm_free: Free in /dev/shm.
        shm_size: Size of /dev/shm.
        store: Directory of the object store, where that could be told.
        fetch_problem: Why an object of the driver's could not be had.
        gpus: What torch sees; None where it was not asked.
    """

    versions: dict[str, str]
    there: bool
    shared: bool
    storage_problem: str | None
    storage_free: int
    temporary: str
    temporary_free: int
    shm_free: int
    shm_size: int
    store: str | None
    fetch_problem: str | None
    gpus: int | None


def mail_file(storage: AnyPath, token: str, name: str) -> AnyPath:
    """The hidden file that a node, or the driver, writes into the storage."""
    return storage / f".preflight-{token}-{name}"


def probe(
    mail: Sequence[Any], storage: str, token: str | None, name: str, *, count_gpus: bool = False
) -> NodeFacts:
    """Looks at the node that it runs on; runs as a task of Ray.

    Args:
        mail: One reference to an object of the driver's; in a list, so that Ray leaves it to us
            to fetch it.
        storage: Directory of experiments, or of one.
        token: What the driver wrote there, into its `mail_file`; None leaves the storage alone.
        name: The node's id, or `DRIVER`.
        count_gpus: Whether torch is asked; loading it takes seconds.
    """
    directory = place(storage)
    fetch_problem = _fetch(mail)
    there, shared = isinstance(directory, RemotePath) or directory.is_dir(), False
    problem = None
    if there and token is not None:
        drivers, own = mail_file(directory, token, DRIVER), mail_file(directory, token, name)
        if isinstance(directory, RemotePath):  # the reason comes first, and each try takes a while
            problem = write_and_read(own, token, keep=True)
        shared = problem is None and name != DRIVER and _sees(drivers, token)
        if not isinstance(directory, RemotePath):
            problem = write_and_read(own, token, keep=shared or name == DRIVER)
        if shared and not _exists(drivers):  # the driver waits for us no longer
            remove_mail(storage, token, name)
    temporary = _temporary()
    return NodeFacts(
        versions=versions(),
        there=there,
        shared=shared,
        storage_problem=problem,
        storage_free=_free(directory)[0],
        temporary=str(temporary),
        temporary_free=_free(temporary)[0],
        shm_free=_free(_SHM)[0],
        shm_size=_free(_SHM)[1],
        store=_store(),
        fetch_problem=fetch_problem,
        gpus=_gpus() if count_gpus else None,
    )


def _fetch(mail: Sequence[Any]) -> str | None:
    """Fetches the driver's object; afterwards the object store is mapped into our memory."""
    import ray

    try:
        ray.get(list(mail), timeout=_FETCH_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return f"it did not come within {_FETCH_SECONDS:g} s"
    except ray.exceptions.RayError as error:
        return str(error).splitlines()[0]
    return None


def _exists(file: AnyPath) -> bool:
    with suppress(OSError):
        return file.exists()
    return False


def _sees(file: AnyPath, token: str) -> bool:
    until = time.monotonic() + _PATIENCE
    while True:
        with suppress(OSError):
            if file.read_text(encoding="utf-8") == token:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)


def write_and_read(file: AnyPath, token: str, *, keep: bool = False) -> str | None:
    """Writes a file and reads it back; says why that was not possible."""
    try:
        if isinstance(file, RemotePath):
            file.write(token.encode())
        else:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(token)
                opened.flush()
                os.fsync(opened.fileno())
        if file.read_text(encoding="utf-8") != token:
            return "what was written reads back as something else"
    except OSError as error:
        keep = False
        return reason_of(error)
    finally:
        if not keep:
            with suppress(OSError):
                file.unlink()
    return None


def remove_mail(storage: str, token: str, name: str) -> None:
    """Removes what a node wrote; runs there where the driver does not see it."""
    with suppress(OSError):
        mail_file(place(storage), token, name).unlink()


def _temporary() -> Path:
    import ray

    node = ray._private.worker._global_node
    return Path(node.get_session_dir_path()) if node is not None else Path("/")


def _free(path: AnyPath) -> tuple[int, int]:
    """Bytes free, and in all, where a path is, or where it would be made.

    What knows no size, as object stores and some file systems on networks, is taken for large.
    """
    if isinstance(path, RemotePath):
        return sys.maxsize, sys.maxsize
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        usage = shutil.disk_usage(path)
    except OSError:
        return sys.maxsize, sys.maxsize
    return (usage.free, usage.total) if usage.total else (sys.maxsize, sys.maxsize)


def _store() -> str | None:
    """Where Ray keeps what processes share, from the maps of our memory."""
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            path = line.split(maxsplit=5)[-1]
            if path.startswith("/") and "/plasma" in path:
                return str(Path(path.removesuffix(" (deleted)")).parent)
    return None


def _gpus() -> int | None:
    """GPUs that torch sees; None where Ray hides them from a task that asks for none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count())
