"""One word at a time: replies, and the words that a free-running batch is trained on.

`Stepper` is the decoder made lean for that: weights cast once, no gradients, rows that have ended
dropped, and no softmax, for the highest score has the highest probability.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import attend
from model.gru import WEIGHTS, layer_weights
from model.linear import linear
from model.packing import Packing
from model.seq2seq import DropoutMasks, Encoded, Seq2Seq, gru_layers
from model.vocabulary import EOS, PAD, SOS, UNK

#: Tokens that never stand in a reply.
NEVER_SAID = (PAD, SOS, UNK)

# Shapes: B batch, b rows still going, S source length, H hidden, E embedding, V vocabulary,
# L decoder layers.


class Stepper:
    """The decoder of a model, one word at a time, with the weights it has now.

    Args:
        model: The model.
        dtype: What to compute in.
        fold: Multiply the first layer's input weights into the embedding table once, (V, 3H), so
            that a step looks its gates up. It costs as much as V words decoded, and leaves no place
            for dropout of the embedded words.
    """

    @torch.no_grad()
    def __init__(
        self, model: Seq2Seq, dtype: torch.dtype = torch.float32, *, fold: bool = False
    ) -> None:
        decoder = model.decoder
        self.dtype = dtype
        self.fold = fold
        self.score: nn.Module = decoder.score
        self.cells = [
            [layer_weights(layer, name)[0].to(dtype) for name in WEIGHTS]
            for layer in gru_layers(decoder)
        ]
        self.combine = decoder.combine.weight.to(dtype), decoder.combine.bias.to(dtype)
        self.output = model.output.weight.to(dtype), model.output.bias.to(dtype)
        self.table: Tensor = model.embedding.weight.detach()
        if fold:
            weight, _, bias, _ = self.cells[0]
            self.table = linear(self.table.to(dtype), weight, bias)

    def step(
        self,
        words: Tensor,
        state: list[Tensor],
        encoded: Encoded,
        dropout: DropoutMasks | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Scores the next word.

        Args:
            words: (b,), the previous words.
            state: Of each layer (b, H), before them.
            encoded: The sources of these rows.
            dropout: Masks of these rows, or None.

        Returns:
            The scores of the next word (b, V) and the new state.
        """
        inputs = self.table[words].to(self.dtype)
        after = []
        for i, hidden in enumerate(state):
            if dropout is not None:
                inputs = dropout.drop(inputs, dropout.decoder[i])
            input_weight, hidden_weight, input_bias, hidden_bias = self.cells[i]
            gates = inputs
            if i > 0 or not self.fold:
                gates = linear(inputs, input_weight, input_bias)
            inputs = _gru_cell(gates, linear(hidden, hidden_weight, hidden_bias), hidden)
            after.append(inputs)
        query = inputs.float().unsqueeze(1)  # (b, 1, H)
        context, _ = attend(self.score(query, encoded.keys), encoded.keys, encoded.mask)
        both = torch.cat([inputs, context.squeeze(1).to(self.dtype)], dim=-1)
        attentional = torch.tanh(linear(both, *self.combine))
        return linear(attentional, *self.output), after


def _gru_cell(gates: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
    """The equations of `model.gru` for W_i x + b_i and W_h h + b_h, (b, 3H) each, and h (b, H)."""
    h = hidden.shape[-1]
    reset_update = (gates[:, : 2 * h] + recurrent[:, : 2 * h]).sigmoid_()
    new = torch.addcmul(gates[:, 2 * h :], reset_update[:, :h], recurrent[:, 2 * h :]).tanh_()
    return torch.lerp(new, hidden, reset_update[:, h:])


@torch.no_grad()
def draw_words(
    model: Seq2Seq, encoded: Encoded, packing: Packing, dropout: DropoutMasks | None = None
) -> Tensor:
    """The decoder's inputs in free-running decoding: SOS, then the best word of each step.

    Args:
        model: The model; computes in the dtype of the encoded state.
        encoded: The sources, rows as in the batch.
        packing: Of the targets; a row is decoded as long as its target lasts.
        dropout: Masks over the packed targets, or None.

    Returns:
        (N,), packed.
    """
    stepper = Stepper(model, encoded.state.dtype)
    encoded = encoded.rows(packing.order)
    words = [torch.full_like(packing.order, SOS)]
    state = list(encoded.state)
    start = 0
    for rows, following in zip(packing.sizes, packing.sizes[1:], strict=False):
        if rows < len(encoded.keys):
            encoded = Encoded(encoded.keys[:rows], encoded.mask[:rows], encoded.state[:, :rows])
        masks = dropout.at(slice(start, start + rows)) if dropout else None
        scores, state = stepper.step(words[-1], [h[:rows] for h in state], encoded, masks)
        # `max` finds the place of the largest bf16 number four times as fast as `argmax`.
        words.append(scores[:following].max(dim=-1).indices)
        start += rows
    return torch.cat(words)


def best_word(scores: Tensor, never: Tensor) -> Tensor:
    """The highest of the scores (b, V), which it may change, but for the words `never`: (b,)."""
    return scores.float().index_fill_(-1, never, float("-inf")).argmax(dim=-1)


@torch.inference_mode()
def greedy(
    model: Seq2Seq,
    source: Tensor,
    lengths: Tensor,
    max_words: int,
    stepper: Stepper | None = None,
) -> Tensor:
    """The most probable next word at each step, for a batch of sources.

    Rows that have ended are dropped, and decoding stops as soon as every row has.

    Args:
        model: The model.
        source: (B, S) token ids, padded with PAD.
        lengths: (B,) on the CPU, real tokens of each row.
        max_words: Longest reply, in words; at least 1.
        stepper: Made of the model beforehand; None makes one for this call.

    Returns:
        Token ids (B, T), T at most `max_words`; each row ends with EOS, if it ended, then PAD.
    """
    stepper = stepper or Stepper(model)
    encoded = model.encode(source, lengths, stepper.dtype)
    state = list(encoded.state)
    rows = torch.arange(len(source), device=source.device)  # those still going
    words = torch.full_like(rows, SOS)
    never = torch.tensor(NEVER_SAID, device=source.device)
    replies = source.new_full((len(source), max_words), PAD)
    for t in range(max_words):
        scores, state = stepper.step(words, state, encoded)
        words = best_word(scores, never)
        replies[rows, t] = words
        going = (words != EOS).nonzero().squeeze(1)
        if len(going) == 0:
            return replies[:, : t + 1]
        if len(going) < len(words):
            rows, words, encoded = rows[going], words[going], encoded.rows(going)
            state = [hidden[going] for hidden in state]
    return replies
