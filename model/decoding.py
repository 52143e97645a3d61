"""Turning a source into a reply."""

from __future__ import annotations

import torch
from torch import Tensor

from model.seq2seq import Seq2Seq
from model.vocabulary import EOS, PAD, SOS, UNK

#: Tokens that never stand in a reply.
NEVER_SAID = (PAD, SOS, UNK)


@torch.inference_mode()
def greedy(model: Seq2Seq, source: Tensor, lengths: Tensor, max_words: int) -> Tensor:
    """The most probable next word at each step, for a batch of sources.

    Stops as soon as every row has ended.

    Args:
        model: The model.
        source: (B, S) token ids, padded with PAD.
        lengths: (B,) on the CPU, real tokens of each row.
        max_words: Longest reply, in words; at least 1.

    Returns:
        Token ids (B, T), T at most `max_words`; each row ends with EOS, if it ended, then PAD.
    """
    encoded = model.encode(source, lengths)
    state = encoded.state
    word = torch.full_like(source[:, :1], SOS)  # (B, 1)
    ended = torch.zeros_like(word, dtype=torch.bool)  # (B, 1)
    never = torch.tensor(NEVER_SAID, device=source.device)
    words = []
    for _ in range(max_words):
        hidden, state = model.decode(word, state, encoded)
        scores = model.project(hidden).index_fill_(-1, never, float("-inf"))  # (B, 1, V)
        word = scores.argmax(dim=-1).masked_fill(ended, PAD)
        words.append(word)
        ended = ended | (word == EOS)
        if bool(ended.all()):
            break
    return torch.cat(words, dim=1)
