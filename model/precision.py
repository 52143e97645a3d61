"""Which numbers a trial computes with, and what its processor is told.

``fp32``  plain 32-bit floating point everywhere
``tf32``  on an NVIDIA GPU, products of fp32 numbers with 10 bits of mantissa; elsewhere as fp32
``bf16``  products, GRU gates and states in bfloat16 (8 bits); weights, optimizer, attention and
          loss in fp32. Works everywhere, and is fast where the processor knows it
``auto``  bf16 where the processor knows it (AVX512-BF16 or AMX; a GPU of compute capability 8 or
          newer), else fp32

Held-out losses are always computed in fp32, so that trials can be compared whatever they train in.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a training step's products and states.

    Args:
        precision: ``auto``, ``fp32``, ``tf32`` or ``bf16``.
        device: Where it runs.
    """
    if precision == "auto":
        precision = "bf16" if _knows_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _knows_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def set_tf32(allowed: bool) -> None:
    """Lets a GPU use TF32 for products of fp32 numbers, or not; torch's own default is mixed."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


#: Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 2**31 - 1
_GROWN_BY_BYTES = 64 * 2**20
#: The most that glibc accepts: larger blocks always come from the system and go back to it.
_LARGEST_KEPT_BYTES = 32 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, instead of giving it back to the system.

    A training step allocates and frees some hundred MB. By default glibc returns large blocks at
    once, and the kernel has to clear every page again when it is touched next: about a tenth of the
    time of a step on the CPU.

    Returns:
        Whether the C library is one that can be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    options = {
        _M_MMAP_THRESHOLD: _LARGEST_KEPT_BYTES,
        _M_TRIM_THRESHOLD: _KEPT_BYTES,
        _M_TOP_PAD: _GROWN_BY_BYTES,
    }
    accepted = [library.mallopt(option, value) == 1 for option, value in options.items()]
    return all(accepted)
