"""What a trial may take of its GPU, what is said when that is not enough, and giving it back."""

from __future__ import annotations

import gc
import re
from contextlib import suppress

import torch

from model.errors import GpuMemoryError
from tuning.journal.row import OUT_OF_GPU_MEMORY

#: Of a trial's part of a GPU, what is left for CUDA's context and the libraries' kernels: a few
#: hundred MiB for every process, which torch's allocator does not count.
CONTEXT = 600 * 2**20
#: Left besides, of that part: the driver keeps some of a GPU for itself.
_SPARE = 0.03
#: Beside torch's own error, what its libraries say.
_SAID = ("CUDA out of memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
_TRIED = re.compile(r"Tried to allocate ([\d.]+ [KMGT]?i?B)")


def share(gpus: float, total: int) -> int | None:
    """Bytes that torch may take for a trial's tensors, its reserve included.

    Args:
        gpus: What the trial holds; from 1 on the GPU is its own.
        total: Bytes of the GPU.

    Returns:
        None where nothing limits it.
    """
    if not 0 < gpus < 1:
        return None
    part = gpus * total * (1 - _SPARE)
    return int(max(part - CONTEXT, part / 2))


def keep_to_share(device: torch.device, gpus: float) -> None:
    """Holds this process to its share of a GPU that trials pack.

    So a trial that wants more than its share fails itself, and not the one beside it that asks for
    memory next. Before it fails, torch gives back what it only keeps in reserve.
    """
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = share(gpus, total)
    fraction = 1.0 if allowed is None else allowed / total
    torch.cuda.set_per_process_memory_fraction(fraction, device)


def memory_error(error: BaseException | None) -> BaseException | None:
    """The error that says a GPU's memory is used up, itself or what led to it; or None.

    Libraries say so in words alone; and where memory runs out while a step is recorded, what
    is raised in the end is that the recording failed.
    """
    while error is not None:
        said = isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)
        if said or isinstance(error, torch.cuda.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def tried_to_allocate(text: str) -> str:
    """``, tried to allocate 2.00 GiB more``, where an error's text says so; else nothing."""
    found = _TRIED.search(text)
    return f", tried to allocate {found.group(1)} more" if found else ""


def out_of_memory(error: BaseException, gpus: float) -> GpuMemoryError:
    """The same in our words: how much there was, and what would help.

    Args:
        error: A `memory_error`.
        gpus: What the trial holds.
    """
    had = "all it may have"
    with suppress(RuntimeError, AssertionError):  # CUDA may answer nothing any more
        had = _had(gpus)
    shared = ", or raise --gpus-per-trial" if 0 < gpus < 1 else ""
    return GpuMemoryError(
        f"{OUT_OF_GPU_MEMORY}: needs more than {had}{tried_to_allocate(str(error))}; lower "
        f"batch_size or hidden_size{shared}."
    )


def _had(gpus: float) -> str:
    """What this process could have had: its share, or what others left of it."""
    free, total = torch.cuda.mem_get_info()
    left, allowed = free + torch.cuda.memory_reserved(), share(gpus, total)
    had = left if allowed is None else min(left, allowed)
    part = f", its share of {gib(total)}" if allowed is not None else ""
    return f"{gib(had)} of {torch.cuda.get_device_name()}{part}"


def give_back() -> None:
    """Gives back to the GPU what nothing in this process uses any more.

    A recorded training step refers to itself, so that only a collection frees it; on the CPU
    nothing does, and the tenth of a second that a collection takes is spared.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    gc.collect()
    with suppress(RuntimeError):  # of a GPU that failed: the next trial will say it
        torch.cuda.empty_cache()


def gib(count: int) -> str:
    """Bytes as torch and ``nvidia-smi`` say them: 23.6 GiB."""
    return f"{count / 2**30:.3g} GiB"
