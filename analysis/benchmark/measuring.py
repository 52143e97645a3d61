"""Greedy decoding measured: eager PyTorch against every export, on CPU and GPU, side by side.

All sides have the same weights, decode the same batches of real sources, encoder included, with the
same number of threads in one process, and take turns (`latency`). Each is measured making a fixed
number of steps without early exit, as the published comparisons do, and stopping by itself when
every reply has ended. The published decoder always makes all steps; it is what the others are
compared with (`eager`). What they say is compared with this project's own eager decoding in fp32
(`analysis.export.agreement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.benchmark.decoders import EXPORTS, PUBLISHED, Decode, Side, Ways, sides_of
from analysis.benchmark.latency import CALLS, Latency, Ratio, Seconds, take_turns
from analysis.benchmark.machine import environment
from analysis.benchmark.sources import SourceBatch, Sources
from analysis.export.agreement import Reference, compare, concatenated, reference
from analysis.export.exporting import first_line
from model.decoding import Stepper
from model.errors import BenchmarkError
from model.model_directory import DialogueModel, load

#: Batches that take turns: enough for this many sources, but no fewer nor more than these.
_POOL_SOURCES, _FEWEST_BATCHES, _MOST_BATCHES = 512, 8, 100
#: Batch size at which replies are compared, where it is measured.
_COMPARED_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how.

    Attributes:
        devices: ``cpu``, ``cuda`` or both.
        exports: Of `EXPORTS`.
        batch_sizes: Rising.
        iterations: Timed calls of each side, rounded up to whole turns.
        warm_up: Calls before, at least; every batch is decoded once in any case.
        steps: Of fixed decoding, and the longest reply.
        threads: Of the CPU.
        compared: Sources whose replies are compared.
    """

    devices: tuple[str, ...] = ("cpu",)
    exports: tuple[str, ...] = EXPORTS
    batch_sizes: tuple[int, ...] = (1, 8, 64, 128)
    iterations: int = 100
    warm_up: int = 10
    steps: int = 10
    threads: int = 1
    compared: int = 1024

    @property
    def rounds(self) -> int:
        """Turns of each side."""
        return -(-self.iterations // CALLS)

    @property
    def sources(self) -> int:
        """How many different sources are of use."""
        return max(_POOL_SOURCES, _FEWEST_BATCHES * max(self.batch_sizes), self.compared)


# The measurement


def run(
    model_reference: str | Path,
    settings: Settings,
    *,
    registry: str | Path = "registry",
    data: str | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Measures a model; the result is ready for JSON.

    Args:
        model_reference: The model, as of `model.model_directory.load`.
        settings: What is measured.
        registry: Directory of named models.
        data: As of `analysis.benchmark.sources.Sources.open`.
        progress: A tqdm bar, or None.

    Returns:
        ``model``, ``settings``, ``environment``, ``sources``; ``sides``, of each device and side
        its ``reason`` or ``agreement``; and ``latencies``, of each device, batch size, side and way
        of stopping a `Latency`, ``speedup`` over the published decoder's fixed steps, and ``gain``
        over the side's own (`Ratio`), or a ``reason``.

    Raises:
        BenchmarkError: where there is no such device.
        DialogueTuneError: as `load` and `Sources.open`.
    """
    if "cuda" in settings.devices and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: there is no GPU that torch can use.")
    torch.set_num_threads(settings.threads)
    model = load(model_reference, registry, device="cpu")
    sources = Sources.open(model, data, settings.sources)
    result: dict[str, Any] = {
        "benchmark": "greedy decoding",
        "model": _model_facts(model),
        "settings": asdict(settings),
        "environment": environment(settings.devices, settings.threads),
        "sources": {"description": sources.samples.described(), "note": sources.note},
        "sides": [],
        "latencies": [],
    }
    bar = _Bar(progress, settings)
    for device in settings.devices:
        on_device = model if device == "cpu" else load(model_reference, registry, device=device)
        sides = list(sides_of(on_device, settings.exports, bar.step))
        with torch.inference_mode():
            agreements, reasons = _agreements(on_device, sides, sources, settings, bar)
            result["sides"] += [
                {
                    "device": device,
                    "side": side.name,
                    "framework": side.framework,
                    "reason": side.reason or reasons.get(side.name),
                    "agreement": agreements.get(side.name),
                }
                for side in sides
            ]
            sides = [side for side in sides if side.ways.decode and side.name not in reasons]
            for size in settings.batch_sizes:
                result["latencies"] += _latencies(
                    sides, sources, settings, bar, device=device, size=size
                )
    return result


def compared_size(settings: Settings) -> int:
    """The batch size at which replies are compared."""
    sizes = settings.batch_sizes
    return _COMPARED_SIZE if _COMPARED_SIZE in sizes else sizes[-1]


def _agreements(
    model: DialogueModel,
    sides: Sequence[Side],
    sources: Sources,
    settings: Settings,
    bar: _Bar,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What each side says against eager's words; and why those that raise do."""
    size, device = compared_size(settings), model.model.output.weight.device.type
    batches = sources.batches(size, -(-settings.compared // size), device)
    stepper = Stepper(model.model)
    eager = concatenated(
        [reference(model.model, stepper, b.rows, b.lengths, settings.steps) for b in batches]
    )
    found, reasons = {}, {}
    for side in sides:
        ways = side.ways
        decode = ways.decode.get("fixed") or ways.decode.get("natural")
        if decode is not None:
            try:
                said = [ways.words(decode(batch, settings.steps)) for batch in batches]
                words = torch.cat([_widened(words, settings.steps) for words in said])
                following = _followed(ways, batches, eager)
                found[side.name] = asdict(compare(eager, words, following))
            except Exception as error:  # as in `sides_of`
                reasons[side.name] = first_line(error)
        bar.step()
    return found, reasons


def _widened(words: Tensor, steps: int) -> Tensor:
    """(B, T) to (B, steps): what a decoder that stops early does not say."""
    return torch.nn.functional.pad(words.cpu(), (0, steps - words.shape[1]), value=-1)


def _followed(ways: Ways, batches: Sequence[SourceBatch], eager: Reference) -> Tensor | None:
    """What a side says next after each beginning of eager's replies, (N, steps)."""
    if ways.follow is None:
        return None
    words = eager.words.to(batches[0].rows.device)
    given = torch.split(words, [len(batch.rows) for batch in batches])
    both = zip(batches, given, strict=True)
    return torch.cat([ways.follow(batch, rows.contiguous()).cpu() for batch, rows in both])


def _latencies(
    sides: Sequence[Side],
    sources: Sources,
    settings: Settings,
    bar: _Bar,
    *,
    device: str,
    size: int,
) -> list[dict[str, Any]]:
    """Of one device and batch size."""
    count = min(_MOST_BATCHES, max(_FEWEST_BATCHES, -(-_POOL_SOURCES // size)))
    batches = sources.batches(size, count, device)
    calls: dict[tuple[str, str], Callable[[int], object]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for side in sides:
        for stopping, decode in side.ways.decode.items():
            call = _Call(decode, batches, settings.steps)
            try:
                for i in range(max(settings.warm_up, len(batches))):
                    call(i)
                calls[side.name, stopping] = call
            except Exception as error:  # as in `sides_of`; out of memory, say
                reasons[side.name, stopping] = first_line(error)
            bar.step()
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    seconds = take_turns(calls, rounds=settings.rounds, synchronise=wait, progress=bar.step)
    return [
        {
            "device": device,
            "batch_size": size,
            "stopping": stopping,
            "side": side.name,
            "framework": side.framework,
            "reason": reasons.get((side.name, stopping)),
            **_figures(seconds, side.name, stopping, size),
        }
        for side in sides
        for stopping in side.ways.decode
    ]


@dataclass(frozen=True)
class _Call:
    """Decodes batch number i of those that are decoded in turn."""

    decode: Decode
    batches: Sequence[SourceBatch]
    steps: int

    def __call__(self, i: int) -> Any:
        return self.decode(self.batches[i % len(self.batches)], self.steps)


def _figures(
    seconds: Mapping[tuple[str, str], Seconds], name: str, stopping: str, size: int
) -> dict[str, Any]:
    own = seconds.get((name, stopping))
    if own is None:
        return {"latency": None, "speedup": None, "gain": None}
    published, fixed = seconds.get((PUBLISHED, "fixed")), seconds.get((name, "fixed"))
    return {
        "latency": asdict(Latency.of(own, size)),
        "speedup": None if published is None else asdict(Ratio.of(published, own)),
        "gain": None if stopping == "fixed" or fixed is None else asdict(Ratio.of(fixed, own)),
    }


class _Bar:
    """A progress bar whose length is the work that there is, or nothing.

    Args:
        bar: A tqdm bar.
        settings: What is measured.
    """

    def __init__(self, bar: Any, settings: Settings) -> None:
        self._bar = bar
        if bar is not None:
            sides = len(settings.exports) + 3
            calls = 2 * sides - 1
            each = 2 * sides + len(settings.batch_sizes) * calls * (1 + settings.rounds)
            bar.reset(total=len(settings.devices) * each)

    def step(self) -> None:
        """One turn or one preparation is done."""
        if self._bar is not None:
            self._bar.update()


def _model_facts(model: DialogueModel) -> dict[str, Any]:
    config = model.config.model
    return {
        "path": str(model.path),
        "manifest_sha256": model.manifest.get("manifest_sha256"),
        "val_loss": model.metrics.get("val_loss"),
        "iteration": model.manifest["lineage"].get("iteration"),
        "vocabulary_size": len(model.vocabulary),
        **asdict(config),
    }
