"""The packed layout: ragged rows of tokens as one flat axis without (much) padding.

Positions are listed step by step, and within a step row by row, rows in falling order of length, as
in `torch.nn.utils.rnn.PackedSequence`; every step's positions are therefore one slice, and matrix
products over all positions compute no padding.

**Few shapes.** oneDNN generates code for every new shape of a matrix product, and the number of
tokens differs from batch to batch. The tight layout therefore rounds the rows of each step up to a
multiple of 8 and all positions to a multiple of 32, and says which positions are `real`.
``docs/speed.md`` has the measurement.

**Static** layouts hold every position of a padded batch, so that shapes depend on nothing but the
padded size, as CUDA graphs need. They are built on the device without waiting for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_STEP_MULTIPLE = 8
_TOTAL_MULTIPLE = 32

# Shapes: B rows of the batch, T steps, N positions.


@dataclass(frozen=True)
class Packing:
    """Where each token of a padded batch (B, T) lies in the packed layout.

    Attributes:
        sizes: Rows at each step, falling; their sum is N.
        order: (B,), the batch row of each packed row.
        flat: (N,), place of each position in the flattened padded batch.
        real: (N,), False at positions that are padding.
        mirror: (N,), the position that is as far from its row's end as this one from its start;
            a padding position mirrors itself.
        previous: (N - B,), one step before each position from the second step on.
        last: (B,), position of the last real token of each batch row.
        row_counts: (T,) float, real tokens at each step.
    """

    sizes: tuple[int, ...]
    order: Tensor
    flat: Tensor
    real: Tensor
    mirror: Tensor
    previous: Tensor
    last: Tensor
    row_counts: Tensor

    @classmethod
    def tight(cls, lengths: Tensor) -> Packing:
        """The layout with as little padding as few shapes allow.

        Args:
            lengths: (B,) on the CPU, real tokens of each row, at least 1.
        """
        order = lengths.argsort(descending=True, stable=True)
        falling = lengths[order]
        counts = (falling > torch.arange(int(falling[0])).unsqueeze(1)).sum(dim=1)  # (T,)
        sizes = _rounded(counts.tolist(), len(lengths))
        present = torch.arange(len(lengths)) < torch.tensor(sizes).unsqueeze(1)  # (T, B)
        steps, rows = present.nonzero(as_tuple=True)
        return cls._of(sizes, steps, rows, order=order, lengths=falling, counts=counts)

    @classmethod
    def static(cls, real: Tensor) -> Packing:
        """The layout that holds every position, in the order of the batch.

        Args:
            real: (B, T), True at real tokens, which come first in each row; at least one each.
        """
        rows, steps = real.shape
        every = torch.arange(rows * steps, device=real.device)
        return cls._of(
            (rows,) * steps,
            every // rows,
            every % rows,
            order=torch.arange(rows, device=real.device),
            lengths=real.sum(dim=1),
            counts=real.sum(dim=0),
        )

    @classmethod
    def _of(
        cls,
        sizes: Sequence[int],
        steps: Tensor,
        rows: Tensor,
        *,
        order: Tensor,
        lengths: Tensor,
        counts: Tensor,
    ) -> Packing:
        """From the step and packed row of each position (N,), and lengths by packed row (B,)."""
        b, t = len(order), len(sizes)
        positions = torch.zeros(t * b, dtype=torch.int64, device=order.device)
        positions[steps * b + rows] = torch.arange(len(steps), device=order.device)
        from_end = lengths[rows] - 1 - steps  # negative at padding
        real = from_end >= 0
        last = positions[(lengths - 1) * b + torch.arange(b, device=order.device)]
        return cls(
            sizes=tuple(sizes),
            order=order,
            flat=order[rows] * t + steps,
            real=real,
            mirror=positions[from_end.where(real, steps) * b + rows],
            previous=positions[(steps[b:] - 1) * b + rows[b:]],
            last=torch.empty_like(last).scatter_(0, order, last),
            row_counts=counts.to(torch.float32),
        )

    @property
    def step_weights(self) -> Tensor:
        """(N,), 1 / the real tokens at the position's step; 0 at padding."""
        return (1.0 / self.row_counts.clamp(min=1))[self.flat % len(self.sizes)] * self.real

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.flat)

    def pad(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), 0 where no position is."""
        shape = (len(self.order), len(self.sizes), *packed.shape[1:])
        flat = packed.new_zeros((shape[0] * shape[1], *shape[2:]))
        return flat.index_copy(0, self.flat, packed).view(shape)


def _rounded(counts: list[int], rows: int) -> list[int]:
    """Rows at each step, rounded up as the module's description says; at most `rows`, falling."""
    sizes = [min(rows, -(-count // _STEP_MULTIPLE) * _STEP_MULTIPLE) for count in counts]
    missing = -sum(sizes) % _TOTAL_MULTIPLE
    for step in range(1, len(sizes)):
        more = min(missing, sizes[step - 1] - sizes[step])
        sizes[step] += more
        missing -= more
    return sizes
