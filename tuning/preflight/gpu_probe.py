"""Tries a configuration on a GPU and measures what it takes there.

Runs on the node, in a process that Ray gives the GPU which a trial would have. The training runs in
a process of its own beside it, for only somebody else sees all that a process takes of a GPU: what
torch holds, CUDA's context, and the libraries' kernels and workspaces.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tuning.preflight.gpu_packing import Measured

#: How long one try may take, loading torch and starting CUDA included.
SECONDS = 180.0
#: Steps that are trained: enough for a step of either kind to be recorded (`model.graphs`), then
#: the smaller batch at the end of an epoch, which is not recorded, and one more evaluation.
_STEPS, _BEFORE_THE_END, _INTERVAL = 48, 40, 12
#: After so many seconds, and an interval, no more are trained: the largest have been seen by then.
_ENOUGH = 60.0

#: Tells how many bytes of the GPU are free.
Free = Callable[[], int]
#: Trains a configuration on data, within a share; returns what torch reserved at its peak and now.
Train = Callable[[dict[str, Any], np.ndarray, float], tuple[int, int]]


@dataclass(frozen=True)
class Tried:
    """What became of one try; sizes in bytes.

    Attributes:
        reserved: What torch held at its peak; None where it did not come to its end.
        context: What the process took beside that at the end.
        begun: What it took before its training.
        out_of_memory: What torch said, where memory ran out.
        problem: What went wrong otherwise, in words.
    """

    reserved: int | None = None
    context: int = 0
    begun: int = 0
    out_of_memory: str | None = None
    problem: str | None = None


def measure(configuration: dict[str, Any], data: np.ndarray, gpus: float) -> Measured:
    """Tries it on the GPU that this process sees first.

    First within a trial's share, where trials share a GPU; if that is not enough, with all there
    is, so that it is known how many would fit.

    Args:
        configuration: As a trial gets it.
        data: The bytes of the prepared data set.
        gpus: What a trial is to hold.
    """
    import torch

    from tuning.trials.gpu_memory import tried_to_allocate

    if not torch.cuda.is_available():
        return Measured(problem="torch finds no GPU that it can use")
    device, total = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1]

    def free() -> int:
        return int(torch.cuda.mem_get_info()[0])

    left = settled(free, total)  # with our own context, as yet
    found = Measured(device=device, total=total, free=left)
    tried = attempt(configuration, data, gpus, free)
    if tried.out_of_memory is not None and gpus < 1:
        found = replace(found, within_share=False)
        tried = attempt(configuration, data, 1.0, free)
    memory = tried.out_of_memory
    return replace(
        found,
        free=found.free + tried.begun,  # our own context is as large as the other's was
        reserved=tried.reserved,
        context=tried.context,
        tried="" if memory is None else tried_to_allocate(memory),
        problem=tried.problem,
    )


def settled(free: Free, total: int, *, pause: float = 0.5, pauses: int = 20) -> int:
    """Bytes that are free, once processes of a search before us have ended, which may take seconds.

    Args:
        free: Tells it.
        total: Of the GPU; it is waited for where less than nine tenths are free.
        pause: Seconds between two looks.
        pauses: After so many it is taken for somebody else's.
    """
    left = free()
    while left < 0.9 * total and pauses > 0:
        time.sleep(pause)
        left, pauses = free(), pauses - 1
    return left


def attempt(
    configuration: dict[str, Any],
    data: np.ndarray,
    gpus: float,
    free: Free,
    *,
    train: Train | None = None,
    seconds: float = SECONDS,
) -> Tried:
    """Trains for a few steps in another process, and watches what that takes.

    Args:
        configuration: As a trial gets it.
        data: The bytes of the prepared data set.
        gpus: The share that torch is held to.
        free: Asked before, when the process has begun, and when it has trained.
        train: Called in the other process; None for `train_a_little`.
        seconds: After which it is ended.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    work = (theirs, train or train_a_little, configuration, data, gpus)
    process = context.Process(target=_work, args=work, daemon=True)
    process.start()
    theirs.close()
    try:
        return _watch(ours, free, time.monotonic() + seconds)
    except TimeoutError:
        return Tried(problem=f"training did not end within {seconds:g} s")
    except EOFError:
        process.join(10)
        return Tried(problem=f"the process died while it trained (exit status {process.exitcode})")
    finally:
        process.kill()
        process.join()
        ours.close()


def _watch(pipe: Connection, free: Free, until: float) -> Tried:
    before = free()
    said = _hear(pipe, until)
    begun = before - free()
    if said is None:
        pipe.send(None)
        said = _hear(pipe, until)
    if isinstance(said, Tried):
        return replace(said, begun=begun)
    peak, reserved = said
    taken = before - free()
    return Tried(reserved=peak, context=max(0, taken - reserved), begun=begun)


def _hear(pipe: Connection, until: float) -> Any:
    if not pipe.poll(max(0.0, until - time.monotonic())):
        raise TimeoutError
    return pipe.recv()


def _work(
    pipe: Connection, train: Train, configuration: dict[str, Any], data: np.ndarray, gpus: float
) -> None:
    """What the other process does: None when it has begun, then what it measured or what failed.

    What it holds it goes on holding, until it is ended.
    """
    from tuning.trials.gpu_memory import memory_error

    with suppress(EOFError, BrokenPipeError):  # nobody waits for us any more
        try:
            _begin()
            pipe.send(None)
            pipe.recv()
            pipe.send(train(configuration, data, gpus))
        except Exception as error:
            memory = memory_error(error)
            text = " ".join(f"{type(error).__name__}: {error}".split())
            pipe.send(Tried(out_of_memory=str(memory)) if memory else Tried(problem=text))
        pipe.recv()


def _begin() -> None:
    """Makes CUDA's context, as any first use does."""
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


def train_a_little(
    configuration: dict[str, Any], data: np.ndarray, gpus: float, device: str = "cuda"
) -> tuple[int, int]:
    """Trains as a trial does, with all that takes memory of a GPU, but for a few steps only.

    Returns:
        Bytes that torch reserved on the GPU at the peak, and now; 0 on the CPU.
    """
    import torch

    from model.checkpoint import snapshot
    from model.config import Config
    from model.prepared_data import PreparedData
    from model.training import Trainer
    from tuning.trials.gpu_memory import keep_to_share

    config = _shortened(Config.from_mapping(configuration), device)
    keep_to_share(torch.device(device), gpus)
    trainer = Trainer(PreparedData.from_buffer(data, "object store"), config)
    epoch = trainer.train_batches.per_epoch(config.training.batch_size)
    trainer.iteration = max(0, epoch - _BEFORE_THE_END)
    last, until = trainer.iteration + _STEPS, time.monotonic() + _ENOUGH
    while trainer.iteration < last:
        trainer.train_interval()
        snapshot(trainer.state())
        if time.monotonic() > until:
            break
    if device == "cpu":
        return 0, 0
    return torch.cuda.max_memory_reserved(), torch.cuda.memory_reserved()


def _shortened(config: Any, device: str) -> Any:
    """The configuration with another beginning, end and device, but the memory it takes.

    A probability between 0 and 1 becomes one half, for steps of both kinds to come.
    """
    ratio = config.training.teacher_forcing_ratio
    training = replace(
        config.training,
        iterations=10**9,
        report_every=_INTERVAL,
        learning_rate=1e-5,  # which does not diverge
        teacher_forcing_ratio=0.5 if 0 < ratio < 1 else ratio,
        device=device,
    )
    return replace(config, training=training)
