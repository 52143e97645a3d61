"""Ways of decoding that are measured side by side: eager PyTorch, and every export.

Each takes a batch of sources and a number of steps and gives words, making all steps (``fixed``),
or stopping when every reply has ended (``natural``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from analysis.benchmark.eager import PublishedDecoder, greedy_of_all_rows
from analysis.benchmark.sources import SourceBatch
from analysis.export import KINDS, PRECISIONS, Samples, export, load_exported
from analysis.export.exporting import first_line
from analysis.export.samples import pad
from model.decoding import Stepper, greedy
from model.errors import ExportError
from model.graphs import RecordedGreedy
from model.model_directory import DialogueModel
from model.vocabulary import EOS, SPECIALS

#: A share of next words that every export has.
_ANY = 1e-9

#: Kind and form of each export, and what a table calls it; as of `analysis.export.export`.
_FORMS = {
    "script": ("torchscript", "script", "TorchScript, scripted"),
    "trace": ("torchscript", "trace", "TorchScript, traced"),
    "onnx": ("onnx", "script", "ONNX Runtime"),
    "torch-export": ("torch-export", "script", "torch.export"),
    "text": ("text", "script", "TorchScript, text in and out"),
}
#: Every export that can be measured, as FORM-PRECISION.
EXPORTS = (
    *(f"{form}-{precision}" for precision in PRECISIONS for form in ("script", "trace")),
    *("text-fp32", "onnx-fp32", "torch-export-fp32", "torch-export-bf16"),
)
#: What the others are compared with.
PUBLISHED = "published"

#: (batch, steps) to words (B, T), or to what `Ways.words` reads.
Decode = Callable[[SourceBatch, int], Any]
#: (batch, given words (B, T)) to the best next word after each beginning of them (B, T).
Follow = Callable[[SourceBatch, Tensor], Tensor]


def _as_they_are(words: Any) -> Tensor:
    found: Tensor = words
    return found


@dataclass(frozen=True)
class Ways:
    """How one side decodes.

    Attributes:
        decode: By way of stopping; empty where it cannot be had.
        follow: For what it says on a given prefix, or None.
        words: Reads the words (B, T) out of what `decode` gives; not part of what is timed.
    """

    decode: Mapping[str, Decode] = field(default_factory=dict)
    follow: Follow | None = None
    words: Callable[[Any], Tensor] = _as_they_are


@dataclass(frozen=True)
class Side:
    """One way of decoding on one device.

    Attributes:
        name: Short, as in ``--exports``.
        framework: As in tables.
        ways: How it decodes.
        reason: Why it cannot be had.
    """

    name: str
    framework: str
    ways: Ways = Ways()
    reason: str | None = None


def sides_of(
    model: DialogueModel, exports: Sequence[str], progress: Callable[[], object] = lambda: None
) -> Iterator[Side]:
    """Builds every side for the device that the model is on; one that cannot be built says why.

    Args:
        model: The model.
        exports: Of `EXPORTS`.
        progress: Called after each.
    """
    makers: dict[str, tuple[str, Callable[[], Ways]]] = {
        PUBLISHED: ("PyTorch eager, as published", partial(_published, model)),
        "eager": ("PyTorch eager, this project's", partial(_eager, model, prepared=False)),
        "prepared": ("PyTorch eager, decoder prepared", partial(_eager, model, prepared=True)),
    }
    if model.model.output.weight.device.type == "cuda":
        makers["graph"] = "PyTorch, CUDA graph", partial(_graph, model)
    for name in exports:
        form, precision = name.rsplit("-", 1)
        framework = f"{_FORMS[form][-1]}, {precision}"
        if form == "text":
            makers[name] = framework, partial(_text, model)
        else:
            makers[name] = framework, partial(_export, model, form, precision)
    for name, (framework, make) in makers.items():
        try:
            yield Side(name, framework, make())
        except Exception as error:  # exporters raise anything, and the other sides are of use
            yield Side(name, framework, reason=first_line(error))
        progress()


def _published(model: DialogueModel) -> Ways:
    decoder = PublishedDecoder(model.model)

    def fixed(batch: SourceBatch, steps: int) -> Tensor:
        return decoder.greedy(batch.columns, batch.lengths, steps)[0].t()

    def follow(batch: SourceBatch, given: Tensor) -> Tensor:
        return decoder.greedy(batch.columns, batch.lengths, given.shape[1], given.t())[0].t()

    return Ways({"fixed": fixed}, follow)


def _eager(model: DialogueModel, *, prepared: bool) -> Ways:
    stepper = Stepper(model.model, fold=True) if prepared else None

    def fixed(batch: SourceBatch, steps: int) -> Tensor:
        return greedy_of_all_rows(model.model, batch.rows, batch.lengths, steps, stepper)

    def natural(batch: SourceBatch, steps: int) -> Tensor:
        return greedy(model.model, batch.rows, batch.lengths, steps, stepper)

    def follow(batch: SourceBatch, given: Tensor) -> Tensor:
        steps = given.shape[1]
        return greedy_of_all_rows(
            model.model, batch.rows, batch.lengths, steps, stepper, given=given
        )

    return Ways({"fixed": fixed, "natural": natural}, follow)


def _graph(model: DialogueModel) -> Ways:
    """As a served model on a GPU; it always stops by itself."""
    stepper = Stepper(model.model, fold=True)
    recorded: dict[tuple[int, int], RecordedGreedy] = {}

    def natural(batch: SourceBatch, steps: int) -> Tensor:
        rows, width = batch.rows.shape
        size = rows, -(-width // 16) * 16
        if size not in recorded:
            recorded[size] = RecordedGreedy(model.model, stepper, *size)
        return recorded[size](batch.rows, steps)

    return Ways({"natural": natural})


def _export(model: DialogueModel, form: str, precision: str) -> Ways:
    module = _exported(model, form, precision)

    def lengths(batch: SourceBatch) -> Tensor:
        """Where the export reads them: packing a sequence wants them on the CPU."""
        return batch.lengths.to(batch.rows.device) if form == "torch-export" else batch.lengths

    def decode(*, early_exit: bool) -> Decode:
        def words(batch: SourceBatch, steps: int) -> Tensor:
            found: Tensor = module(batch.rows, lengths(batch), steps, early_exit)[0]
            return found

        return words

    def follow(batch: SourceBatch, given: Tensor) -> Tensor:
        found: Tensor = module.follow(batch.rows, lengths(batch), given)[0]
        return found

    followed = follow if hasattr(module, "follow") else None
    return Ways({"fixed": decode(early_exit=False), "natural": decode(early_exit=True)}, followed)


def _text(model: DialogueModel) -> Ways:
    """From texts to texts; it always stops by itself, and its longest reply is in the file."""
    module, longest = _exported(model, "text", "fp32"), model.config.data.max_length

    def natural(batch: SourceBatch, steps: int) -> list[str]:
        if steps != longest:
            raise ExportError(f"its replies have at most {longest} words, not {steps}.")
        replies: list[str] = module(batch.texts)
        return replies

    def words(replies: list[str]) -> Tensor:
        ids = [[*model.vocabulary.encode(reply), EOS] for reply in replies]
        return pad(ids)[0][:, :longest]  # one that was cut off has no EOS

    return Ways({"natural": natural}, words=words)


def _exported(model: DialogueModel, form: str, precision: str) -> Any:
    """The export as a caller has it: written to a file and opened.

    Agreement is part of what a benchmark reports, so that the check before the file is written is
    a small one.
    """
    kind, form, _ = _FORMS[form]
    device = model.model.output.weight.device.type
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / f"model{KINDS[kind]}"
        export(
            model,
            file,
            kind=kind,
            form=form,
            precision=precision,
            device=device,
            samples=_small_samples(model),
            min_agreement=None if precision == "fp32" else _ANY,
        )
        return load_exported(file, device)


def _small_samples(model: DialogueModel) -> Samples:
    words = range(len(SPECIALS), len(model.vocabulary))
    return Samples([[word, EOS] for word in words[:8]], "words of the vocabulary")
