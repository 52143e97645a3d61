"""Training iterations of this project against the baseline's, side by side in one run.

    python benchmarks/training_step.py --data data/cornell.safetensors
    python benchmarks/training_step.py --data data/cornell.safetensors --device cuda

Sides: the baseline, ours in fp32, and ours with the precision that the processor is best at
(auto). All train on the same stream of batches, with the same draws of teacher forcing, each by its
own rules (see benchmarks/baseline.py); the baseline's building of a batch counts, as ours does.
Each side has a process of its own and they take turns of a few iterations. A ratio is how many
times as fast as the baseline a side is, in the same turn; its median is given with its quartiles.

Work is counted from the sizes, the same for all sides: floating-point operations of a forward pass
over the real tokens, three times over for the backward pass; and, in bytes, weights read by both
passes, gradients written once and read twice, the optimizer's state and the weights updated. What a
side computes or moves beyond that (padding, words drawn twice, casts) counts for nothing. The
shares are of what a plain matrix product of that precision and a plain copy reach on this machine,
measured in the same run. On a GPU, busy is the share of the time in which a kernel runs; a turn has
20 iterations there, after a warm-up of 40, and on the CPU 4, after 8.

The data are a prepared data set (`python -m model prepare CORPUS --out FILE`), or synthetic:WORDS.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.baseline import build_batch  # noqa: E402
from benchmarks.same_work import PairStream, make_baseline, open_data  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    BenchmarkError,
    Side,
    Spread,
    Work,
    add_output_options,
    add_turn_options,
    environment,
    make_parser,
    measured,
    run_alone,
    shown,
    write_json,
)
from model.batching import Batches  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from model.config import Config, ModelConfig  # noqa: E402
from model.prepared_data import PreparedData  # noqa: E402
from model.training import Trainer  # noqa: E402

BASELINE = "baseline"
_PRECISION_CHOICES = ("fp32", "auto", "tf32", "bf16")
_FP32 = 4  # bytes
_SGD_WORDS, _ADAM_WORDS = 7, 11
_PROFILED = 5  # iterations
_PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


# The sides


def one_iteration(trainer: Trainer) -> Callable[[], None]:
    """One training iteration; the one place that knows how the trainer makes it."""
    import model.training

    interval = model.training._Interval()
    return lambda: trainer._train_one(interval)


def resolved_precision(trainer: Trainer, asked: str) -> str:
    """What the trainer computes in, where ``auto`` was asked for."""
    if asked != "auto":
        return asked
    return "bf16" if trainer.dtype == torch.bfloat16 else "fp32"


def build_ours(*, data: str, fields: dict[str, Any], precision: str, threads: int) -> Work:
    """An iteration of this project's trainer.

    Args:
        data: As of `benchmarks.same_work.open_data`.
        fields: Of the configuration.
        precision: As the configuration's ``precision``.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    config = Config.from_mapping(fields | {"threads": threads, "precision": precision})
    trainer = Trainer(open_data(data), config)
    return _work(
        one_iteration(trainer),
        fields["device"],
        {
            "precision": resolved_precision(trainer, precision),
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
        },
    )


def build_baseline(*, data: str, fields: dict[str, Any], threads: int) -> Work:
    """An iteration of the baseline, building its batch in Python included; see `build_ours`."""
    torch.set_num_threads(threads)
    prepared = open_data(data)
    torch.manual_seed(fields.get("seed", 0))
    model = make_baseline(fields, len(prepared.vocabulary), device=fields["device"])
    stream = PairStream(prepared, fields["batch_size"], fields.get("seed", 0))
    done = 0

    def iterate() -> None:
        nonlocal done
        model.train(build_batch(stream.at(done)))
        done += 1

    weights = {*model.encoder.parameters(), *model.decoder.parameters()}
    facts = {"precision": "fp32", "parameters": sum(p.numel() for p in weights)}
    return _work(iterate, fields["device"], facts)


def _work(iterate: Callable[[], None], device: str, facts: dict[str, Any]) -> Work:
    if device != "cuda":
        return Work(iterate, facts=lambda: facts)

    def with_gpu() -> dict[str, Any]:
        peak = torch.cuda.max_memory_allocated()
        return facts | {"peak_gpu_bytes": peak, "kernel_seconds": kernel_seconds(iterate)}

    return Work(iterate, torch.cuda.synchronize, with_gpu)


