"""Luong attention: a pure function of query, keys and mask.

Source: Luong, Pham and Manning (2015), "Effective Approaches to Attention-based Neural Machine
Translation", https://arxiv.org/abs/1508.04025, equations 5, 7 and 8 (global attention).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Shapes: B batch, T target length, S source length, H hidden.


def attend(scores: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Averages the keys by their scores (Luong equation 7), over real source positions only.

    Args:
        scores: (B, T, S), any real numbers.
        keys: (B, S, H).
        mask: (B, S), True at real source positions; at least one in each row.

    Returns:
        The context vectors (B, T, H) and the attention weights (B, T, S), which sum to 1 over S
        and are exactly 0 at padding.
    """
    scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    context = torch.bmm(weights, keys)  # (B, T, S) @ (B, S, H) -> (B, T, H)
    return context, weights


class DotScore(nn.Module):
    """score(h, k) = h . k (Luong equation 8, "dot")."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores a query (B, T, H) against keys (B, S, H); returns (B, T, S)."""
        return torch.bmm(query, keys.transpose(1, 2))  # (B, T, H) @ (B, H, S) -> (B, T, S)


class GeneralScore(nn.Module):
    """score(h, k) = h . W k (Luong equation 8, "general")."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores a query (B, T, H) against keys (B, S, H); returns (B, T, S)."""
        return torch.bmm(query, self.projection(keys).transpose(1, 2))


class ConcatScore(nn.Module):
    """score(h, k) = v . tanh(W [h; k]) (Luong equation 8, "concat").

    W is kept as its two halves, so that each position is projected once instead of T or S times.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query_projection = nn.Linear(hidden_size, hidden_size)
        self.key_projection = nn.Linear(hidden_size, hidden_size, bias=False)
        self.direction = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores a query (B, T, H) against keys (B, S, H); returns (B, T, S)."""
        # (B, T, 1, H) + (B, 1, S, H) -> (B, T, S, H) -> (B, T, S)
        pairs = self.query_projection(query).unsqueeze(2) + self.key_projection(keys).unsqueeze(1)
        scores: Tensor = self.direction(torch.tanh(pairs)).squeeze(-1)
        return scores


SCORES: dict[str, type[nn.Module]] = {
    "dot": DotScore,
    "general": GeneralScore,
    "concat": ConcatScore,
}
