"""Exporting a trained model: TorchScript, text-in text-out TorchScript, ONNX, torch.export.

from analysis.export import export, load_exported
exported = export(model, Path("small.pt"), precision="int8")
search = load_exported(exported.path)
words, scores = search(source, lengths, 10, True)
"""

from analysis.export.build import FORMS, build
from analysis.export.exporting import KINDS, Exported, export, load_exported
from analysis.export.layers import PRECISIONS
from analysis.export.parity import MIN_AGREEMENT, Parity
from analysis.export.samples import Samples, real_samples
from analysis.export.text import build_text
from model.errors import ExportError, ParityError

__all__ = [
    "FORMS",
    "KINDS",
    "MIN_AGREEMENT",
    "PRECISIONS",
    "ExportError",
    "Exported",
    "Parity",
    "ParityError",
    "Samples",
    "build",
    "build_text",
    "export",
    "load_exported",
    "real_samples",
]
