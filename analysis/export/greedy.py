"""Greedy search as TorchScript can hold it: encoder, one step of the decoder, and the loop.

The same equations as `model.seq2seq` and `model.decoding`, over the same weights, in modules that
TorchScript compiles: no autograd functions, no dataclasses, no functions as values. What does not
change between two calls is computed once when the module is built (the decoder's input projection
of every word), and what does not change between two steps once a call (the projected keys).

This file is compiled by TorchScript, which reads annotations as they stand.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.vocabulary import EOS, PAD, SOS

# Shapes: B batch, b rows still computed, S source length, T target length, H hidden, V vocabulary,
# L decoder layers, N positions of the packed sources (as in model.packing), I inputs.

#: The bias of words that are never said; a product with it stays finite, unlike with infinity.
NEVER = -1e30


def gru_cell(gates: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
    """The equations of `model.gru` for W_i x + b_i and W_h h + b_h, (b, 3H) each, and h (b, H)."""
    size = hidden.shape[1]
    reset_update = (gates[:, : 2 * size] + recurrent[:, : 2 * size]).sigmoid_()
    new = torch.addcmul(
        gates[:, 2 * size :], reset_update[:, :size], recurrent[:, 2 * size :]
    ).tanh_()
    return torch.lerp(new, hidden, reset_update[:, size:])


class WordGates(nn.Module):
    """Input gates of words: a table of W_i e + b_i for every word.

    The file holds what the table is made of, a fraction of its size, and the embedding once
    for all tables; the table is made anew when the file is loaded.

    Args:
        embedding: (V, E).
        weight: W_i, (3H, E).
        bias: b_i, (3H,).
        dtype: Of the table.
    """

    embedding: Tensor
    weight: Tensor
    bias: Tensor
    table: Tensor

    def __init__(self, embedding: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding, self.weight, self.bias = embedding, weight, bias
        self.dtype = dtype
        self.table = torch.addmm(bias, embedding, weight.t()).to(dtype)

    def forward(self, words: Tensor) -> Tensor:
        """(N,) -> (N, 3H)."""
        return F.embedding(words, self.table)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, torch.dtype, bool]:
        return self.embedding, self.weight, self.bias, self.dtype, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, torch.dtype, bool]) -> None:
        self.embedding = state[0]
        self.weight = state[1]
        self.bias = state[2]
        self.dtype = state[3]
        self.training = state[4]
        self.table = torch.addmm(state[2], state[0], state[1].t()).to(state[3])


class Direction(nn.Module):
    """One direction of a GRU layer over packed rows.

    Args:
        inputs: Input gates (N, 3H) of the layer's inputs.
        recurrent: W_h h + b_h, (b, H) -> (b, 3H).
        bias: b_h, (3H,): what the first step, whose state is 0, adds.
    """

    bias: Tensor

    def __init__(self, inputs: nn.Module, recurrent: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.inputs = inputs
        self.recurrent = recurrent
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, inputs: Tensor, sizes: list[int]) -> Tensor:
        """Steps through the packed inputs (N, I) or words (N,), `sizes` rows at a time: (N, H)."""
        gates: Tensor = self.inputs(inputs)
        size = self.bias.shape[0] // 3
        zeros = gates.new_zeros([sizes[0], size])
        state = gru_cell(gates[: sizes[0]], self.bias.expand(sizes[0], -1), zeros)
        outputs = [state]
        start = sizes[0]
        for rows in sizes[1:]:
            before = state[:rows]
            state = gru_cell(gates[start : start + rows], self.recurrent(before), before)
            outputs.append(state)
            start += rows
        return torch.cat(outputs)


def packed_sizes(counts: list[int], rows: int) -> list[int]:
    """Rows at each step, rounded as in `model.packing`: few shapes, little padding."""
    sizes: list[int] = []
    total = 0
    for count in counts:
        size = min(rows, (count + 7) // 8 * 8)
        if count > 0:
            sizes.append(size)
            total += size
    missing = (32 - total % 32) % 32
    for step in range(1, len(sizes)):
        more = min(missing, sizes[step - 1] - sizes[step])
        sizes[step] += more
        missing -= more
    return sizes


class BidirectionalLayer(nn.Module):
    """Both directions of an encoder layer; the second reads each row mirrored."""

    def __init__(self, ahead: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.ahead = ahead
        self.back = back

    def forward(self, inputs: Tensor, sizes: list[int], mirror: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of each direction (N, H), the second still mirrored."""
        ahead: Tensor = self.ahead(inputs, sizes)
        back: Tensor = self.back(inputs.index_select(0, mirror), sizes)
        return ahead, back


