"""The sequence-to-sequence model: bidirectional GRU encoder, GRU decoder, Luong attention.

The decoder has no input feeding: its GRU depends on the previous words alone, not on the
attention. A teacher-forced target is therefore decoded in one pass over the whole sequence, and
free-running decoding calls the same `Seq2Seq.decode` with one word at a time.

**How the decoder starts.** The encoder's final states are listed in the order of ``nn.GRU``:
first layer forward, first layer backward, second layer forward, and so on. Decoder layer i starts
from state number ``i mod (2 * encoder_layers)`` of that list. For the published 2+2 layers these
are the two directions of the first encoder layer, as in the published chatbot.

**Dropout** stands outside the GRUs and takes its masks as an argument (`DropoutMasks`), so that the
forward pass is a function of weights, batch and masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from model.attention import SCORES, attend
from model.config import ModelConfig
from model.vocabulary import PAD

# Shapes: B batch, S source length, T target length, H hidden, E embedding, V vocabulary,
# L decoder layers, N real tokens of a padded batch.


@dataclass(frozen=True)
class Encoded:
    """What the decoder reads of the source.

    Attributes:
        keys: (B, S, H), sum of both directions of the last encoder layer, 0 at padding.
        mask: (B, S), True at real positions.
        state: (L, B, H), the decoder's first state.
    """

    keys: Tensor
    mask: Tensor
    state: Tensor


@dataclass(frozen=True)
class DropoutMasks:
    """Masks of one forward pass: 0 where dropped, 1 / (1 - dropout) where kept.

    Attributes:
        encoder: One (N, 2H) mask after each encoder layer but the last, over packed tokens.
        decoder: (B, T, E) for the embedded words, then one (B, T, H) after each decoder layer
            but the last.
    """

    encoder: list[Tensor]
    decoder: list[Tensor]

    @classmethod
    def draw(
        cls,
        config: ModelConfig,
        source_tokens: int,
        target_shape: tuple[int, int],
        generator: torch.Generator,
    ) -> DropoutMasks | None:
        """Draws the masks of a batch, or None where nothing is dropped.

        Args:
            config: Sizes and the dropout probability.
            source_tokens: N, real tokens on the source side.
            target_shape: (B, T) of the padded target.
            generator: Decides every mask, and lives on the device where they are needed.
        """
        if config.dropout == 0:
            return None
        keep = 1 - config.dropout
        hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size

        def mask(*shape: int) -> Tensor:
            kept = torch.empty(shape, device=generator.device)
            return kept.bernoulli_(keep, generator=generator).div_(keep)

        return cls(
            encoder=[mask(source_tokens, 2 * hidden) for _ in range(config.encoder_layers - 1)],
            decoder=[mask(*target_shape, embedding)]
            + [mask(*target_shape, hidden) for _ in range(config.decoder_layers - 1)],
        )

    def at_step(self, t: int) -> DropoutMasks:
        """The decoder's masks of target position t alone."""
        return DropoutMasks(encoder=[], decoder=[m[:, t : t + 1] for m in self.decoder])


class Encoder(nn.Module):
    """Bidirectional GRU layers over packed sequences: padding is never computed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size
        self.layers = nn.ModuleList(
            nn.GRU(embedding if i == 0 else 2 * hidden, hidden, bidirectional=True)
            for i in range(config.encoder_layers)
        )

    def forward(
        self, embedded: PackedSequence, dropout: list[Tensor] | None
    ) -> tuple[PackedSequence, Tensor]:
        """Reads the source.

        Returns:
            The last layer's outputs, both directions summed (N, H) packed, and the final states
            of all layers and directions (2 * encoder_layers, B, H).
        """
        outputs, states = embedded, []
        for i, layer in enumerate(self.layers):
            if i > 0 and dropout is not None:
                outputs = _with_data(outputs, outputs.data * dropout[i - 1])
            outputs, state = layer(outputs)
            states.append(state)
        forward, backward = outputs.data.chunk(2, dim=-1)  # (N, 2H) -> twice (N, H)
        return _with_data(outputs, forward + backward), torch.cat(states)


def _with_data(packed: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


class Decoder(nn.Module):
    """GRU layers, Luong attention, and the attentional hidden state (Luong equation 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size
        self.layers = nn.ModuleList(
            nn.GRU(embedding if i == 0 else hidden, hidden, batch_first=True)
            for i in range(config.decoder_layers)
        )
        self.score = SCORES[config.attention](hidden)
        self.combine = nn.Linear(2 * hidden, hidden)

    def forward(
        self, embedded: Tensor, state: Tensor, encoded: Encoded, dropout: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Decodes T words from a state.

        Args:
            embedded: (B, T, E), the previous words.
            state: (L, B, H), before the first of them.
            encoded: The source.
            dropout: Masks as in `DropoutMasks.decoder`, or None.

        Returns:
            The attentional hidden states (B, T, H) and the state after the last word (L, B, H).
        """
        outputs, states = embedded, []
        for i, layer in enumerate(self.layers):
            if dropout is not None:
                outputs = outputs * dropout[i]
            outputs, last = layer(outputs, state[i : i + 1].contiguous())
            states.append(last)
        context, _ = attend(self.score(outputs, encoded.keys), encoded.keys, encoded.mask)
        attentional = torch.tanh(self.combine(torch.cat([outputs, context], dim=-1)))
        return attentional, torch.cat(states)


class Seq2Seq(nn.Module):
    """Encoder and decoder over one shared embedding.

    Args:
        config: The architecture.
        vocabulary_size: V, special tokens included.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        embedding_size = config.embedding_size or config.hidden_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.output = nn.Linear(config.hidden_size, vocabulary_size)

    def encode(
        self, source: Tensor, lengths: Tensor, dropout: DropoutMasks | None = None
    ) -> Encoded:
        """Reads a padded batch of sources.

        Args:
            source: (B, S) token ids, padded with PAD.
            lengths: (B,) on the CPU, real tokens of each row, at least 1.
            dropout: Masks of this pass, or None for none.
        """
        packed = pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, states = self.encoder(packed, dropout.encoder if dropout else None)
        keys, _ = pad_packed_sequence(outputs, batch_first=True)  # (B, S, H)
        layers = torch.arange(self.config.decoder_layers, device=states.device)
        return Encoded(keys, source != PAD, states[layers % states.shape[0]])

    def decode(
        self, previous: Tensor, state: Tensor, encoded: Encoded, dropout: DropoutMasks | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decodes from the previous words (B, T): a whole target at once, or one word (T = 1).

        Returns:
            The attentional hidden states (B, T, H), which `project` turns into scores, and the
            state after the last word (L, B, H).
        """
        hidden: tuple[Tensor, Tensor] = self.decoder(
            self.embedding(previous), state, encoded, dropout.decoder if dropout else None
        )
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Scores (logits) of the next word, (..., H) -> (..., V)."""
        return F.linear(hidden, self.output.weight, self.output.bias)
