"""Aliases of a named model, and their history: what each stood for, and since when.

``registry/NAME/aliases.json`` holds both, so that they are written in one step. Format 1 had no
history; it begins with what such a file says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from analysis.promotion.locks import one_at_a_time
from model.errors import ModelDirectoryError
from model.files import atomic_write
from model.model_directory import ALIASES_FORMAT, canonical_json, read_aliases, verify, versions
from model.validation import did_you_mean

#: What a bare NAME stands for.
PRODUCTION = "production"
SET = "set"
ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class Move:
    """One change of an alias.

    Attributes:
        alias: Which alias.
        version: What it has stood for since.
        action: ``set``, or ``rolled back`` to what it stood for before.
        time: When, UTC; None where it was before the history was kept.
    """

    alias: str
    version: int
    action: str
    time: str | None


def read_history(home: Path) -> list[Move]:
    """The changes of a named model's aliases, the oldest first.

    Raises:
        ModelDirectoryError: where the file is damaged or of a newer format.
    """
    aliases = read_aliases(home)
    moves = _read_moves(home / "aliases.json")
    for alias, version in sorted(aliases.items()):
        if _stood_for(moves, alias)[-1:] != [version]:  # an old format, or written by hand
            moves.append(Move(alias, version, SET, None))
    return moves


def _read_moves(file: Path) -> list[Move]:
    if not file.exists():
        return []
    try:
        rows = json.loads(file.read_text(encoding="utf-8")).get("history", [])
        return [Move(**row) for row in rows]
    except (ValueError, TypeError, AttributeError):
        raise ModelDirectoryError(f"{file}: is damaged.") from None


def _stood_for(moves: Sequence[Move], alias: str) -> list[int]:
    """The versions that an alias stood for, the present one last; rolling back takes one away."""
    stack: list[int] = []
    for move in moves:
        if move.alias != alias:
            continue
        if move.action == ROLLED_BACK and len(stack) > 1:
            stack.pop()
        else:
            stack.append(move.version)
    return stack


def set_alias(home: Path, alias: str, version: int) -> None:
    """Lets an alias of a named model stand for one of its versions.

    Raises:
        ModelDirectoryError: where there is no such version.
        StorageError: where it cannot be written.
    """
    with one_at_a_time(home):
        set_alias_locked(home, alias, version)


def set_alias_locked(home: Path, alias: str, version: int) -> None:
    """As `set_alias`, for those who are in `one_at_a_time` already."""
    if version not in versions(home):
        raise ModelDirectoryError(f"{home}: has no version {version}.")
    if read_aliases(home).get(alias) != version:
        _move(home, alias, version, SET)


def roll_back(home: Path, alias: str = PRODUCTION) -> tuple[int, int]:
    """Lets an alias stand again for the version that it stood for before; repeat to go further.

    The version is verified first.

    Args:
        home: ``registry/NAME``.
        alias: Which alias.

    Returns:
        The version it stood for, and the one it stands for now.

    Raises:
        ModelDirectoryError: where there is no such alias, nothing before, or that is damaged.
        StorageError: where it cannot be written.
    """
    with one_at_a_time(home):
        aliases = read_aliases(home)
        if alias not in aliases:
            raise ModelDirectoryError(
                f"{home.name}: has no alias {alias!r}{did_you_mean(alias, aliases)}"
            )
        stack = _stood_for(read_history(home), alias)
        if len(stack) < 2:
            raise ModelDirectoryError(
                f"{home.name}@{alias}: stood for no version before {stack[-1]}; "
                "there is nothing to go back to."
            )
        was, before = stack[-1], stack[-2]
        if before not in versions(home):
            raise ModelDirectoryError(
                f"{home.name}@{alias}: stood for version {before} before, which is gone; choose "
                f"another: python -m analysis models alias {home.name}:VERSION {alias}"
            )
        verify(home / str(before))
        _move(home, alias, before, ROLLED_BACK)
    return was, before


def _move(home: Path, alias: str, version: int, action: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    moves = [*read_history(home), Move(alias, version, action, now)]
    content = {
        "format": ALIASES_FORMAT,
        "aliases": read_aliases(home) | {alias: version},
        "history": [asdict(move) for move in moves],
    }
    atomic_write(home / "aliases.json", canonical_json(content))
