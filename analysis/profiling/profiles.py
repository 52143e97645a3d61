"""Where a model's time and memory go: inference and training steps under the PyTorch profiler.

What is profiled is what runs: replies as `DialogueModel.replies` makes them, and the step of
`model.training.Trainer` with the model's own configuration. On a GPU both are recorded CUDA graphs,
of which a profiler sees kernels but no operators: time, memory and kernels are those of the graph,
components and operators those of the same step launched operator by operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

import model.model_directory
from analysis.model_data import find_data
from analysis.profiling.figures import (
    Kernel,
    Operator,
    Share,
    kernels,
    operators,
    shares,
)
from analysis.profiling.reading import where_the_time_goes
from analysis.profiling.recording import Recording, Work, record
from analysis.profiling.trace import Trace
from model.batching import Batches
from model.graphs import RecordedTraining
from model.model_directory import DialogueModel
from model.prepared_data import PreparedData
from model.training import Trainer, _Interval

INFERENCE, TRAINING = "inference", "training"
_GRAPH_NOTE = (
    "a step runs as a recorded CUDA graph: its time, memory and kernels are the graph's; "
    "components and operators are those of the same step launched operator by operator"
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time and the memory of a step go.

    Attributes:
        mode: ``inference`` or ``training``.
        device: ``cpu``, or the name of the GPU.
        threads: Of the CPU, within an operator.
        precision: What products and states are computed in, such as ``float32``.
        batch_size: Examples in a step.
        steps: How many were measured; as many more were recorded.
        data: Which corpus.
        step_ms: Median time of a step without the profiler, in milliseconds.
        profiled_ms: Mean time of a step under it.
        components: The time of each component; the shares add up to 1.
        operators: The operators of a step, those with the most time of their own first.
        by_shape: The same, told apart by the shapes of their inputs.
        kernels: Of a GPU.
        peak_bytes: The most that tensors held at once.
        resident_bytes: What of it is there all the time: weights, and the optimizer's state.
        notes: What one should know of how this was measured.
        reading: Where the time goes, in words.
        trace: The recorded steps; `Trace.write` writes them to a file.
    """

    mode: str
    device: str
    threads: int
    precision: str
    batch_size: int
    steps: int
    data: str
    step_ms: float
    profiled_ms: float
    components: list[Share]
    operators: list[Operator]
    by_shape: list[Operator]
    kernels: list[Kernel]
    peak_bytes: int
    resident_bytes: int
    notes: list[str]
    reading: str
    trace: Trace

    def to_mapping(self) -> dict[str, Any]:
        """Everything but the trace, for JSON."""
        names = [f.name for f in fields(self) if f.name != "trace"]
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [item if isinstance(item, str) else asdict(item) for item in value]
    return value


def model_data(bot: DialogueModel, corpus: str | None = None) -> tuple[PreparedData, list[str]]:
    """Data to profile a model on, in the model's vocabulary.

    Args:
        bot: The model.
        corpus: As of `analysis.model_data.find_data`.

    Returns:
        The data, and notes on them.

    Raises:
        CorpusError: where the corpus that was given is missing, malformed or leaves nothing.
        PreparedDataError: where the prepared data set that was given is damaged.
    """
    found = find_data(bot, corpus, training=True)
    return found.data, [found.note] if found.note else []


def profile_inference(
    bot: DialogueModel,
    data: PreparedData,
    *,
    batch_size: int | None = None,
    steps: int = 10,
    progress: bool = False,
) -> Profile:
    """Profiles replies to a batch of texts, where the model is.

    Args:
        bot: The model.
        data: Where the texts come from: its validation split, or the next that is not empty.
        batch_size: Texts in a batch; None takes the model's own.
        steps: How many times the batch is replied to and measured; as often it is recorded.
        progress: Show a progress bar, if standard error is a terminal.
    """
    texts = source_texts(bot, data, batch_size or bot.config.training.batch_size)
    stepper = bot._stepper

    def resident() -> list[Tensor]:
        cells = [weight for cell in stepper.cells for weight in cell]
        return [*bot.model.parameters(), stepper.table, *cells]

    recording = record(
        Work(
            name="replies",
            step=lambda: bot.replies(texts),
            net=bot.model,
            device=bot.model.output.weight.device,
            unrecorded=_without_recorded_replies,
            resident=resident,
        ),
        steps,
        progress=progress,
    )
    return _profile(
        recording,
        mode=INFERENCE,
        precision=stepper.dtype,
        batch_size=len(texts),
        data=data,
        notes=["a step is a batch of replies, text to text, in fp32, until every row has ended"],
        device=bot.model.output.weight.device,
    )


