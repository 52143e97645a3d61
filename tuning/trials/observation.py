"""What a worker is and what a trial takes there: device, kind of machine, memory at its peak."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from model.machine import peak_memory
from tuning.storage.place import AnyPath
from tuning.worker_logs import heading

_MB = 1e6
#: Writing 5 there lets Linux forget the process's peak of resident memory, see proc(5).
_CLEAR_REFS = Path("/proc/self/clear_refs")
#: Of a node: its type in a cluster file or a Kubernetes group, else the model of its GPUs.
_TYPE_LABELS = ("ray.io/node-group", "ray.io/accelerator-type")


def announce(experiment: AnyPath, trial: int, attempt: int) -> None:
    """Writes a line before what this process writes for an attempt, see `tuning.worker_logs`."""
    for stream in (sys.stdout, sys.stderr):
        print(heading(experiment, trial, attempt), file=stream, flush=True)


def reset_peaks(device: torch.device) -> None:
    """Begins anew to look for the peaks, as far as the system lets us.

    Elsewhere the peak stays that of the process, of all trials it has had.
    """
    with suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    """Megabytes (1e6 bytes) at the peak since `reset_peaks`.

    Returns:
        ``peak_memory_mb``, resident memory of this process, and on a GPU ``peak_gpu_memory_mb``,
        what its tensors held there. What nobody knows is left out.
    """
    found = {"peak_memory_mb": peak_memory() / _MB}
    if device.type == "cuda":
        found["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / _MB
    return {name: value for name, value in found.items() if value > 0}


def device_name(device: torch.device) -> str:
    """``cpu``, or a GPU by its number on the machine and its model: ``cuda:3 NVIDIA H200``."""
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{_on_machine(index)} {torch.cuda.get_device_name(index)}"


def _on_machine(index: int) -> str:
    """The number, or identifier, that a GPU of ours has beyond what we may see."""
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[index] if index < len(visible) and visible[index] else str(index)


def worker_type() -> str | None:
    """The type of our node, as its cluster calls it; None where it has none, or without Ray."""
    import ray

    if not ray.is_initialized():
        return None
    labels = ray.get_runtime_context().get_node_labels()
    return next((str(labels[name]) for name in _TYPE_LABELS if labels.get(name)), None)
