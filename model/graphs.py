"""CUDA graphs: a whole training step, or a decoding step, as one launch.

At the published size a GPU computes a step's hundreds of kernels faster than Python can launch
them. A graph records them once, with the addresses of their inputs and outputs, and replays them
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So shapes and addresses must not
change: batches are padded to one size (`model.batching`), laid out statically (`model.packing`),
and copied into buffers.

On a CPU, where nothing can be recorded, the same classes run the same functions on the same buffers
each time; that is how the tests show them equal to the plain step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.batching import Batch
from model.decoding import NEVER_SAID, Stepper, best_word
from model.loss import Losses
from model.packing import Packing
from model.seq2seq import DropoutMasks, Encoded, Seq2Seq
from model.vocabulary import EOS, PAD, SOS

#: Calls that run plainly before a graph is recorded: libraries set themselves up at their first.
WARM_UP = 3

StepResult = tuple[Losses, Tensor, Tensor]


class Recorded:
    """A function of buffers whose kernels are recorded at once and replayed at each call.

    Args:
        function: Reads and writes tensors that stay where they are; returns such tensors.
        device: Where they are.
    """

    def __init__(self, function: Callable[[], Any], device: torch.device) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as one that saves a checkpoint, may use the GPU meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = function()

    def __call__(self) -> Any:
        """What the function returns; the same tensors at each call, with new contents."""
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._result


class RecordedTraining:
    """Training steps, recorded by kind (teacher-forced and free-running).

    The first steps of a kind are plain ones, on a stream of their own as recording demands; they
    train like any other. So do steps of another batch size, as at the end of an epoch.

    Args:
        step: The plain step: (batch, teacher_forcing, dropout) to its result.
        device: Where it runs.
    """

    def __init__(
        self, step: Callable[[Batch, bool, DropoutMasks | None], StepResult], device: torch.device
    ) -> None:
        self._step = step
        self._device = device
        self._plain_calls = {True: 0, False: 0}
        self._recorded: dict[bool, Recorded] = {}
        self._batch: Batch | None = None
        self._dropout: DropoutMasks | None = None

    def __call__(
        self, batch: Batch, teacher_forcing: bool, dropout: DropoutMasks | None
    ) -> StepResult:
        """One update of the model."""
        if self._batch is None:
            self._make_buffers(batch, dropout)
        assert self._batch is not None
        same = batch.source.shape == self._batch.source.shape
        if not same or batch.target.shape != self._batch.target.shape:
            return self._step(batch, teacher_forcing, dropout)
        if self._plain_calls[teacher_forcing] < WARM_UP:
            self._plain_calls[teacher_forcing] += 1
            return self._on_a_side_stream(batch, teacher_forcing, dropout)
        self._fill_buffers(batch, dropout)
        if teacher_forcing not in self._recorded:
            self._recorded[teacher_forcing] = Recorded(
                lambda: self._step(self._static_batch(), teacher_forcing, self._dropout),
                self._device,
            )
        losses, encoder_norm, decoder_norm = self._recorded[teacher_forcing]()
        return replace(losses, tokens=batch.target_tokens), encoder_norm, decoder_norm

    def _make_buffers(self, batch: Batch, dropout: DropoutMasks | None) -> None:
        self._batch = replace(batch, source=batch.source.clone(), target=batch.target.clone())
        if dropout is not None:
            self._dropout = DropoutMasks(
                [mask.clone() for mask in dropout.encoder],
                [mask.clone() for mask in dropout.decoder],
                dropout.scale,
            )

    def _fill_buffers(self, batch: Batch, dropout: DropoutMasks | None) -> None:
        assert self._batch is not None
        self._batch.source.copy_(batch.source)
        self._batch.target.copy_(batch.target)
        if dropout is not None and self._dropout is not None:
            ours = self._dropout.encoder + self._dropout.decoder
            for mask, drawn in zip(ours, dropout.encoder + dropout.decoder, strict=True):
                mask.copy_(drawn)

    def _static_batch(self) -> Batch:
        """The buffers as a batch whose layouts are computed anew from them, within the graph."""
        assert self._batch is not None
        return self._batch.laid_out_statically()

    def _on_a_side_stream(
        self, batch: Batch, teacher_forcing: bool, dropout: DropoutMasks | None
    ) -> StepResult:
        if self._device.type != "cuda":
            return self._step(batch, teacher_forcing, dropout)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self._step(batch, teacher_forcing, dropout)
        current.wait_stream(stream)
        return result


class RecordedGreedy:
    """Greedy decoding of batches of one size, as `model.decoding.greedy`.

    Args:
        model: The model.
        stepper: Made of it.
        rows: B, the most sources at once; fewer are filled up.
        width: S, the longest source; shorter ones are filled up.
    """

    @torch.no_grad()
    def __init__(self, model: Seq2Seq, stepper: Stepper, rows: int, width: int) -> None:
        device = model.output.weight.device
        self._model, self._stepper, self._device = model, stepper, device
        self._never = torch.tensor(NEVER_SAID, device=device)
        self._source = torch.full((rows, width), PAD, device=device)
        self._source[:, 0] = EOS
        self._words = torch.full((rows,), SOS, device=device)
        self._ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._encoded = self._encode()
        self._state = [hidden.clone() for hidden in self._encoded.state]
        for _ in range(WARM_UP):
            self._begin()
            self._next()
        self._recorded = [Recorded(f, device) for f in (self._begin, self._next)]

    def _encode(self) -> Encoded:
        packing = Packing.static(self._source != PAD)
        embedded = self._model.embedding(packing.pack(self._source)).to(self._stepper.dtype)
        return self._model.encode_packed(embedded, packing)

    def _begin(self) -> None:
        """Encodes what is in the source's buffer, into the buffers of `Encoded`."""
        encoded = self._encode()
        self._encoded.keys.copy_(encoded.keys)
        self._encoded.mask.copy_(encoded.mask)
        _copy(self._state, list(encoded.state))
        self._words.fill_(SOS)
        self._ended.fill_(False)

    def _next(self) -> None:
        """One word for every row; PAD for those that have ended."""
        scores, state = self._stepper.step(self._words, self._state, self._encoded)
        best = best_word(scores, self._never)
        self._words.copy_(best.masked_fill(self._ended, PAD))
        self._ended.logical_or_(self._words == EOS)
        _copy(self._state, state)

    @torch.no_grad()
    def __call__(self, source: Tensor, max_words: int) -> Tensor:
        """Replies to sources (b, s), with b and s at most `rows` and `width`.

        Returns:
            Token ids (b, T), T at most `max_words`; each row ends with EOS, if it ended, then PAD.
        """
        rows, width = source.shape
        self._source.fill_(PAD)
        self._source[rows:, 0] = EOS
        self._source[:rows, :width] = source
        begin, following = self._recorded
        begin()
        words = []
        for _ in range(max_words):
            following()
            words.append(self._words[:rows].clone())
            if bool(self._ended[:rows].all()):
                break
        return torch.stack(words, dim=1)


def _copy(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
