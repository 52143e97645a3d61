"""`export`: a model as a file that needs neither this project nor, but for TorchScript, torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from analysis.commands.common import Subcommands, add_model
from model.cli import positive, table
from model.files import atomic_write, storage_errors

_DESCRIPTION = """\
Writes a model as a file that runs without this project, after comparing what it says with what the
model says on 1,000 real inputs; what does not agree is not written.

kinds (--kind):
  torchscript   the whole greedy search, word ids in, word ids out; Python or C++
  text          text in, text out: normalisation and vocabulary inside; for deploy/cpp
                both, for the CPU, want a torch or libtorch that was built with oneDNN, as usual
  onnx          the whole greedy search for onnxruntime and others
  torch-export  a zip of torch.export programs: encoders by source length, and one decoder step

methods (--method), of torchscript:
  script        all of it compiled; on the CPU the fastest, and every precision
  trace         encoder and decoder step traced, the loop around them compiled

precisions (--precision):
  fp32          the model's own words, but where its two best scores are within 1e-4
  bf16          half the memory; faster where the processor has bf16 products
  int8          products of 8 bits, on the CPU; half the file; the fastest

examples:
  python -m analysis export everyday
  python -m analysis export everyday --precision int8
  python -m analysis export everyday --kind text --out everyday.pt
  python -m analysis export everyday --method trace --graph -
"""


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    export = commands.add_parser(
        "export",
        help="write a model as TorchScript, ONNX or torch.export",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(export)
    kinds = ("torchscript", "text", "onnx", "torch-export")
    export.add_argument("--kind", choices=kinds, default="torchscript", help="(%(default)s)")
    export.add_argument(
        "--method", choices=("script", "trace"), default="script", help="(%(default)s)"
    )
    export.add_argument(
        "--precision", choices=("fp32", "bf16", "int8"), default="fp32", help="(%(default)s)"
    )
    export.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
    export.add_argument(
        "--out", type=Path, metavar="FILE", help="default: MODEL-METHOD-PRECISION.pt or so, here"
    )
    export.add_argument(
        "--data",
        metavar="CORPUS",
        help="compare on this corpus or prepared data set; default the model's own, or, where that "
        "is not at hand, the embedded corpus",
    )
    export.add_argument(
        "--inputs",
        type=positive,
        default=1000,
        metavar="N",
        help="compare on so many (%(default)s)",
    )
    export.add_argument(
        "--min-agreement",
        type=_share,
        metavar="SHARE",
        help="of next words, for bf16 and int8 alone (0.99); fp32 must agree on all but near ties",
    )
    export.add_argument("--graph", metavar="FILE", help="write the graph as text too; - prints it")
    export.add_argument("--json", action="store_true", help="print JSON instead of a table")
    export.set_defaults(run=_export)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, but got {text!r}")
    return value


def _export(arguments: argparse.Namespace) -> int:
    from analysis.export import KINDS, Exported, export, real_samples
    from model.model_directory import load

    model = load(arguments.model, arguments.registry, arguments.device)
    out = arguments.out or Path(_default_name(arguments, model.path) + KINDS[arguments.kind])
    exported: Exported = export(
        model,
        out,
        kind=arguments.kind,
        form=arguments.method,
        precision=arguments.precision,
        device=arguments.device,
        samples=real_samples(model, arguments.data, arguments.inputs),
        min_agreement=arguments.min_agreement,
        progress=True,
    )
    if arguments.graph:
        _show_graph(arguments.graph, exported.graph())
    for warning in exported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.json:
        figures = {"path": str(out), "kind": exported.kind, "bytes": exported.bytes}
        figures |= {"seconds": exported.seconds, "parity": exported.parity.to_mapping()}
        figures |= {"warnings": list(exported.warnings)}
        print(json.dumps(figures, indent=2))
        return 0
    print(f"compared on {exported.parity.origin}\n")
    print(table(exported.parity.rows(), ("agreement with the model", "")))
    print(
        f"\nwrote {out} ({exported.bytes / 1e6:.1f} MB) in {exported.seconds:.1f} s; "
        f"compare its speed: python -m analysis benchmark {arguments.model}"
    )
    return 0


def _default_name(arguments: argparse.Namespace, path: Path) -> str:
    path = path.resolve()
    name = f"{path.parent.name}-{path.name}" if path.name.isdigit() else path.name
    if arguments.kind != "torchscript":
        name += f"-{arguments.kind}"
    else:
        name += f"-{arguments.method}"
    return f"{name}-{arguments.precision}" + ("-cuda" if arguments.device == "cuda" else "")


def _show_graph(where: str, graph: str) -> None:
    if where == "-":
        print(graph)
    else:
        with storage_errors(Path(where)):
            atomic_write(where, graph.encode())