def kernel_seconds(iterate: Callable[[], None]) -> float | None:
    """Seconds of an iteration in which the GPU runs a kernel, or None where nothing says so."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(_PROFILED):
                iterate()
            torch.cuda.synchronize()
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events() or ()
            if event.device_type == DeviceType.CUDA and not event.is_user_annotation
        ]
    except RuntimeError:  # a driver that refuses to be profiled
        return None
    return covered(spans) / 1e6 / _PROFILED if spans else None


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans (begin, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


# Work and ceilings


@dataclass(frozen=True)
class MeanBatch:
    """Mean sizes of a stream of batches; real tokens include ``EOS``."""

    examples: float
    source_length: float
    target_length: float
    source_tokens: float
    target_tokens: float

    @classmethod
    def of(cls, data: PreparedData, batch_size: int, seed: int, iterations: range) -> MeanBatch:
        """Of the batches that are trained on at these iterations."""
        batches = Batches(data, "train")
        sums = [0.0] * 5
        for iteration in iterations:
            batch = batches.at(iteration, batch_size, seed)
            source, target = batch.source != 0, batch.target != 0
            sizes = (*target.shape[:1], source.shape[1], target.shape[1], source.sum())
            for i, size in enumerate((*sizes, target.sum())):
                sums[i] += int(size)
        return cls(*(s / len(iterations) for s in sums))


def flops(config: ModelConfig, vocabulary_size: int, batch: MeanBatch) -> float:
    """Floating-point operations of a training iteration; a multiplication and addition are two.

    Those of matrix products alone, over real tokens; three times those of the forward pass.
    """
    hidden, embedding = config.hidden_size, config.embedding_size or config.hidden_size

    def gru(inputs: int) -> int:
        return 2 * 3 * hidden * (inputs + hidden)

    encoder = 2 * (gru(embedding) + (config.encoder_layers - 1) * gru(2 * hidden))
    decoder = gru(embedding) + (config.decoder_layers - 1) * gru(hidden)
    attention = 2 * 2 * hidden * batch.source_length
    output = 2 * 2 * hidden * hidden + 2 * hidden * vocabulary_size
    forward = batch.source_tokens * encoder + batch.target_tokens * (decoder + attention + output)
    return 3 * forward


def state_bytes(parameters: int, optimizer: str) -> int:
    """Bytes of weights, gradients and optimizer state that an iteration has to move, in fp32.

    Words a parameter: the weight read by both passes, the gradient written, read for its norm and
    read by the update, the weight read and written; with Adam two moments read and written too.
    """
    return _FP32 * parameters * (_SGD_WORDS if optimizer == "sgd" else _ADAM_WORDS)


def measure_ceilings(*, device: str, threads: int, precisions: list[str]) -> dict[str, Any]:
    """What plain operations reach: ``flops`` a second by precision, and ``bytes`` a second.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: CPU threads.
        precisions: Of the matrix product: ``fp32``, ``tf32``, ``bf16``.
    """
    torch.set_num_threads(threads)
    n, length = (8192, 1 << 28) if device == "cuda" else (2048, 1 << 25)
    found = {}
    for precision in precisions:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        a = torch.randn(n, n, device=device).to(_PRECISIONS[precision])
        out = torch.empty_like(a)
        found[precision] = 2 * n**3 / _fastest(partial(torch.mm, a, a, out=out), device)
    source = torch.ones(length, device=device)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source), device)
    return {"flops": found, "bytes": 2 * _FP32 * length / seconds}


def _fastest(operation: Callable[[], object], device: str, times: int = 7) -> float:
    """Seconds of the fastest of several runs."""
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    seconds = []
    for _ in range(times):
        wait()
        started = time.perf_counter()
        operation()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


# The comparison


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how.

    Attributes:
        data: As of `benchmarks.same_work.open_data`.
        device: ``cpu`` or ``cuda``.
        hidden_size: H.
        batch_size: B.
        optimizer: ``adam`` or ``sgd``.
        precisions: Of our sides.
        threads: CPU threads of each side.
        turns: Of each side.
        iterations: Of each turn.
        warm_up: Iterations before the first turn.
    """

    data: str
    device: str = "cpu"
    hidden_size: int = 500
    batch_size: int = 64
    optimizer: str = "adam"
    precisions: tuple[str, ...] = ("fp32", "auto")
    threads: int = 1
    turns: int = 9
    iterations: int = 4
    warm_up: int = 8

    def fields(self, ratio: float) -> dict[str, Any]:
        """The configuration that all sides share."""
        return {
            "hidden_size": self.hidden_size,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "teacher_forcing_ratio": ratio,
            "device": self.device,
        }


def compare(settings: Settings, ratio: float) -> dict[str, Any]:
    """Lets the sides take turns at one teacher-forcing ratio.

    Returns:
        As `benchmarks.side_by_side.measured`, and the mean batch.
    """
    shared = {"data": settings.data, "fields": settings.fields(ratio), "threads": settings.threads}
    sides = [Side(BASELINE, build_baseline, shared)] + [
        Side(f"ours {precision}", build_ours, shared | {"precision": precision})
        for precision in settings.precisions
    ]
    found = measured(
        sides,
        f"teacher forcing {ratio:g}",
        turns=settings.turns,
        iterations=settings.iterations,
        warm_up=settings.warm_up,
    )
    data = open_data(settings.data)
    counted = range(settings.warm_up, settings.warm_up + settings.turns * settings.iterations)
    return {
        "teacher_forcing_ratio": ratio,
        "vocabulary": len(data.vocabulary),
        "batch": asdict(MeanBatch.of(data, settings.batch_size, 0, counted)),
        "sides": found,
    }


