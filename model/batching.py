"""Batches of examples, by indexing into the prepared arrays.

Nothing is kept between batches: iteration i of seed s is always the same batch, so the position
in the data is the iteration number alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from model.packing import Packing
from model.prepared_data import PreparedData
from model.randomness import generator
from model.vocabulary import PAD


@dataclass(frozen=True)
class Batch:
    """Source and target of B examples, padded to the longest in the batch or further.

    Attributes:
        source: (B, S) int64, each row ending with EOS and then PAD.
        source_lengths: (B,) int64 on the CPU, EOS included.
        target: (B, T) int64, each row ending with EOS and then PAD.
        target_lengths: (B,) int64 on the CPU, EOS included.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor

    @cached_property
    def target_tokens(self) -> int:
        """Real tokens of the target, EOS included."""
        return int(self.target_lengths.sum())

    @cached_property
    def source_packing(self) -> Packing:
        """Tight on the CPU; static on a GPU, which would wait for the lengths."""
        return _packing(self.source, self.source_lengths)

    @cached_property
    def target_packing(self) -> Packing:
        """As `source_packing`."""
        return _packing(self.target, self.target_lengths)

    def laid_out_statically(self) -> Batch:
        """The same examples in the layout of a GPU, wherever they are."""
        batch = replace(self)
        batch.__dict__["source_packing"] = Packing.static(self.source != PAD)
        batch.__dict__["target_packing"] = Packing.static(self.target != PAD)
        return batch


def _packing(tokens: Tensor, lengths: Tensor) -> Packing:
    if tokens.device.type == "cpu":
        return Packing.tight(lengths)
    return Packing.static(tokens != PAD)


class Batches:
    """The examples of one split, as batches on a device.

    On a GPU every batch is padded to the longest utterance of the split, so that shapes never
    change and nothing waits for the device.

    Args:
        data: The prepared data set; on the CPU its arrays are read in place, not copied.
        split: ``train``, ``validation`` or ``test``.
        device: Where the batches are put.
    """

    def __init__(self, data: PreparedData, split: str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._tokens = data.tokens.to(self.device)
        self._starts = data.utterance_offsets[:-1]
        self._lengths = data.utterance_offsets[1:] - self._starts
        self._replies = data.examples[split][:, 1]
        self._widths: tuple[int | None, int | None] = (None, None)  # of source and target
        if self.device.type != "cpu" and len(self):
            self._widths = self._longest()

    def _longest(self) -> tuple[int, int]:
        """Tokens of the split's longest source and target."""
        lengths = self._lengths[self._replies - 1], self._lengths[self._replies]
        return int(lengths[0].max()), int(lengths[1].max())

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._replies)

    def take(self, indices: Tensor) -> Batch:
        """The batch of the examples with these indices (B,)."""
        replies = self._replies[indices]
        return Batch(
            *self._utterances(replies - 1, self._widths[0]),
            *self._utterances(replies, self._widths[1]),
        )

    def _utterances(self, which: Tensor, width: int | None) -> tuple[Tensor, Tensor]:
        """Gathers utterances (B,) from the flat tokens into a padded (B, width) array."""
        lengths = self._lengths[which]
        positions = torch.arange(width or int(lengths.max()), device=self.device)
        starts, ends = self._starts[which], self._starts[which] + lengths
        flat = starts.to(self.device, non_blocking=True).unsqueeze(1) + positions  # (B, width)
        real = flat < ends.to(self.device, non_blocking=True).unsqueeze(1)
        return self._tokens[flat.where(real, 0)].long().where(real, PAD), lengths

    def per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last of an epoch may be smaller."""
        return -(-len(self) // batch_size)

    def at(self, iteration: int, batch_size: int, seed: int) -> Batch:
        """The batch of an iteration, counted from 0: every epoch is a fresh permutation."""
        epoch, position = divmod(iteration, self.per_epoch(batch_size))
        order = self._order(epoch, seed)
        return self.take(order[position * batch_size : (position + 1) * batch_size])

    def _order(self, epoch: int, seed: int) -> Tensor:
        if getattr(self, "_cached_order_key", None) != (epoch, seed):
            self._cached_order = torch.randperm(
                len(self), generator=generator(seed, "order", epoch)
            )
            self._cached_order_key = (epoch, seed)
        return self._cached_order

    def subset(self, examples: int, seed: int = 0) -> Tensor:
        """Indices of a fixed random subset (min(examples, all),), sorted by target length.

        Sorting keeps padding small when the subset is evaluated in batches.
        """
        chosen = torch.randperm(len(self), generator=generator(seed, "subset"))[:examples]
        return chosen[self._lengths[self._replies[chosen]].argsort(stable=True)]
