"""Exporting a model: build it, compare it with the model, and write the file only if it agrees."""

from __future__ import annotations

import io
import json
import platform
import re
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.export.build import build, check_choices, make_package_parts
from analysis.export.layers import NEEDS_ONEDNN, has_onednn
from analysis.export.onnx_graph import OnnxSearch, graph_text, make_graph
from analysis.export.packages import (
    METADATA,
    PackagedSearch,
    buckets,
    longest_source,
    make_package,
    write_package,
)
from analysis.export.parity import MIN_AGREEMENT, Parity, check_parity, check_text_parity
from analysis.export.quiet import quiet
from analysis.export.samples import Samples, awkward_texts, real_samples
from analysis.export.text import build_text
from model.errors import ConfigurationError, ExportError
from model.files import atomic_write, storage_errors
from model.model_directory import DialogueModel

#: What can be written, and the suffix of each file.
KINDS = {"torchscript": ".pt", "text": ".pt", "onnx": ".onnx", "torch-export": ".pt2.zip"}
#: Number of the format of what a file says of itself.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Attributes:
        path: The file.
        kind: One of `KINDS`.
        parity: How far it agrees with the model.
        seconds: To build, compare and write it.
        bytes: Its size.
        graph: Gives the computation as text.
        warnings: What speaks against trusting the comparison; see `Samples.warnings`.
    """

    path: Path
    kind: str
    parity: Parity
    seconds: float
    bytes: int
    graph: Callable[[], str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Built:
    """What is compared, how its file is written once that is known to agree, and its graph."""

    search: Any
    content: Callable[[dict[str, Any]], bytes]
    graph: Callable[[], str]


def export(
    model: DialogueModel,
    out: Path,
    *,
    kind: str = "torchscript",
    form: str = "script",
    precision: str = "fp32",
    device: str = "cpu",
    samples: Samples | None = None,
    min_agreement: float | None = None,
    progress: bool = False,
) -> Exported:
    """Exports a model, if what was built says what the model says.

    What is compared has been written to memory and read back, as it will lie in the file.

    Args:
        model: The model.
        out: The file to write.
        kind: ``torchscript``, ``text`` (text in, text out; fp32), ``onnx`` (fp32) or
            ``torch-export`` (fp32 or bf16).
        form: ``script`` or ``trace``, of TorchScript; see `analysis.export.build.build`.
        precision: ``fp32``, ``bf16`` or ``int8``.
        device: ``cpu`` or ``cuda``.
        samples: Inputs to compare on; None takes `real_samples`.
        min_agreement: Share of next words that bf16 and int8 must agree on; None takes
            `MIN_AGREEMENT`. Not for fp32, which must agree on all but near ties.
        progress: Show progress bars, if standard error is a terminal.

    Raises:
        ConfigurationError: for a combination that there is not.
        ExportError: where this torch cannot compute it.
        ParityError: where it does not agree; nothing is written.
        StorageError: where the file cannot be written.
    """
    started = time.monotonic()
    _check(kind, form, precision, device, min_agreement)
    samples = samples or real_samples(model)
    if kind == "torch-export":
        samples = samples.within(max(buckets(longest_source(model))))
    built = _BUILDERS[kind](model, form, precision, device)
    required = 1.0 if precision == "fp32" else (min_agreement or MIN_AGREEMENT)
    search = built.search.search if kind == "text" else built.search
    parity = check_parity(
        model, search, samples, required=required, device=device, progress=progress
    )
    if kind == "text":
        texts = samples.texts(model) + awkward_texts(model)
        parity = check_text_parity(parity, model, built.search, texts, progress=progress)
    parity.check(f"{kind}, {form}, {precision} on {device}")
    metadata = _metadata(model, parity, kind=kind, form=form, precision=precision, device=device)
    content = built.content(metadata)
    with storage_errors(out):
        atomic_write(out, content)
    return Exported(
        path=out,
        kind=kind,
        parity=parity,
        seconds=time.monotonic() - started,
        bytes=len(content),
        graph=built.graph,
        warnings=tuple(samples.warnings()),
    )


def _check(kind: str, form: str, precision: str, device: str, min_agreement: float | None) -> None:
    problems = []
    if kind not in KINDS:
        problems.append(f"kind: must be one of {', '.join(KINDS)}, but got {kind!r}.")
    if kind in ("text", "onnx") and precision != "fp32":
        problems.append(f"precision: {kind} is fp32, but got {precision!r}.")
    if kind == "torch-export" and precision == "int8":
        problems.append("precision: torch-export is fp32 or bf16, but got 'int8'.")
    if kind != "torchscript" and form != "script":
        problems.append(f"form: {kind} has no {form!r}; leave it out.")
    if kind in ("text", "onnx") and device != "cpu":
        problems.append(f"device: {kind} is for the CPU, but got {device!r}.")
    if min_agreement is not None and precision == "fp32":
        problems.append(
            f"min_agreement: fp32 must agree on all but near ties, but got {min_agreement}; "
            "leave it out, or take bf16 or int8."
        )
    if problems:
        raise ConfigurationError("export", problems)
    check_choices(form=form, precision=precision, device=device)


def _metadata(
    model: DialogueModel, parity: Parity, *, kind: str, form: str, precision: str, device: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "form": form if kind in ("torchscript", "text") else None,
        "precision": precision,
        "device": device,
        "max_words": model.config.data.max_length,
        "model_sha256": model.manifest.get("manifest_sha256"),
        "lineage": model.manifest.get("lineage"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "parity": parity.to_mapping(),
    }


# Each kind


def _build_torchscript(model: DialogueModel, form: str, precision: str, device: str) -> _Built:
    return _torchscript(build(model, form=form, precision=precision, device=device), device)


def _build_text(model: DialogueModel, form: str, precision: str, device: str) -> _Built:
    return _torchscript(build_text(model), device)


def _torchscript(module: torch.jit.ScriptModule, device: str) -> _Built:
    read_back = _load_torchscript(io.BytesIO(_saved(module, {})), device)
    return _Built(
        read_back,
        lambda metadata: _saved(read_back, metadata),
        lambda: _graph_text(module),
    )


def _graph_text(module: torch.jit.ScriptModule) -> str:
    return re.sub(r"(, scope: \S+)? # \S+:\d+:\d+", "", str(module.inlined_graph))  # of our source


def _saved(module: torch.jit.ScriptModule, metadata: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    text = json.dumps(metadata, indent=2, sort_keys=True)
    with quiet():
        torch.jit.save(module, content, _extra_files={METADATA: text})
    return content.getvalue()


def _load_torchscript(file: Any, device: str) -> torch.jit.ScriptModule:
    with quiet():
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            file, map_location=device
        )
    return module


def _build_onnx(model: DialogueModel, form: str, precision: str, device: str) -> _Built:
    def content(metadata: dict[str, Any]) -> Any:
        texts = {"export": json.dumps(metadata, sort_keys=True)}
        return make_graph(model.model, model.config.data.max_length, texts)

    made = content({})
    return _Built(
        OnnxSearch(made.SerializeToString()),
        lambda metadata: bytes(content(metadata).SerializeToString(deterministic=True)),
        lambda: graph_text(made),
    )


def _build_package(model: DialogueModel, form: str, precision: str, device: str) -> _Built:
    encoder, step = make_package_parts(model, precision=precision, device=device)
    programs = make_package(encoder, step, longest_source(model), device)
    return _Built(
        PackagedSearch(write_package(programs, {})),
        lambda metadata: write_package(programs, metadata),
        lambda: "\n".join(f"{name}\n{program.graph}" for name, program in programs.items()),
    )


_BUILDERS: dict[str, Callable[[DialogueModel, str, str, str], _Built]] = {
    "torchscript": _build_torchscript,
    "text": _build_text,
    "onnx": _build_onnx,
    "torch-export": _build_package,
}


# Reading


def load_exported(path: Path | str, device: str = "cpu") -> Any:
    """Opens what `export` wrote.

    Args:
        path: The file; its content decides what it is.
        device: Where a TorchScript module is put.

    Returns:
        Of ``text`` a module from a list of texts to their replies; else something to call with
        ``(source, lengths, max_words, early_exit)``, as `analysis.export.build.build` returns.

    Raises:
        ExportError: where it is not an export, or damaged.
        StorageError: where it cannot be read.
    """
    path = Path(path)
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        kind = read_metadata(content)["kind"]
        if kind == "onnx":
            return OnnxSearch(content)
        if kind == "torch-export":
            return PackagedSearch(content)
        return _load_torchscript(io.BytesIO(content), device)
    except Exception as error:  # each of the four libraries raises its own
        if isinstance(error, ExportError):
            raise ExportError(f"{path}: {error}") from None
        if "mkldnn" in str(error) and not has_onednn():
            raise ExportError(
                f"{path}: as a TorchScript or text file for the CPU it {NEEDS_ONEDNN}"
            ) from None
        raise ExportError(f"{path}: is damaged: {first_line(error)}.") from None


def first_line(error: Exception) -> str:
    """What an error says, on one line; of one that says nothing, what it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_metadata(content: bytes) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        ExportError: where the bytes are not of an export.
    """
    text: str | bytes | None = None
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            names = [name for name in file.namelist() if name.split("/")[-1] == METADATA]
            text = file.read(names[0]) if names else None
    elif content:
        import onnx

        try:
            properties = onnx.load_model_from_string(content).metadata_props
            text = {entry.key: entry.value for entry in properties}.get("export")
        except Exception:  # protobuf's errors have no common base
            text = None
    if text is None:
        raise ExportError("is not an export of this project, or is cut off.")
    found = dict(json.loads(text))
    if found["format"] > FORMAT:
        raise ExportError(f"has format {found['format']}, written by a newer version.")
    return found
