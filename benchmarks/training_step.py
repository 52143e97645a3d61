"""Training iterations of this project against the baseline's, side by side in one run.

    python benchmarks/training_step.py --data data/cornell.safetensors [--teacher-forcing-ratio 1]

Both train on the same batches of real pairs with the same sizes, each with its own rules (see
``benchmarks/baseline.py``), a few iterations at a time in turn, so that what else the machine does
falls on both. Medians over the turns, and the ratio of each turn with its quartiles, are printed,
and written as JSON with ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.baseline import Baseline, build_batch  # noqa: E402
from model.config import Config  # noqa: E402
from model.prepared_data import PreparedData  # noqa: E402
from model.training import Trainer, _Interval  # noqa: E402


def ours(data: PreparedData, arguments: argparse.Namespace) -> Callable[[], None]:
    """One iteration of this project's trainer."""
    config = Config.from_mapping(
        {
            "hidden_size": arguments.hidden_size,
            "batch_size": arguments.batch_size,
            "teacher_forcing_ratio": arguments.teacher_forcing_ratio,
            "device": "cpu",
        }
    )
    trainer = Trainer(data, config)
    interval = _Interval()
    return lambda: trainer._train_one(interval)


def baseline(data: PreparedData, arguments: argparse.Namespace) -> Callable[[], None]:
    """One iteration of the baseline, building its batch in Python included."""
    model = Baseline(
        len(data.vocabulary),
        hidden_size=arguments.hidden_size,
        teacher_forcing_ratio=arguments.teacher_forcing_ratio,
    )
    replies = data.examples["train"][:, 1].tolist()
    pairs = [(data.utterance(r - 1).tolist(), data.utterance(r).tolist()) for r in replies[:20_000]]

    def iteration() -> None:
        model.train(build_batch(model.random.sample(pairs, arguments.batch_size)))

    return iteration


def seconds(iteration: Callable[[], None], times: int) -> float:
    """Mean seconds of an iteration."""
    started = time.perf_counter()
    for _ in range(times):
        iteration()
    return (time.perf_counter() - started) / times


def main() -> None:
    """Takes turns and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--hidden-size", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--teacher-forcing-ratio", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=9, help="turns of each side (%(default)s)")
    parser.add_argument("--iterations", type=int, default=4, help="of a turn (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = PreparedData.open(arguments.data)
    sides = {"ours": ours(data, arguments), "baseline": baseline(data, arguments)}
    for iteration in sides.values():
        seconds(iteration, 2)  # warm-up
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(arguments.turns):
        for side, iteration in sides.items():
            times[side].append(seconds(iteration, arguments.iterations))
    ratios = [b / o for o, b in zip(times["ours"], times["baseline"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    for side, found in times.items():
        print(f"{side}: median {1000 * statistics.median(found):.0f} ms an iteration")
    print(
        f"baseline / ours: {middle:.2f} (quartiles {low:.2f} to {high:.2f}) "
        f"at hidden {arguments.hidden_size}, vocabulary {len(data.vocabulary)}, "
        f"batch {arguments.batch_size}, teacher forcing {arguments.teacher_forcing_ratio:g}, "
        f"{arguments.threads} threads, fp32"
    )
    if arguments.json:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        content = {"settings": settings, "seconds": times, "ratios": ratios}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
