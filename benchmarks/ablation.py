"""What each part of the training step is worth: the step with one part taken out, side by side.

    python benchmarks/ablation.py --data data/cornell.safetensors [--precision auto]

Every side trains on the same batches in a process of its own, and they take turns (see
benchmarks/side_by_side.py). "whole" is the project's step; the others put what torch offers in the
place of one part, or leave it out. A figure is how many times as long an iteration takes without
the part. ``--only`` picks sides, ``--teacher-forcing-ratio 0`` measures free-running batches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import model.batching  # noqa: E402
import model.linear  # noqa: E402
import model.loss  # noqa: E402
import model.optim  # noqa: E402
import model.packing  # noqa: E402
import model.seq2seq  # noqa: E402
import model.training  # noqa: E402
from benchmarks.same_work import open_data  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    Side,
    Spread,
    Work,
    add_output_options,
    add_turn_options,
    environment,
    make_parser,
    measured,
    shown,
    write_json,
)
from benchmarks.training_step import one_iteration  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from model.config import RULES, Config  # noqa: E402
from model.packing import Packing  # noqa: E402

WHOLE = "whole"


# What stands in for each part


def torch_gru(
    layer: nn.GRU, inputs: Tensor, state: Tensor | None, packing: Packing
) -> tuple[Tensor, Tensor]:
    """`model.gru.gru` by torch's own layer, which reads the few padding positions as words."""
    sizes = torch.tensor(packing.sizes)
    if state is not None:
        state = state.to(inputs.dtype).index_select(1, packing.order)
    weights = [weight.to(inputs.dtype) for weight in layer._flat_weights]
    directions = 2 if layer.bidirectional else 1
    if state is None:
        state = inputs.new_zeros(directions, len(packing.order), layer.hidden_size)
    outputs, _ = torch._VF.gru(
        inputs, sizes, state, weights, True, 1, 0.0, True, layer.bidirectional
    )
    outputs = torch.stack(outputs.chunk(directions, dim=-1))
    return outputs, outputs.index_select(1, packing.last)


class _PlainLoss:
    """`model.loss._TokenLoss` by torch's linear layer and cross entropy."""

    @staticmethod
    def apply(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """As `torch.autograd.Function.apply`."""
        scores = F.linear(hidden, weight.to(hidden.dtype), bias.to(hidden.dtype))
        return F.cross_entropy(scores.float(), targets, reduction="none")


def bernoulli(size: int, dropout: float, generator: torch.Generator) -> Tensor:
    """`model.seq2seq._kept` by torch's own draw."""
    return torch.empty(size).bernoulli_(1 - dropout, generator=generator)


def _static(tokens: Tensor, lengths: Tensor) -> Packing:
    return Packing.static(tokens != 0)


def _exact_shapes(counts: list[int], rows: int) -> list[int]:
    return counts


def _unfused(**options: Any) -> Callable[[], None]:
    def patch() -> None:
        for name, rule in list(model.optim._UPDATE_RULES.items()):
            model.optim._UPDATE_RULES[name] = _with(rule, options)

    return patch


def _with(rule: Any, options: dict[str, Any]) -> Any:
    def make(parameters: Any, lr: float, fused: bool) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = rule(parameters, lr=lr, **options)
        return optimizer

    return make


def _set(module: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(module, name, value)


#: What is done in a side's process before its trainer is made.
PARTS: dict[str, Callable[[], None]] = {
    "torch's GRU layers": _set(model.seq2seq, "gru", torch_gru),
    "padding computed": _set(model.batching, "_packing", _static),
    "every shape its own": _set(model.packing, "_rounded", _exact_shapes),
    "MKL for fp32 products": _set(model.linear, "_ONEDNN", None),
    "torch's cross entropy": _set(model.loss, "_TokenLoss", _PlainLoss),
    "torch's dropout draws": _set(model.seq2seq, "_kept", bernoulli),
    "foreach optimizers": _unfused(foreach=True),
    "optimizers one tensor at a time": _unfused(foreach=False),
    "memory given back": _set(model.training, "keep_freed_memory", lambda: False),
}


# The benchmark


def build(part: str, data: str, fields: dict[str, Any], threads: int) -> Work:
    """A side: the trainer's iteration, with one part replaced."""
    torch.set_num_threads(threads)
    if part != WHOLE:
        PARTS[part]()
    trainer = model.training.Trainer(open_data(data), Config.from_mapping(fields))
    return Work(iterate=one_iteration(trainer))


def report(results: dict[str, Any], markdown: bool) -> str:
    """One row for each side."""
    rows = [
        (
            name if name == WHOLE else f"with {name}",
            Spread(**side["seconds"]).text(1, scale=1000),
            Spread(**side["longer"]).text(),
            f"{side['peak_memory_bytes'] / 1e6:.0f}",
        )
        for name, side in results["sides"].items()
    ]
    return shown(rows, ("side", "ms an iteration", "times as long", "peak MB"), markdown)


def main(argv: Sequence[str] | None = None) -> int:
    """Takes turns and prints how much longer a step takes without each part."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", required=True, help="prepared data set, or synthetic:WORDS")
    parser.add_argument("--hidden-size", type=positive, default=500, help="H (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="B (%(default)s)")
    parser.add_argument(
        "--precision", choices=RULES["precision"].choices, default="auto", help="(%(default)s)"
    )
    parser.add_argument("--teacher-forcing-ratio", type=float, default=1.0, metavar="RATIO")
    parser.add_argument(
        "--only", choices=list(PARTS), nargs="+", default=list(PARTS), metavar="PART",
        help="of: " + ", ".join(PARTS),
    )  # fmt: skip
    add_turn_options(parser, turns=7, iterations=6)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    fields = {
        name: getattr(arguments, name)
        for name in ("hidden_size", "batch_size", "precision", "teacher_forcing_ratio")
    }
    sides = [
        Side(
            part,
            build,
            {
                "part": part,
                "data": arguments.data,
                "fields": fields | {"device": "cpu"},
                "threads": arguments.threads,
            },
        )
        for part in (WHOLE, *arguments.only)
    ]
    found = measured(
        sides,
        "ablation",
        turns=arguments.turns,
        iterations=arguments.iterations,
        warm_up=arguments.warm_up,
    )
    for side in found.values():
        side["longer"] = asdict(Spread.of([1 / ratio for ratio in side["ratios"]]))
    results = {
        "benchmark": "ablation",
        "settings": {key: str(value) for key, value in vars(arguments).items()},
        "environment": environment("cpu", arguments.threads),
        "sides": found,
    }
    write_json(arguments.json, results)
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
