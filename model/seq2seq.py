"""The sequence-to-sequence model: bidirectional GRU encoder, GRU decoder, Luong attention.

The decoder has no input feeding: its GRU depends on the previous words alone, not on the
attention. A target whose words are known is therefore decoded in one pass over the whole sequence
(`Seq2Seq.decode_packed`); one word at a time is `model.decoding`'s.

**How the decoder starts.** The encoder's final states are listed in the order of ``nn.GRU``:
first layer forward, first layer backward, second layer forward, and so on. Decoder layer i starts
from state number ``i mod (2 * encoder_layers)`` of that list. For the published 2+2 layers these
are the two directions of the first encoder layer, as in the published chatbot.

**Dropout** stands outside the GRUs and takes its masks as an argument (`DropoutMasks`), so that the
forward pass is a function of weights, batch and masks.

**Precision.** Weights are fp32. What is embedded is cast to a compute dtype, and every layer casts
its weights to that of its inputs; attention, softmax and losses are always computed in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import SCORES, attend
from model.config import ModelConfig
from model.gru import gru
from model.linear import linear
from model.packing import Packing
from model.vocabulary import PAD

# Shapes: B batch, S source length, T target length, H hidden, E embedding, V vocabulary,
# L decoder layers, N positions of a packed batch (model.packing).


@dataclass(frozen=True)
class Encoded:
    """What the decoder reads of the source; rows as in the batch.

    Attributes:
        keys: (B, S, H) fp32, sum of both directions of the last encoder layer; whatever at padding.
        mask: (B, S), True at real positions.
        state: (L, B, H), the decoder's first state.
    """

    keys: Tensor
    mask: Tensor
    state: Tensor

    def rows(self, index: Tensor) -> Encoded:
        """The rows of an index (b,) alone."""
        return Encoded(self.keys[index], self.mask[index], self.state[:, index])


@dataclass(frozen=True)
class DropoutMasks:
    """Masks of one forward pass: 0 where dropped, 1 where kept; kept values grow by `scale`.

    Attributes:
        encoder: One (N, 2H) mask after each encoder layer but the last.
        decoder: (N, E) for the embedded words, then one (N, H) after each decoder layer but the
            last.
        scale: 1 / (1 - dropout).
    """

    encoder: list[Tensor]
    decoder: list[Tensor]
    scale: float

    @classmethod
    def draw(
        cls,
        config: ModelConfig,
        source_positions: int,
        target_positions: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> DropoutMasks | None:
        """Draws the masks of a batch, or None where nothing is dropped.

        Args:
            config: Sizes and the dropout probability.
            source_positions: N of the packed sources.
            target_positions: N of the packed targets.
            generator: Decides every mask, and lives on the device where they are needed.
            dtype: What the masks are multiplied with.
        """
        if config.dropout == 0:
            return None
        hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size

        def mask(positions: int, size: int) -> Tensor:
            return (
                _kept(positions * size, config.dropout, generator).view(positions, size).to(dtype)
            )

        return cls(
            encoder=[mask(source_positions, 2 * hidden) for _ in range(config.encoder_layers - 1)],
            decoder=[mask(target_positions, embedding)]
            + [mask(target_positions, hidden) for _ in range(config.decoder_layers - 1)],
            scale=1 / (1 - config.dropout),
        )

    def drop(self, values: Tensor, mask: Tensor) -> Tensor:
        """Applies one of the masks."""
        return values * mask * self.scale

    def at(self, positions: slice) -> DropoutMasks:
        """The decoder's masks of some positions alone."""
        return DropoutMasks([], [mask[positions] for mask in self.decoder], self.scale)


