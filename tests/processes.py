"""Processes and ports of this machine, for tests that start clusters."""

import socket
from contextlib import suppress
from pathlib import Path


def free_port() -> int:
    """A port of the loopback address that nobody has, a moment ago at least."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def with_settings(*settings: str) -> list[int]:
    """The processes whose environment has all of these, as ``NAME=value``.

    Whatever a process starts has inherited its settings; those that have ended have none.
    """
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            theirs = (directory / "environ").read_bytes().split(b"\0")
            if all(setting.encode() in theirs for setting in settings):
                found.append(int(directory.name))
    return found
