"""What the workers of a node see: a mark that its agent leaves on the machine."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mark:
    """What the workers of a node read.

    Attributes:
        leave: Whether trials are to give their places up; else they write checkpoints only.
    """

    leave: bool


def _place() -> Path:
    """The directory of the marks, which only this user may write."""
    return Path(tempfile.gettempdir()) / f"dialogue-tune-{os.geteuid()}" / "preempted"


def _is_safe(place: Path) -> bool:
    """Whether nobody else can write there, nor put another directory in its place."""
    for directory in (place.parent, place):
        there = directory.lstat()
        ours = stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid()
        if not ours or there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True


def leave_mark(node: str, mark: Mark) -> None:
    """Leaves a mark for the workers of a node, whole or not at all.

    Raises:
        OSError: where it cannot be written, or somebody else could.
    """
    place = _place()
    for directory in (place.parent, place):
        directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_safe(place):
        raise PermissionError(f"{place}: can be written by others; remove it")
    new = place / f".{node}.{os.getpid()}"
    new.write_text(json.dumps({"leave": mark.leave}), encoding="utf-8")
    new.replace(place / node)


def mark_of(node: str) -> Mark | None:
    """The mark of a node; None where there is none, or where somebody else could have left it.

    Where there is none, that is one look at a directory: cheap enough for every report.
    """
    place = _place()
    try:
        text = (place / node).read_text(encoding="utf-8")
        if not _is_safe(place):
            return None
        said = json.loads(text)
    except (OSError, ValueError):
        return None
    return Mark(leave=isinstance(said, dict) and said.get("leave") is True)


def own_mark() -> Mark | None:
    """The mark of the node that this process works on; None without Ray."""
    import ray

    return mark_of(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else None
