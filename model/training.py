"""Training one model: a `Trainer` that yields a `Report` at each interval.

It prints nothing, knows nothing of Ray, and draws all randomness from streams of
(seed, stream, iteration), so that a run restored from a checkpoint goes on exactly as if it had
never stopped.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.batching import Batch, Batches
from model.checkpoint import read_checkpoint, write_checkpoint
from model.config import Config
from model.errors import CheckpointError, ConfigurationError
from model.evaluation import evaluate
from model.files import RemoteFile
from model.graphs import RecordedTraining, StepResult
from model.latency import reply_milliseconds
from model.loss import Losses, free_running, teacher_forced
from model.optim import Optimizers
from model.precision import compute_dtype, keep_freed_memory, set_tf32
from model.prepared_data import PreparedData
from model.randomness import generator, initial_weights, uniform
from model.seq2seq import DropoutMasks, Seq2Seq

#: A training loss this many times that of a uniform guess (ln V) counts as exploded.
EXPLODED = 3.0
#: How many reports a checkpoint holds beside the last, for whoever has lost them.
EARLIER_REPORTS = 100

Metrics = dict[str, float | int | None]


@dataclass(frozen=True)
class Report:
    """What an interval of training gave.

    Attributes:
        iteration: Iterations done since the start of training.
        metrics: Losses in nats a token; see ``docs/training.md`` for each name.
        state: ``running``, ``finished`` (no iterations left) or ``diverged``.
        improved: Whether `best_val_loss` fell at this report.
    """

    iteration: int
    metrics: Metrics
    state: str
    improved: bool


@dataclass
class _Interval:
    """Sums since the last report, kept on the device until the report reads them."""

    nll_sum: Tensor | float = 0.0
    tokens: int = 0
    iterations: int = 0
    encoder_norm: Tensor | float = 0.0
    decoder_norm: Tensor | float = 0.0
    norm: Tensor | float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, losses: Losses, encoder_norm: Tensor, decoder_norm: Tensor) -> None:
        self.nll_sum = self.nll_sum + losses.nll_sum
        self.tokens += losses.tokens
        self.iterations += 1
        self.encoder_norm = self.encoder_norm + encoder_norm
        self.decoder_norm = self.decoder_norm + decoder_norm
        self.norm = self.norm + torch.hypot(encoder_norm, decoder_norm)

    def metrics(self) -> Metrics:
        loss = float(self.nll_sum) / self.tokens  # waits for the device
        seconds = time.perf_counter() - self.started
        return {
            "loss": loss,
            "grad_norm": float(self.norm) / self.iterations,
            "encoder_grad_norm": float(self.encoder_norm) / self.iterations,
            "decoder_grad_norm": float(self.decoder_norm) / self.iterations,
            "tokens_per_second": self.tokens / seconds,
            "train_seconds": seconds,
        }


def resolve_device(name: str) -> torch.device:
    """The device of a configuration: ``auto`` takes CUDA where there is a device.

    Raises:
        ConfigurationError: where CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("configuration", ["device: is 'cuda', but there is no GPU."])
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def training_step(
    model: Seq2Seq,
    optimizers: Optimizers,
    batch: Batch,
    *,
    teacher_forcing: bool,
    dropout: DropoutMasks | None,
    dtype: torch.dtype = torch.float32,
) -> StepResult:
    """One update: a function of parameters, optimizer state, batch and hyper-parameters alone.

    Returns:
        The losses before the update, and the gradient norms of encoder and decoder (scalars)
        before clipping.
    """
    decode = teacher_forced if teacher_forcing else free_running
    losses = decode(model, batch, dropout, dtype)
    optimizers.zero_grad()
    losses.published.backward()  # type: ignore[no-untyped-call]
    encoder_norm, decoder_norm = optimizers.clip_gradients()
    optimizers.step()
    return losses, encoder_norm, decoder_norm


