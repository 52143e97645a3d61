"""What figures of speed depend on: versions, processor, threads, GPU."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from model.machine import usable_cores


def environment(devices: Sequence[str], threads: int) -> dict[str, Any]:
    """The machine as measured, ready for JSON.

    Args:
        devices: ``cpu``, ``cuda`` or both.
        threads: Of the CPU.
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": _version("onnxruntime"),
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": threads,
    }
    if "cuda" in devices:
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