def _kept(size: int, dropout: float, generator: torch.Generator) -> Tensor:
    """(size,) booleans, each True with probability 1 - dropout to within 2**-17.

    Four are cut from each random number of 64 bits: drawing is what dropout costs on the CPU.
    """
    words = torch.empty(-(-size // 4), dtype=torch.int64, device=generator.device)
    sixteenths = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:size]
    return sixteenths >= round(dropout * 2**16) - 2**15


class Encoder(nn.Module):
    """Bidirectional GRU layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size
        self.layers = nn.ModuleList(
            nn.GRU(embedding if i == 0 else 2 * hidden, hidden, bidirectional=True)
            for i in range(config.encoder_layers)
        )

    def forward(
        self, embedded: Tensor, packing: Packing, dropout: DropoutMasks | None
    ) -> tuple[Tensor, Tensor]:
        """Reads the source.

        Args:
            embedded: (N, E), the packed words.
            packing: Where they lie.
            dropout: Masks, or None.

        Returns:
            The last layer's outputs, both directions summed (N, H), and the final states of all
            layers and directions (2 * encoder_layers, B, H), rows as in the batch.
        """
        states = []
        for i, layer in enumerate(gru_layers(self)):
            if i > 0 and dropout is not None:
                embedded = dropout.drop(embedded, dropout.encoder[i - 1])
            (forward, backward), last = gru(layer, embedded, None, packing)  # (N, H) each
            embedded = torch.cat([forward, backward], dim=-1)  # (N, 2H)
            states.append(last)
        return forward + backward, torch.cat(states)


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
        self, embedded: Tensor, packing: Packing, encoded: Encoded, dropout: DropoutMasks | None
    ) -> tuple[Tensor, Tensor]:
        """Decodes words that are known.

        Args:
            embedded: (N, E), the packed previous words.
            packing: Where they lie.
            encoded: The source.
            dropout: Masks, or None.

        Returns:
            The attentional hidden states (N, H), and the state after each row's last word
            (L, B, H), rows as in the batch.
        """
        states = []
        for i, layer in enumerate(gru_layers(self)):
            if dropout is not None:
                embedded = dropout.drop(embedded, dropout.decoder[i])
            outputs, last = gru(layer, embedded, encoded.state[i : i + 1], packing)
            embedded = outputs[0]
            states.append(last)
        queries = packing.pad(embedded.float())  # (N, H) -> (B, T, H)
        context, _ = attend(self.score(queries, encoded.keys), encoded.keys, encoded.mask)
        return self.attentional(embedded, packing.pack(context)), torch.cat(states)

    def attentional(self, hidden: Tensor, context: Tensor) -> Tensor:
        """tanh(W [h; c]), Luong equation 5: (N, H) and (N, H) -> (N, H)."""
        both = torch.cat([hidden, context.to(hidden.dtype)], dim=-1)
        return torch.tanh(linear(both, self.combine.weight, self.combine.bias))


def gru_layers(module: Encoder | Decoder) -> list[nn.GRU]:
    """Its layers, as what they are."""
    return [layer for layer in module.layers if isinstance(layer, nn.GRU)]


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
        self, source: Tensor, lengths: Tensor, dtype: torch.dtype = torch.float32
    ) -> Encoded:
        """Reads a padded batch of sources, without dropout.

        Args:
            source: (B, S) token ids, padded with PAD to the longest or further.
            lengths: (B,) on the CPU, real tokens of each row, at least 1.
            dtype: What to compute in.
        """
        if source.device.type == "cpu":
            packing = Packing.tight(lengths)
            source = source[:, : len(packing.sizes)]
        else:
            packing = Packing.static(source != PAD)
        return self.encode_packed(self.embedding(packing.pack(source)).to(dtype), packing)

    def encode_packed(
        self, embedded: Tensor, packing: Packing, dropout: DropoutMasks | None = None
    ) -> Encoded:
        """Reads embedded and packed sources (N, E)."""
        outputs, states = self.encoder(embedded, packing, dropout)
        layers = torch.arange(self.config.decoder_layers, device=states.device)
        return Encoded(
            keys=packing.pad(outputs.float()),
            mask=packing.pad(packing.real),
            state=states[layers % states.shape[0]],
        )

    def decode(self, previous: Tensor, state: Tensor, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Decodes from the previous words (B, T), padding included, without dropout, in fp32.

        Returns:
            The attentional hidden states (B, T, H), which `project` turns into scores, and the
            state after the last word (L, B, H).
        """
        packing = Packing.static(torch.ones_like(previous, dtype=torch.bool))
        source = Encoded(encoded.keys, encoded.mask, state)
        hidden, last = self.decoder(self.embedding(packing.pack(previous)), packing, source, None)
        return packing.pad(hidden), last

    def decode_packed(
        self,
        embedded: Tensor,
        packing: Packing,
        encoded: Encoded,
        dropout: DropoutMasks | None = None,
    ) -> Tensor:
        """Decodes embedded and packed previous words (N, E) to attentional states (N, H)."""
        hidden: Tensor = self.decoder(embedded, packing, encoded, dropout)[0]
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Scores (logits) of the next word, (..., H) -> (..., V), in the dtype of the states."""
        weight, bias = self.output.weight.to(hidden.dtype), self.output.bias.to(hidden.dtype)
        return F.linear(hidden, weight, bias)
