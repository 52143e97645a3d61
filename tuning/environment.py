"""What a search ran in: versions, the commit, the machine; and what of it is different now."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from model.machine import usable_cores

#: Where code that is no checkout has its commit, beside the packages.
COMMIT = "COMMIT"
_PACKAGES = ("torch", "ray", "optuna", "wandb", "pandas", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What of this machine decides how trials run beside each other, and their last bits."""
    return {"cores": usable_cores(), "system": f"{platform.system()} {platform.machine()}"}


def git_commit() -> str | None:
    """The commit of the project's checkout, with ``+changes`` where files differ from it.

    Code that was sent to a cluster is no checkout; it has the commit in a file (`tuning.shipping`).
    """
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return result.stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        if Path(git("rev-parse", "--show-toplevel")).resolve() == root:
            commit = git("rev-parse", "HEAD")
            return commit + ("+changes" if git("status", "--porcelain", "-uno") else "")
    sent = root / COMMIT
    return (sent.read_text(encoding="utf-8").strip() or None) if sent.is_file() else None


def environment() -> dict[str, Any]:
    """All of it, as a manifest has it."""
    return {"commit": git_commit(), "versions": versions(), "machine": machine()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, one line each.

    Args:
        then: As `environment` gives it; the manifest of an older version may lack some of it.
        now: Likewise.
    """
    return [
        f"{name}: was {_said(old)}, is {_said(new)}"
        for name, old, new in _pairs(then, now)
        if old != new
    ]


def _pairs(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "commit", then.get("commit"), now.get("commit")
    for group in ("versions", "machine"):
        before, after = then.get(group) or {}, now.get(group) or {}
        for name in dict.fromkeys([*before, *after]):
            yield name, before.get(name), after.get(name)


def _said(value: Any) -> str:
    return "not known" if value is None else str(value)
