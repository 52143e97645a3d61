"""Eager greedy search: as published, and this project's own without its early exit.

`PublishedDecoder` is what a careful reader of the PyTorch chatbot tutorial runs (Inkawhich 2018,
"Chatbot Tutorial", https://pytorch.org/tutorials/beginner/chatbot_tutorial.html): the encoder as
one packed ``nn.GRU``, then word by word an embedding, a GRU, attention, a softmax over the
vocabulary, its maximum, and a ``cat`` onto what was decoded. It is the same operations, in the same
order, as the frozen baseline of ``benchmarks/``, which an installed package does not have; a test
compares them. As there, padded source positions take part in the attention, and any word may be
said.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.attention import ConcatScore, DotScore, GeneralScore
from model.decoding import NEVER_SAID, Stepper, best_word
from model.errors import BenchmarkError
from model.seq2seq import Seq2Seq, gru_layers
from model.vocabulary import SOS

# Shapes: B batch, S source length, T steps, H hidden, E embedding, V vocabulary, L decoder layers;
# sequences first in `PublishedDecoder`, as in the tutorial.


class PublishedDecoder(nn.Module):
    """Greedy search of the published chatbot with the weights of a model, which it shares.

    Args:
        model: Its weights, where it is, are used as they are; those of the GRUs are copied.

    Raises:
        BenchmarkError: for an attention score that the tutorial does not have.
    """

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.hidden_size = model.config.hidden_size
        self.embedding = model.embedding
        self.encoder = _stacked(gru_layers(model.encoder))
        self.decoder = _stacked(gru_layers(model.decoder))
        self.dropout = nn.Dropout(model.config.dropout)
        self.energies = _energies(model.decoder.score)
        self.concat = model.decoder.combine
        self.out = model.output
        self.to(model.output.weight.device).eval()

    @torch.no_grad()
    def greedy(
        self, source: Tensor, lengths: Tensor, steps: int, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decodes a fixed number of steps, without early exit.

        Args:
            source: (S, B), longest first.
            lengths: (B,) on the CPU.
            steps: T.
            given: (T, B), the words that were said, whatever is best; None: the best ones.

        Returns:
            Word ids (T, B) and their probabilities (T, B).
        """
        outputs, hidden = self._encode(source, lengths)
        hidden = hidden[: self.decoder.num_layers]
        if len(hidden) < self.decoder.num_layers:  # more layers than the tutorial's slice has
            hidden = hidden[torch.arange(self.decoder.num_layers) % len(hidden)]
        rows, device = source.shape[1], source.device
        word = torch.ones(1, rows, device=device, dtype=torch.long) * SOS
        words = torch.zeros([0, rows], device=device, dtype=torch.long)
        scores = torch.zeros([0, rows], device=device)
        for _ in range(steps):
            probabilities, hidden = self._step(word, hidden, outputs)
            score, best = torch.max(probabilities, dim=1)
            words = torch.cat((words, best.unsqueeze(0)), dim=0)
            scores = torch.cat((scores, score.unsqueeze(0)), dim=0)
            word = best.unsqueeze(0) if given is None else given[len(words) - 1 : len(words)]
        return words, scores

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Both directions summed (S, B, H), and the states (2 * layers, B, H)."""
        packed = pack_padded_sequence(self.embedding(source), lengths)
        outputs, hidden = self.encoder(packed)
        outputs, _ = pad_packed_sequence(outputs)
        return outputs[:, :, : self.hidden_size] + outputs[:, :, self.hidden_size :], hidden

    def _step(self, word: Tensor, hidden: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of the previous words (1, B): probabilities (B, V) and the states (L, B, H)."""
        embedded = self.dropout(self.embedding(word))
        output, hidden = self.decoder(embedded, hidden)
        weights = torch.softmax(self.energies(output, outputs).t(), dim=1).unsqueeze(1)  # (B, 1, S)
        context = weights.bmm(outputs.transpose(0, 1))  # (B, 1, S) @ (B, S, H)
        joined = torch.cat((output.squeeze(0), context.squeeze(1)), 1)
        return torch.softmax(self.out(torch.tanh(self.concat(joined))), dim=1), hidden


def _stacked(layers: list[nn.GRU]) -> nn.GRU:
    """One GRU of several layers with the weights of these."""
    first = layers[0]
    stacked = nn.GRU(
        first.input_size, first.hidden_size, len(layers), bidirectional=first.bidirectional
    )
    weights = {
        name.replace("_l0", f"_l{i}"): value
        for i, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }
    stacked.load_state_dict(weights)
    return stacked


class _DotEnergies(nn.Module):
    def forward(self, hidden: Tensor, outputs: Tensor) -> Tensor:
        """Of a state (1, B, H) and outputs (S, B, H): (S, B)."""
        return torch.sum(hidden * outputs, dim=2)


class _GeneralEnergies(nn.Module):
    def __init__(self, score: GeneralScore) -> None:
        super().__init__()
        self.attn = score.projection

    def forward(self, hidden: Tensor, outputs: Tensor) -> Tensor:
        """Of a state (1, B, H) and outputs (S, B, H): (S, B)."""
        return torch.sum(hidden * self.attn(outputs), dim=2)


class _ConcatEnergies(nn.Module):
    """The tutorial has one matrix over [h; k] where the model has its two halves."""

    @torch.no_grad()
    def __init__(self, score: ConcatScore) -> None:
        super().__init__()
        query, key = score.query_projection, score.key_projection
        self.attn = nn.Linear(2 * query.in_features, query.out_features)
        self.attn.weight.copy_(torch.cat([query.weight, key.weight], dim=1))
        self.attn.bias.copy_(query.bias)
        self.v = nn.Parameter(score.direction.weight.detach().clone().squeeze(0))

    def forward(self, hidden: Tensor, outputs: Tensor) -> Tensor:
        """Of a state (1, B, H) and outputs (S, B, H): (S, B)."""
        both = torch.cat((hidden.expand(outputs.shape[0], -1, -1), outputs), 2)
        return torch.sum(self.v * self.attn(both).tanh(), dim=2)


def _energies(score: nn.Module) -> nn.Module:
    if isinstance(score, DotScore):
        return _DotEnergies()
    if isinstance(score, GeneralScore):
        return _GeneralEnergies(score)
    if isinstance(score, ConcatScore):
        return _ConcatEnergies(score)
    raise BenchmarkError(f"the published decoder has no attention like {type(score).__name__}.")


@torch.inference_mode()
def greedy_of_all_rows(
    model: Seq2Seq,
    source: Tensor,
    lengths: Tensor,
    steps: int,
    stepper: Stepper | None = None,
    *,
    given: Tensor | None = None,
) -> Tensor:
    """`model.decoding.greedy` without its early exit: every row makes every step.

    Args:
        model: The model.
        source: (B, S) token ids, padded with PAD.
        lengths: (B,) on the CPU, real tokens of each row.
        steps: T.
        stepper: Made of the model beforehand; None makes one for this call.
        given: (B, T), the words that were said, whatever is best; None: the best ones.

    Returns:
        Token ids (B, T), which go on after EOS.
    """
    stepper = stepper or Stepper(model)
    encoded = model.encode(source, lengths, stepper.dtype)
    state = list(encoded.state)
    words = torch.full((len(source),), SOS, device=source.device)
    never = torch.tensor(NEVER_SAID, device=source.device)
    best = []
    for t in range(steps):
        scores, state = stepper.step(words, state, encoded)
        best.append(best_word(scores, never))
        words = best[t] if given is None else given[:, t]
    return torch.stack(best, dim=1)
