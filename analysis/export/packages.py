"""A `torch.export` package, as far as it works: the encoder by source length, and one step.

`torch.export` records a computation without its Python. What it cannot record today decides the
shape of this package:

- A GRU over a source whose length is open: the recurrence is unrolled. So there is one encoder for
  each of a few widths (`buckets`), and a source is padded to the next; longer sources are refused.
- A loop that ends on data, and with it the search: the caller loops over the one-step decoder.
- oneDNN's prepared weights, and TorchScript's int8 layers: products are torch's own, fp32 or bf16.

The file is a zip archive: ``encoder-WIDTH.pt2`` and ``step.pt2`` as `torch.export.save` writes
them, and ``export.json``. Each encoder has its own copy of the weights.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import torch
from torch import Tensor, nn

from analysis.export.greedy import Step, best_words, gru_cell, padding_bias
from analysis.export.vetting import vetted
from model.errors import ExportError
from model.model_directory import DialogueModel
from model.vocabulary import EOS, PAD, SOS

METADATA = "export.json"
#: Of the files in the archive, which must not depend on when it was made.
_DATE = (1980, 1, 1, 0, 0, 0)

# Shapes: B batch, S width of the bucket, T target length, H hidden, L decoder layers.


#: Unrolling more steps takes minutes.
WIDEST = 32


def buckets(longest: int) -> list[int]:
    """Widths of the encoders for sources of up to `longest` tokens: 4, 8, 16, ..., `longest`."""
    widest = min(longest, WIDEST)
    return [*(width for width in (4, 8, 16) if width < widest), widest]


class BucketEncoder(nn.Module):
    """The encoder for sources of one width, unrolled.

    Args:
        table: (V, E).
        layers: Of each layer the two directions, each its input product and its recurrent product.
        score: What `prepare` of the attention score is.
        decoder_layers: L.
    """

    table: Tensor

    def __init__(
        self, table: Tensor, layers: nn.ModuleList, score: nn.Module, decoder_layers: int
    ) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.layers = layers
        self.score = score
        self.decoder_layers = decoder_layers

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `analysis.export.greedy.PackedEncoder.forward`, all S positions wide."""
        width = source.shape[1]
        real = torch.arange(width, device=source.device) < lengths.unsqueeze(1)  # (B, S)
        values = nn.functional.embedding(source, self.table)  # (B, S, E)
        states: list[Tensor] = []
        outputs: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            outputs = []
            for direction, steps in zip(layer, (range(width), range(width)[::-1]), strict=True):
                hidden, last = self._run(direction, values, real, steps)
                outputs.append(hidden)
                states.append(last)
            values = torch.cat(outputs, dim=2)  # (B, S, 2H)
        keys = (outputs[0] + outputs[1]).float()
        state = torch.stack([states[i % len(states)] for i in range(self.decoder_layers)])
        return keys, self.score.prepare(keys), padding_bias(real), state  # type: ignore[operator]

    @staticmethod
    def _run(
        direction: nn.Module, values: Tensor, real: Tensor, steps: range
    ) -> tuple[Tensor, Tensor]:
        """Outputs (B, S, H) and the last state (B, H); at padding the state stays."""
        inputs, recurrent = direction.children()
        gates = inputs(values)  # (B, S, 3H)
        state = gates.new_zeros(gates.shape[0], gates.shape[2] // 3)
        outputs = [state] * len(steps)
        for t in steps:
            new = gru_cell(gates[:, t], recurrent(state), state)
            state = torch.where(real[:, t].unsqueeze(1), new, state)
            outputs[t] = state
        return torch.stack(outputs, dim=1), state


class WordStep(nn.Module):
    """The decoder, one word on: the best next word, its log-probability, and the new state."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(
        self, words: Tensor, state: Tensor, keys: Tensor, prepared: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of `Step`, but for what is returned."""
        scores, state = self.step(words, state, keys, prepared, padding)
        return (*best_words(scores), state)


def make_package(
    encoder: nn.Module, step: nn.Module, longest: int, device: str
) -> dict[str, torch.export.ExportedProgram]:
    """Exports an encoder for each width, and the step.

    Args:
        encoder: A `BucketEncoder`.
        step: A `WordStep`.
        longest: Tokens of the longest source, EOS included.
        device: Where they will run.
    """
    rows = torch.export.Dim("rows", min=1, max=4096)
    width = torch.export.Dim("width", min=1, max=4096)
    programs = {}
    for size in buckets(longest):
        source = torch.full((3, size), EOS, device=device)
        lengths = torch.full((3,), size, device=device)
        programs[f"encoder-{size}.pt2"] = torch.export.export(
            encoder, (source, lengths), dynamic_shapes=({0: rows}, {0: rows})
        )
    keys, prepared, padding, state = encoder(source, lengths)
    programs["step.pt2"] = torch.export.export(
        step,
        (torch.full((3,), SOS, device=device), state, keys, prepared, padding),
        dynamic_shapes=(
            {0: rows},
            {1: rows},
            {0: rows, 1: width},
            {0: rows, 1: width},
            {0: rows, 1: width},
        ),
    )
    return programs


def write_package(
    programs: dict[str, torch.export.ExportedProgram], metadata: dict[str, Any]
) -> bytes:
    """The archive's bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, program in programs.items():
            content = io.BytesIO()
            torch.export.save(program, content)
            file.writestr(zipfile.ZipInfo(name, _DATE), content.getvalue())
        text = json.dumps(metadata, indent=2, sort_keys=True)
        file.writestr(zipfile.ZipInfo(METADATA, _DATE), text)
    return archive.getvalue()


def _program(content: bytes) -> Any:
    """A program of a file that need not be ours; see `analysis.export.vetting`."""
    return torch.export.load(io.BytesIO(vetted(content))).module()


class PackagedSearch:
    """A package called as `analysis.export.greedy.GreedySearch` is; the loop is here.

    Args:
        content: The bytes of the archive; no code that may be in them is run.

    Raises:
        ExportError: where it holds what could run code.
    """

    def __init__(self, content: bytes) -> None:
        self.encoders: dict[int, Any] = {}
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            for name in file.namelist():
                if name.endswith(".pt2"):
                    program = _program(file.read(name))
                    if name == "step.pt2":
                        self.step = program
                    else:
                        self.encoders[int(name[len("encoder-") : -len(".pt2")])] = program

    def __call__(
        self, source: Tensor, lengths: Tensor, max_words: int, early_exit: bool
    ) -> tuple[Tensor, Tensor]:
        """Decodes greedily.

        Raises:
            ExportError: for a source that is longer than the widest encoder.
        """
        return self._run(source, lengths, max_words, early_exit, None)

    def follow(self, source: Tensor, lengths: Tensor, replies: Tensor) -> tuple[Tensor, Tensor]:
        """The best next word after each beginning of given replies, and its log-probability."""
        return self._run(source, lengths, replies.shape[1], False, replies)

    @torch.inference_mode()
    def _run(
        self,
        source: Tensor,
        lengths: Tensor,
        max_words: int,
        early_exit: bool,
        replies: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        keys, prepared, padding, state = self._encode(source, lengths)
        before = torch.full_like(source[:, 0], SOS)
        ended = torch.zeros_like(before, dtype=torch.bool)
        words, scores = [], []
        for t in range(max_words):
            word, score, state = self.step(before, state, keys, prepared, padding)
            words.append(word.masked_fill(ended, PAD))
            scores.append(score.masked_fill(ended, 0.0))
            before = words[-1]
            if replies is not None:
                before = replies[:, t]
                continue
            ended = ended | (before == EOS)
            if early_exit and bool(ended.all()):
                break
        return torch.stack(words, dim=1), torch.stack(scores, dim=1)

    def _encode(self, source: Tensor, lengths: Tensor) -> Any:
        lengths = lengths.clamp(1, source.shape[1])
        longest = int(lengths.max())
        fitting = [width for width in sorted(self.encoders) if width >= longest]
        if not fitting:
            raise ExportError(
                f"a source of {longest} tokens is longer than this package's widest encoder "
                f"({max(self.encoders)}); use a TorchScript export for it."
            )
        padded = source.new_full((len(source), fitting[0]), PAD)
        padded[:, : min(source.shape[1], fitting[0])] = source[:, : fitting[0]]
        return self.encoders[fitting[0]](padded, lengths)


def longest_source(model: DialogueModel) -> int:
    """Tokens of the longest source of the model's training data, EOS included, at most."""
    return model.config.data.max_length
