"""Random numbers from named streams of (seed, stream, iteration), never from global state.

Whatever happened before, and however often a run was interrupted, iteration 700 draws the same
batch, the same dropout masks and the same teacher-forcing decision. A resumed run therefore needs
no saved random state beyond its seed and iteration, and two runs never disturb one another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_BITS = 63


def stream_seed(seed: int, stream: str, iteration: int = 0) -> int:
    """A seed in [0, 2**63) for one stream at one iteration; the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{stream}/{iteration}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _BITS)


def uniform(seed: int, stream: str, iteration: int = 0) -> float:
    """One number drawn uniformly from [0, 1)."""
    return stream_seed(seed, stream, iteration) / float(1 << _BITS)


def generator(
    seed: int, stream: str, iteration: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator on a device, at the start of its stream."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream, iteration))


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules built inside take their initial weights from the stream ``weights``.

    Torch initialises modules from its global CPU generator, which is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "weights"))
        yield