class PackedEncoder(nn.Module):
    """The encoder over the packed layout, for the CPU.

    Args:
        layers: A `BidirectionalLayer` each; the first reads words.
        score: What `prepare` of the attention score is.
        decoder_layers: L.
    """

    def __init__(self, layers: nn.ModuleList, score: nn.Module, decoder_layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.score = score
        self.decoder_layers = decoder_layers

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reads a padded batch of sources.

        Args:
            source: (B, S) token ids.
            lengths: (B,), real tokens of each row; less than 1 is read as 1.

        Returns:
            Keys (B, S', H), the score's view of them (B, S', H), 0 where a position is real and
            -inf at padding (B, S'), all fp32, and the decoder's first state (L, B, H); S' is the
            longest length.
        """
        rows = source.shape[0]
        falling, order = torch.sort(lengths.clamp(1, source.shape[1]), 0, True)
        every_step = torch.arange(source.shape[1], device=source.device)
        counts: list[int] = (falling.unsqueeze(0) > every_step.unsqueeze(1)).sum(1).tolist()
        sizes = packed_sizes(counts, rows)
        width = len(sizes)

        row = torch.arange(rows, device=source.device)
        present = row < torch.tensor(sizes, device=source.device).unsqueeze(1)  # (S', B)
        places = present.nonzero()
        steps, row_of = places[:, 0], places[:, 1]  # (N,) each
        position = torch.zeros([width * rows], dtype=torch.long, device=source.device)
        position[steps * rows + row_of] = torch.arange(len(steps), device=source.device)
        from_end = falling[row_of] - 1 - steps  # negative at padding
        mirror = position[torch.where(from_end >= 0, from_end, steps) * rows + row_of]
        last = torch.empty_like(order)
        last[order] = position[(falling - 1) * rows + row]
        flat = order[row_of] * width + steps

        values = source[:, :width].flatten().index_select(0, flat)  # words, then outputs
        states: list[Tensor] = []
        outputs = values
        for layer in self.layers:
            ahead, back = layer(values, sizes, mirror)  # (N, H) each
            states.append(ahead.index_select(0, last))
            states.append(back.index_select(0, last))
            back = back.index_select(0, mirror)
            values = torch.cat([ahead, back], 1)  # (N, 2H)
            outputs = ahead + back
        size = outputs.shape[1]
        keys = torch.zeros([rows * width, size], device=source.device)
        keys = keys.index_copy(0, flat, outputs.float()).view(rows, width, size)
        mask = every_step[:width] < lengths.clamp(1, width).unsqueeze(1)
        first: list[Tensor] = []
        for i in range(self.decoder_layers):
            first.append(states[i % len(states)])
        prepared: Tensor = self.score.prepare(keys)  # type: ignore[operator]
        return keys, prepared, padding_bias(mask), torch.stack(first)


def padding_bias(mask: Tensor) -> Tensor:
    """(B, S) True at real positions -> fp32, 0 there and -inf at padding."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, float("-inf"))


class TorchEncoder(nn.Module):
    """The encoder by torch's own GRU over packed sequences: on a GPU, and where it is traced.

    Its whole recurrence is one operator, so that a trace of it holds for any length.

    Args:
        table: (V, E).
        gru: Bidirectional, batch first, all layers.
        score: As of `PackedEncoder`.
        decoder_layers: L.
    """

    table: Tensor
    which: Tensor

    def __init__(self, table: Tensor, gru: nn.GRU, score: nn.Module, decoder_layers: int) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.gru = gru
        self.score = score
        states = torch.arange(decoder_layers, device=table.device) % (2 * gru.num_layers)
        self.register_buffer("which", states)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `PackedEncoder.forward`."""
        lengths = lengths.clamp(1, source.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(
            F.embedding(source, self.table), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, states = self.gru(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        ahead, back = padded.chunk(2, 2)
        keys = (ahead + back).float()  # (B, S', H)
        position = torch.arange(keys.shape[1], device=source.device)
        mask = position < lengths.to(source.device).unsqueeze(1)
        prepared: Tensor = self.score.prepare(keys)  # type: ignore[operator]
        return keys, prepared, padding_bias(mask), states[self.which]


class DotScore(nn.Module):
    """score(h, k) = h . k."""

    @torch.jit.export
    def prepare(self, keys: Tensor) -> Tensor:
        """The keys (B, S, H) as `forward` takes them."""
        return keys

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        """Scores (b, S) of queries (b, H) against what `prepare` gave (b, S, H)."""
        return torch.bmm(prepared, query.unsqueeze(2)).squeeze(2)


class GeneralScore(nn.Module):
    """score(h, k) = h . W k, with W k computed once a source."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    @torch.jit.export
    def prepare(self, keys: Tensor) -> Tensor:
        """As of `DotScore`."""
        prepared: Tensor = self.projection(keys)
        return prepared

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        """As of `DotScore`."""
        return torch.bmm(prepared, query.unsqueeze(2)).squeeze(2)


class ConcatScore(nn.Module):
    """score(h, k) = v . tanh(W_h h + W_k k), with W_k k computed once a source."""

    def __init__(
        self, query_projection: nn.Module, key_projection: nn.Module, direction: nn.Module
    ) -> None:
        super().__init__()
        self.query_projection = query_projection
        self.key_projection = key_projection
        self.direction = direction

    @torch.jit.export
    def prepare(self, keys: Tensor) -> Tensor:
        """As of `DotScore`."""
        prepared: Tensor = self.key_projection(keys)
        return prepared

    def forward(self, query: Tensor, prepared: Tensor) -> Tensor:
        """As of `DotScore`."""
        pairs = torch.tanh(self.query_projection(query).unsqueeze(1) + prepared)  # (b, S, H)
        scores: Tensor = self.direction(pairs)
        return scores.squeeze(2)


class Layer(nn.Module):
    """A decoder layer: input gates, and the recurrent part of the cell."""

    def __init__(self, inputs: nn.Module, recurrent: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.recurrent = recurrent

    def forward(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """The next state (b, H); the first layer's inputs are words (b,)."""
        return gru_cell(self.inputs(inputs), self.recurrent(hidden), hidden)


class Step(nn.Module):
    """The decoder, one word on. Compiled and traced alike: nothing here depends on the data.

    Args:
        layers: A `Layer` each; the first reads words.
        score: The attention score.
        combine: Luong equation 5, before its tanh: (b, 2H) -> (b, H).
        output: Scores of all words, (b, H) -> (b, V).
    """

    def __init__(
        self, layers: nn.ModuleList, score: nn.Module, combine: nn.Module, output: nn.Module
    ) -> None:
        super().__init__()
        self.layers = layers
        self.score = score
        self.combine = combine
        self.output = output

    def forward(
        self, words: Tensor, state: Tensor, keys: Tensor, prepared: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores the next word.

        Args:
            words: (b,), the previous words.
            state: (L, b, H), before them.
            keys: (b, S, H) fp32.
            prepared: (b, S, H) fp32.
            padding: (b, S) fp32, -inf at padding.

        Returns:
            Scores (b, V) and the new state (L, b, H).
        """
        inputs = words
        after: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            inputs = layer(inputs, state[i])
            after.append(inputs)
        query = inputs.float()
        weights = torch.softmax(self.score(query, prepared) + padding, 1)  # (b, S)
        context = torch.bmm(weights.unsqueeze(1), keys).squeeze(1)  # (b, 1, S) @ (b, S, H)
        both = torch.cat([inputs, context.to(inputs.dtype)], 1)
        return self.output(torch.tanh(self.combine(both))), torch.stack(after)


def best_words(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The best word of each row (b,) of scores (b, V), and its log-probability (b,), fp32."""
    best, words = scores.max(1)
    scores = scores.float()
    return words, best.float() - torch.logsumexp(scores, 1)


class GreedySearch(nn.Module):
    """The most probable next word at each step, for a batch of sources.

    Args:
        encoder: `PackedEncoder` or `TorchEncoder`.
        step: `Step`.
    """

    def __init__(self, encoder: nn.Module, step: nn.Module) -> None:
        super().__init__()
        # TorchScript sees no global names, and writes constants in an order that changes.
        self.pad, self.start, self.end = PAD, SOS, EOS
        self.encoder = encoder
        self.step = step

    def forward(
        self, source: Tensor, lengths: Tensor, max_words: int, early_exit: bool
    ) -> tuple[Tensor, Tensor]:
        """Decodes.

        Args:
            source: (B, S) int64 token ids, each row ending with EOS and then PAD.
            lengths: (B,) int64, real tokens of each row, EOS included.
            max_words: Steps; at least 1.
            early_exit: Stop as soon as every row has ended, and drop rows that have.

        Returns:
            Words (B, T) int64, each row ending with EOS, if it ended, and then PAD; and the
            log-probability of each among the words that may be said (B, T) fp32, 0 at PAD. T is
            `max_words`, or less after an early exit.
        """
        keys, prepared, padding, state = self.encoder(source, lengths)
        rows = source.shape[0]
        words = torch.full([rows], self.start, dtype=torch.long, device=source.device)
        replies = torch.full([rows, max_words], self.pad, dtype=torch.long, device=source.device)
        scores = torch.zeros([rows, max_words], device=source.device)
        ended = torch.zeros([rows], dtype=torch.bool, device=source.device)
        row_of = torch.arange(rows, device=source.device)  # batch row of each row still computed
        for t in range(max_words):
            logits, state = self.step(words, state, keys, prepared, padding)
            words, best = best_words(logits)
            words = words.masked_fill(ended, self.pad)
            replies.select(1, t).index_copy_(0, row_of, words)
            scores.select(1, t).index_copy_(0, row_of, best.masked_fill(ended, 0.0))
            ended = ended | (words == self.end)
            if early_exit:
                going = len(ended) - int(ended.sum())
                if going == 0:
                    return replies[:, : t + 1], scores[:, : t + 1]
                kept = (going + 7) // 8 * 8  # few shapes, as in model.packing
                if kept < len(ended):
                    _, order = torch.sort(ended.to(torch.uint8), 0)  # those still going first
                    keep = order[:kept]
                    words, ended, row_of = words[keep], ended[keep], row_of[keep]
                    keys, prepared, padding = keys[keep], prepared[keep], padding[keep]
                    state = state[:, keep]
        return replies, scores

    @torch.jit.export
    def follow(self, source: Tensor, lengths: Tensor, replies: Tensor) -> tuple[Tensor, Tensor]:
        """The best next word after each beginning of given replies.

        Args:
            source: As of `forward`.
            lengths: As of `forward`.
            replies: (B, T) int64 words.

        Returns:
            For each t the best word after ``replies[:, :t]``, (B, T), and its log-probability.
        """
        keys, prepared, padding, state = self.encoder(source, lengths)
        before = torch.full([source.shape[0]], self.start, dtype=torch.long, device=source.device)
        words: list[Tensor] = []
        scores: list[Tensor] = []
        for t in range(replies.shape[1]):
            logits, state = self.step(before, state, keys, prepared, padding)
            word, best = best_words(logits)
            words.append(word)
            scores.append(best)
            before = replies[:, t]
        return torch.stack(words, 1), torch.stack(scores, 1)
