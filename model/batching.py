"""Batches of examples, by indexing into the prepared arrays.

Nothing is kept between batches: iteration i of seed s is always the same batch, so the position
in the data is the iteration number alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.prepared_data import PreparedData
from model.randomness import generator
from model.vocabulary import PAD


@dataclass(frozen=True)
class Batch:
    """Source and target of B examples, padded to the longest in the batch.

    Attributes:
        source: (B, S) int64, each row ending with EOS and then PAD.
        source_lengths: (B,) int64 on the CPU, EOS included.
        target: (B, T) int64, each row ending with EOS and then PAD.
        target_tokens: Real tokens of the target, EOS included.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_tokens: int


class Batches:
    """The examples of one split, as batches on a device.

    Args:
        data: The prepared data set; its arrays are read in place, not copied.
        split: ``train``, ``validation`` or ``test``.
        device: Where the batches are put.
    """

    def __init__(self, data: PreparedData, split: str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._tokens = data.tokens
        self._starts = data.utterance_offsets[:-1]
        self._lengths = data.utterance_offsets[1:] - self._starts
        self._replies = data.examples[split][:, 1]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._replies)

    def take(self, indices: Tensor) -> Batch:
        """The batch of the examples with these indices (B,)."""
        replies = self._replies[indices]
        source, source_lengths = self._utterances(replies - 1)
        target, target_lengths = self._utterances(replies)
        return Batch(
            source=source.to(self.device),
            source_lengths=source_lengths,
            target=target.to(self.device),
            target_tokens=int(target_lengths.sum()),
        )

    def _utterances(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Gathers utterances (B,) from the flat tokens into a padded (B, longest) array."""
        lengths = self._lengths[which]
        positions = torch.arange(int(lengths.max()))  # (longest,)
        real = positions < lengths.unsqueeze(1)  # (B, longest)
        flat = (self._starts[which].unsqueeze(1) + positions).where(real, 0)
        return self._tokens[flat].long().where(real, PAD), lengths

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