class Trainer:
    """Trains one configuration on one prepared data set.

    Args:
        data: The prepared data set.
        config: Model and training configuration.
        measure_latency: Report the time of a reply too (``latency_ms``), see `model.latency`.

    Attributes:
        model: The model being trained.
        iteration: Iterations done.
        best_val_loss, best_iteration: The running minimum and where it was reached; infinity and
            0 before the first report.
    """

    def __init__(
        self, data: PreparedData, config: Config, *, measure_latency: bool = False
    ) -> None:
        self.config = config
        self.measure_latency = measure_latency
        self.fingerprint = data.fingerprint
        self.device = resolve_device(config.training.device)
        self.dtype = compute_dtype(config.training.precision, self.device)
        set_tf32(config.training.precision == "tf32")
        keep_freed_memory()
        with initial_weights(config.training.seed):
            self.model = Seq2Seq(config.model, len(data.vocabulary)).to(self.device)
        self.optimizers = Optimizers(self.model, config.training)
        self.train_batches = Batches(data, "train", self.device)
        self.val_batches = Batches(data, "validation", self.device)
        self.val_indices = self.val_batches.subset(config.training.val_examples)
        self.iteration = 0
        self.best_val_loss = math.inf
        self.best_iteration = 0
        self._last_good: Metrics = {}
        self._last_report: Report | None = None
        self._earlier: deque[dict[str, Any]] = deque(maxlen=EARLIER_REPORTS)
        self._step = self._make_step()

    def _make_step(self) -> Callable[[Batch, bool, DropoutMasks | None], StepResult]:
        # Not of `self`, which would then refer to itself: its memory is free once it is dropped.
        model, optimizers, dtype = self.model, self.optimizers, self.dtype

        def step(batch: Batch, teacher_forcing: bool, dropout: DropoutMasks | None) -> StepResult:
            return training_step(
                model,
                optimizers,
                batch,
                teacher_forcing=teacher_forcing,
                dropout=dropout,
                dtype=dtype,
            )

        return RecordedTraining(step, self.device) if self.device.type == "cuda" else step

    @property
    def last_report(self) -> Report | None:
        """The report that the trainer last made, or that it was restored to."""
        return self._last_report

    def earlier_reports(self) -> list[Report]:
        """Up to `EARLIER_REPORTS` before the last one, also of before a restoration."""
        return [
            Report(saved["iteration"], saved["metrics"], "running", saved["improved"])
            for saved in self._earlier
        ]

    def run(self) -> Iterator[Report]:
        """Trains to the end, yielding a report after each interval."""
        while self._last_report is None or self._last_report.state == "running":
            yield self.train_interval()

    def train_interval(self) -> Report:
        """Trains up to the next report and makes it."""
        interval = _Interval()
        for _ in range(self._iterations_to_report()):
            self._train_one(interval)
        if self._last_report is not None:
            self._earlier.append(_saved(self._last_report))
        self._last_report = self._report(interval)
        return self._last_report

    def _iterations_to_report(self) -> int:
        every, total = self.config.training.report_every, self.config.training.iterations
        return min(every - self.iteration % every, total - self.iteration)

    def _train_one(self, interval: _Interval) -> None:
        training = self.config.training
        batch = self.train_batches.at(self.iteration, training.batch_size, training.seed)
        draw = uniform(training.seed, "teacher_forcing", self.iteration)
        teacher_forcing = draw < training.teacher_forcing_ratio
        interval.add(*self._step(batch, teacher_forcing, self._dropout(batch)))
        self.iteration += 1

    def _dropout(self, batch: Batch) -> DropoutMasks | None:
        return DropoutMasks.draw(
            self.config.model,
            len(batch.source_packing.flat),
            len(batch.target_packing.flat),
            generator(self.config.training.seed, "dropout", self.iteration, self.device),
            self.dtype,
        )

    def _report(self, interval: _Interval) -> Report:
        metrics = interval.metrics()
        if self._exploded(metrics["loss"]):
            return self._diverged(metrics, metrics["loss"])
        started = time.perf_counter()
        evaluation = evaluate(self.model, self.val_batches, self.val_indices)
        if not math.isfinite(evaluation.loss):
            metrics["eval_seconds"] = time.perf_counter() - started
            return self._diverged(metrics, evaluation.loss)
        improved = evaluation.loss < self.best_val_loss
        if improved:
            self.best_val_loss, self.best_iteration = evaluation.loss, self.iteration
        batches = self.train_batches.per_epoch(self.config.training.batch_size)
        metrics |= {
            "iteration": self.iteration,
            "epoch": self.iteration / batches,
            "val_loss": evaluation.loss,
            "val_perplexity": evaluation.perplexity,
            "val_token_accuracy": evaluation.token_accuracy,
            "best_val_loss": self.best_val_loss,
            "best_iteration": self.best_iteration,
            "parameters": sum(weights.numel() for weights in self.model.parameters()),
        }
        if self.measure_latency:
            metrics["latency_ms"] = reply_milliseconds(self.model)
        metrics["eval_seconds"] = time.perf_counter() - started
        self._last_good = metrics
        done = self.iteration >= self.config.training.iterations
        return Report(self.iteration, metrics, "finished" if done else "running", improved)

    def _exploded(self, loss: float | int | None) -> bool:
        assert loss is not None
        return not loss <= EXPLODED * math.log(self.model.vocabulary_size)  # also true for NaN

    def _diverged(self, interval: Metrics, loss: float | int | None) -> Report:
        """A report that repeats the last good figures and says where they ended."""
        metrics = self._last_good | {"iteration": self.iteration, "diverged_loss": loss}
        metrics |= {name: interval.get(name, 0.0) for name in ("train_seconds", "eval_seconds")}
        return Report(self.iteration, metrics, "diverged", improved=False)

    def save(self, path: Path) -> None:
        """Writes everything that training needs to go on, atomically.

        Raises:
            StorageError: where the file cannot be written.
        """
        write_checkpoint(path, self.state())

    def save_weights(self, path: Path) -> None:
        """Writes the weights alone, with the configuration and figures they belong to."""
        write_checkpoint(path, self.weights())

    def state(self) -> dict[str, Any]:
        """Everything that training needs to go on: what `save` writes.

        Its tensors are the trainer's own, which training changes; `checkpoint.snapshot` copies.
        """
        report = self._last_report
        return self.weights() | {
            "optimizers": self.optimizers.state_dict(),
            "last_good": self._last_good,
            "report": None if report is None else _saved(report),
            "earlier": list(self._earlier),
        }

    def weights(self) -> dict[str, Any]:
        """The weights alone, with the configuration and figures they belong to."""
        return {
            "config": self.config.to_mapping(),
            "fingerprint": self.fingerprint,
            "iteration": self.iteration,
            "best_val_loss": self.best_val_loss,
            "best_iteration": self.best_iteration,
            "metrics": self._last_good,
            "weights": self.model.state_dict(),
        }

    def restore(self, path: Path | RemoteFile) -> Report | None:
        """Goes on from a checkpoint of `save`.

        Returns:
            The report at which the checkpoint was written, or None if it was before the first.

        Raises:
            CheckpointError: where it is damaged, or of another data set or model.
        """
        state = read_checkpoint(path, self.device)
        if "optimizers" not in state:
            raise CheckpointError(f"{path}: holds weights only; training cannot go on from it.")
        self._check_same(path, state)
        try:
            self.model.load_state_dict(state["weights"])
            self.optimizers.load_state_dict(state["optimizers"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: is of another model: {error}") from None
        self._step = self._make_step()  # graphs would go on with the optimizers' former state
        self.iteration = state["iteration"]
        self.best_val_loss, self.best_iteration = state["best_val_loss"], state["best_iteration"]
        self._last_good = state["last_good"]
        self._earlier = deque(state.get("earlier", ()), maxlen=EARLIER_REPORTS)
        self._last_report = self._restored_report(state["report"])
        return self._last_report

    def _restored_report(self, saved: dict[str, Any] | None) -> Report | None:
        """The report of a checkpoint; whether it is the last depends on the iterations now."""
        if saved is None:
            return None
        done = self.iteration >= self.config.training.iterations
        return Report(
            self.iteration,
            saved["metrics"],
            "finished" if done else "running",
            improved=saved["improved"],
        )

    def _check_same(self, path: Path | RemoteFile, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{path}: was trained on data {state['fingerprint'][:12]}, "
                f"but this is data {self.fingerprint[:12]}."
            )
        ours = self.config.to_mapping()
        changed = [
            name
            for name in ours
            if name not in _MAY_CHANGE and state["config"].get(name) != ours[name]
        ]
        if changed:
            texts = ", ".join(
                f"{n} was {state['config'].get(n)!r}, is {ours[n]!r}" for n in changed
            )
            raise CheckpointError(f"{path}: has another configuration: {texts}.")


def _saved(report: Report) -> dict[str, Any]:
    return {
        "iteration": report.iteration,
        "metrics": report.metrics,
        "improved": report.improved,
    }


#: Fields that a resumed run may change without becoming another run.
_MAY_CHANGE = frozenset(
    {"corpus", "device", "threads", "iterations", "checkpoint_every", "checkpoint_when"}
)
