"""Steps under the PyTorch profiler: timed without it first, then recorded.

Nothing is measured of the first steps. Then come steps without the profiler, which give the time of
a step, then one that warms the profiler up, and then those that are recorded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from analysis.profiling.components import component_of_events, marked
from analysis.profiling.figures import Recorded, kernel_events
from analysis.profiling.native_log import native_log_filtered
from analysis.profiling.trace import Trace
from model.seq2seq import Seq2Seq

#: Steps that nothing is measured of, before anything is.
WARM_UP = 3
_MEMORY_EVENT = "[memory]"


@dataclass(frozen=True)
class Work:
    """What is profiled.

    Attributes:
        name: Of the range of a step.
        step: Does it once.
        net: The model within.
        device: Where it runs.
        unrecorded: Makes a block within which a GPU runs a step operator by operator, instead of a
            recorded CUDA graph.
        resident: The tensors that outlive a step.
    """

    name: str
    step: Callable[[], Any]
    net: Seq2Seq
    device: torch.device
    unrecorded: Callable[[], AbstractContextManager[None]]
    resident: Callable[[], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What was measured.

    Attributes:
        step_ms: Median time of a step without the profiler.
        real: The recorded steps as they run.
        by_operator: The same launched operator by operator; on the CPU there is no difference.
        trace: Of `real`.
        peak_bytes: The most that tensors held at once.
        resident_bytes: What of it is there all the time.
    """

    step_ms: float
    real: Recorded
    by_operator: Recorded
    trace: Trace
    peak_bytes: int
    resident_bytes: int


def record(work: Work, steps: int, *, progress: bool = False) -> Recording:
    """Measures so many steps, and records as many more."""
    on_gpu = work.device.type == "cuda"
    passes = 2 if on_gpu else 1
    total = WARM_UP + steps + passes * (1 + steps)
    with native_log_filtered() as terminal, _bar(total, work.name, terminal, progress) as bar:
        for _ in range(WARM_UP):
            _timed(work, bar)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(work.device)
        seconds = [_timed(work, bar) for _ in range(steps)]
        allocated = torch.cuda.max_memory_allocated(work.device) if on_gpu else 0
        resident = bytes_of(work.resident())
        real, trace, growth = _record(work, steps, bar)
        by_operator = real
        if on_gpu:
            with work.unrecorded():
                by_operator, _, _ = _record(work, steps, bar)
    return Recording(
        step_ms=1000 * statistics.median(seconds),
        real=real,
        by_operator=by_operator,
        trace=trace,
        peak_bytes=allocated if on_gpu else resident + growth,
        resident_bytes=resident,
    )


def _timed(work: Work, bar: Any) -> float:
    """Seconds of one step, the device waited for."""
    _wait(work.device)
    started = time.perf_counter()
    work.step()
    _wait(work.device)
    seconds = time.perf_counter() - started
    bar.update()
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _record(work: Work, steps: int, bar: Any) -> tuple[Recorded, Trace, int]:
    """So many steps under the profiler, after one that warms it up.

    Returns:
        The events, the trace, and the most that tensors held on the CPU beyond what was there.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if work.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with (
        marked(work.net) as marks,
        torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1),
            record_shapes=True,
            profile_memory=True,
        ) as profiler,
    ):
        for _ in range(1 + steps):
            with torch.profiler.record_function(work.name):
                work.step()
                _wait(work.device)
            bar.update()
            profiler.step()
    events = profiler.events()
    placed = component_of_events(events, marks)
    recorded = Recorded(placed, kernel_events(events), work.name, steps)
    return (
        recorded,
        Trace(profiler, [(p.event, p.place) for p in recorded.inside]),
        _peak_growth(profiler),
    )


def _peak_growth(profiler: torch.profiler.profile) -> int:
    """The most that tensors on the CPU held at once, of what was allocated while recording."""
    raw: Any = profiler.profiler
    found = [
        event
        for event in raw.kineto_results.events()
        if event.name() == _MEMORY_EVENT and event.device_type() == DeviceType.CPU
    ]
    return peak_of([event.nbytes() for event in sorted(found, key=lambda e: e.start_ns())])


def peak_of(changes: Sequence[int]) -> int:
    """The highest running sum of bytes taken (positive) and given back (negative)."""
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    return peak


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Of their storages, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _bar(total: int, name: str, terminal: IO[Any], progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc=name, file=terminal, disable=None if progress else True, leave=False
    )