def profile_training(
    bot: DialogueModel,
    data: PreparedData,
    *,
    batch_size: int | None = None,
    steps: int = 10,
    precision: str | None = None,
    progress: bool = False,
) -> Profile:
    """Profiles training steps that go on from the model's weights, where the model is.

    Args:
        bot: The model, which stays as it is; its configuration says how it was trained.
        data: What to train on, in the model's vocabulary.
        batch_size: Examples in a batch; None takes the model's own.
        steps: How many steps are measured; as many more are recorded.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``auto``; None takes the model's own.
        progress: Show a progress bar, if standard error is a terminal.
    """
    device = bot.model.output.weight.device
    own = bot.config.training
    training = replace(
        own,
        batch_size=batch_size or own.batch_size,
        precision=precision or own.precision,
        device=device.type,
    )
    trainer = Trainer(data, replace(bot.config, training=training))
    trainer.model.load_state_dict(bot.model.state_dict())
    interval = _Interval()
    recording = record(
        Work(
            name="training step",
            step=lambda: trainer._train_one(interval),
            net=trainer.model,
            device=trainer.device,
            unrecorded=lambda: _without_recorded_step(trainer),
            resident=lambda: [*trainer.model.parameters(), *_moments(trainer)],
        ),
        steps,
        progress=progress,
    )
    return _profile(
        recording,
        mode=TRAINING,
        precision=trainer.dtype,
        batch_size=min(training.batch_size, len(trainer.train_batches)),
        data=data,
        notes=[_teacher_forcing(training.teacher_forcing_ratio)],
        device=trainer.device,
    )


def source_texts(bot: DialogueModel, data: PreparedData, number: int) -> list[str]:
    """Texts of real sources; where there are too few, they begin again."""
    split = next(name for name in ("validation", "test", "train") if len(data.examples[name]))
    batches = Batches(data, split)
    texts = [bot.vocabulary.decode(row) for row in batches.take(batches.subset(number)).source]
    return [texts[i % len(texts)] for i in range(number)]


def _moments(trainer: Trainer) -> list[Tensor]:
    """What the optimizers remember."""
    states = [s for o in trainer.optimizers.optimizers.values() for s in o.state.values()]
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _teacher_forcing(ratio: float) -> str:
    words = {0.0: "every step is free-running", 1.0: "every step is teacher-forced"}
    return words.get(ratio, f"a step is teacher-forced with probability {ratio:g}")


@contextmanager
def _without_recorded_replies() -> Iterator[None]:
    longest = model.model_directory._LONGEST_RECORDED
    model.model_directory._LONGEST_RECORDED = 0
    try:
        yield
    finally:
        model.model_directory._LONGEST_RECORDED = longest


@contextmanager
def _without_recorded_step(trainer: Trainer) -> Iterator[None]:
    step = trainer._step
    if isinstance(step, RecordedTraining):
        trainer._step = step._step
    try:
        yield
    finally:
        trainer._step = step


def _profile(
    recording: Recording,
    *,
    mode: str,
    precision: torch.dtype,
    batch_size: int,
    data: PreparedData,
    notes: list[str],
    device: torch.device,
) -> Profile:
    found, rows = shares(recording.by_operator), operators(recording.by_operator)
    on_gpu = device.type == "cuda"
    return Profile(
        mode=mode,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        threads=torch.get_num_threads(),
        precision=str(precision).removeprefix("torch."),
        batch_size=batch_size,
        steps=recording.real.steps,
        data=str(data.settings["corpus"]),
        step_ms=recording.step_ms,
        profiled_ms=recording.real.whole_ms(),
        components=found,
        operators=rows,
        by_shape=operators(recording.by_operator, by_shape=True),
        kernels=kernels(recording.real),
        peak_bytes=recording.peak_bytes,
        resident_bytes=recording.resident_bytes,
        notes=[*notes, *([_GRAPH_NOTE] if on_gpu else [])],
        reading=where_the_time_goes(found, rows, mode == TRAINING),
        trace=recording.trace,
    )