def add_utilisation(
    comparison: dict[str, Any], settings: Settings, ceilings: dict[str, Any]
) -> None:
    """Adds to every side what it achieves, and the shares of the ceilings."""
    config = ModelConfig(hidden_size=settings.hidden_size)
    work = flops(config, comparison["vocabulary"], MeanBatch(**comparison["batch"]))
    for side in comparison["sides"].values():
        seconds = side["seconds"]["median"]
        moved = state_bytes(side["parameters"], settings.optimizer)
        side["flops_per_second"] = work / seconds
        side["bytes_per_second"] = moved / seconds
        side["flops_share"] = work / seconds / ceilings["flops"][side["precision"]]
        side["bytes_share"] = moved / seconds / ceilings["bytes"]
        if side.get("kernel_seconds"):
            side["busy_share"] = min(1.0, side["kernel_seconds"] / seconds)


def run(settings: Settings, ratios: Sequence[float], save: Callable[[Any], None]) -> dict[str, Any]:
    """All comparisons, one after another.

    Args:
        settings: What is measured.
        ratios: Teacher-forcing ratios.
        save: Hears of the results after each comparison.
    """
    results: dict[str, Any] = {
        "benchmark": "training_step",
        "settings": asdict(settings),
        "environment": environment(settings.device, settings.threads),
        "comparisons": [],
    }
    for ratio in ratios:
        results["comparisons"].append(compare(settings, ratio))
        save(results)
    used = {s["precision"] for c in results["comparisons"] for s in c["sides"].values()}
    results["ceilings"] = run_alone(
        "ceilings",
        measure_ceilings,
        device=settings.device,
        threads=settings.threads,
        precisions=sorted(used),
    )
    for comparison in results["comparisons"]:
        add_utilisation(comparison, settings, results["ceilings"])
    save(results)
    return results


def report(results: dict[str, Any], markdown: bool = False) -> str:
    """The results as text: what was measured, a row for each side, and the ceilings."""
    settings, where = results["settings"], results["environment"]
    used = where.get("gpu") or f"{where['processor']}, {where['threads']} threads"
    rows = [
        (
            f"{comparison['teacher_forcing_ratio']:g}",
            side + (f" ({s['precision']})" if side == "ours auto" else ""),
            Spread(**s["seconds"]).text(1, scale=1000),
            Spread(**s["ratio"]).text(),
            f"{s['flops_per_second'] / 1e9:.0f}",
            f"{s['flops_share']:.0%}",
            f"{s['bytes_per_second'] / 1e9:.1f}",
            f"{s['bytes_share']:.0%}",
            f"{s['busy_share']:.0%}" if "busy_share" in s else "-",
            f"{s.get('peak_gpu_bytes', s['peak_memory_bytes']) / 1e6:.0f}",
        )
        for comparison in results["comparisons"]
        for side, s in comparison["sides"].items()
    ]
    headers = ["teacher forcing", "side", "ms an iteration", "times the baseline", "GFLOP/s"]
    headers += ("of ceiling", "GB/s", "of ceiling", "busy", "peak MB")
    ceilings = results["ceilings"]
    products = ", ".join(f"{p} {f / 1e9:.0f} GFLOP/s" for p, f in ceilings["flops"].items())
    return (
        f"hidden {settings['hidden_size']}, "
        f"vocabulary {results['comparisons'][0]['vocabulary']}, batch {settings['batch_size']}, "
        f"{settings['optimizer']}; {used}, torch {where['torch']}; medians of {settings['turns']} "
        f"turns of {settings['iterations']} (quartiles)\n\n"
        f"{shown(rows, headers, markdown)}\n\n"
        f"ceilings: {products}, copy {ceilings['bytes'] / 1e9:.1f} GB/s"
    )


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, but got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Takes turns and prints medians, ratios and shares."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", required=True, help="prepared data set, or synthetic:WORDS")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--hidden-size", type=positive, default=500, help="H (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="B (%(default)s)")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument(
        "--teacher-forcing-ratio",
        type=_ratio,
        nargs="+",
        default=[1.0, 0.5, 0.0],
        metavar="RATIO",
        help="one comparison for each (1 0.5 0)",
    )
    parser.add_argument(
        "--precision",
        choices=_PRECISION_CHOICES,
        nargs="+",
        default=["fp32", "auto"],
        help="of our sides (fp32 auto)",
    )
    add_turn_options(parser, turns=9, iterations=None, warm_up=None)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: there is no GPU that torch can use.")
    # Graphs are recorded after a few steps of each kind, teacher-forced and free-running.
    warm_up, iterations = (40, 20) if arguments.device == "cuda" else (8, 4)
    arguments.warm_up = arguments.warm_up or warm_up
    arguments.iterations = arguments.iterations or iterations
    settings = Settings(
        **{
            name: getattr(arguments, name)
            for name in ("data", "device", "hidden_size", "batch_size", "optimizer", "threads")
        },
        **{name: getattr(arguments, name) for name in ("turns", "iterations", "warm_up")},
        precisions=tuple(arguments.precision),
    )
    results = run(
        settings,
        arguments.teacher_forcing_ratio,
        save=lambda found: write_json(arguments.json, found),
    )
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
