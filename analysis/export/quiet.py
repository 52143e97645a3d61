"""The warnings of torch that an export knows about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.jit._trace import TracerWarning


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what torch says of TorchScript and eager quantisation: that they are deprecated.

    `docs/export.md` says so too, with what to use in their place; nothing else is silenced.
    """
    with warnings.catch_warnings():
        for name in ("script", "script_method", "trace", "trace_method", "save", "load"):
            pattern = rf"`torch\.jit\.{name}` is (deprecated|not supported in Python 3\.14)"
            warnings.filterwarnings("ignore", pattern, DeprecationWarning)
        pattern = r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other"
        warnings.filterwarnings("ignore", pattern, UserWarning)
        # A trace notes that torch's GRU checks the sizes of its inputs, which it goes without.
        for pattern in ("Converting a tensor to a Python", "Using len to get tensor shape"):
            warnings.filterwarnings(
                "ignore", pattern, TracerWarning, r"torch\.nn\.(modules|utils)\.rnn"
            )
        yield
