"""Trying a configuration in another process: who is asked when, and whatever may go wrong there."""

import os
import signal
import time
import types

import numpy as np
import pytest

from model.graphs import WARM_UP
from tuning.preflight import gpu_probe
from tuning.preflight.gpu_packing import Measured
from tuning.preflight.gpu_probe import Tried, attempt, measure

GIB = 2**30
NOTHING = np.zeros(1, dtype=np.uint8)


# What is run in the other process


def takes_six_and_keeps_four(configuration, data, gpus):
    assert (configuration, data.tolist(), gpus) == ({"hidden_size": 8}, [0], 0.5)
    return 6 * GIB, 4 * GIB


def runs_out(configuration, data, gpus):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of")


def fails(configuration, data, gpus):
    raise ValueError("no such\n  thing")


def dies(configuration, data, gpus):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(configuration, data, gpus):
    time.sleep(600)


def tried(train, free=lambda: 0, seconds=60.0) -> Tried:
    return attempt({"hidden_size": 8}, NOTHING, 0.5, free, train=train, seconds=seconds)


def test_what_the_other_process_takes_is_seen_from_outside():
    """Before, once it has begun, and when it has trained."""
    left = iter([20 * GIB, 19.5 * GIB, 15 * GIB])
    # Of the 5 GiB that it takes in the end, torch has 4; at the peak it had 6.
    assert tried(takes_six_and_keeps_four, lambda: int(next(left))) == Tried(
        reserved=6 * GIB, context=1 * GIB, begun=GIB // 2
    )
    assert list(left) == []


def test_memory_that_runs_out():
    left = iter([20 * GIB, 19 * GIB])
    found = tried(runs_out, lambda: next(left))
    assert found.out_of_memory.startswith("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert (found.reserved, found.problem, found.begun) == (None, None, GIB)


@pytest.mark.slow
def test_what_fails_otherwise_is_said_in_a_line():
    assert tried(fails) == Tried(problem="ValueError: no such thing")


@pytest.mark.slow
def test_a_process_that_dies_is_said_with_its_signal():
    assert tried(dies).problem == "the process died while it trained (exit status -9)"


@pytest.mark.slow
def test_a_process_that_hangs_is_ended():
    began = time.monotonic()
    assert tried(hangs, seconds=3).problem == "training did not end within 3 s"
    assert time.monotonic() - began < 30
    assert not [child for child in gpu_probe.multiprocessing.active_children() if child.is_alive()]


# What is measured of a GPU, with a torch that sees one


class FakeGpu:
    """A GPU of 24 GiB, and what tries on it give, in turn."""

    def __init__(self, monkeypatch, *tries):
        self.tries, self.asked = iter(tries), []
        memory = (22 * GIB, 24 * GIB)
        torch = types.SimpleNamespace(
            is_available=lambda: True,
            get_device_name=lambda: "NVIDIA L4",
            mem_get_info=lambda: memory,
        )
        import torch as real

        monkeypatch.setattr(real, "cuda", torch)
        monkeypatch.setattr(gpu_probe, "attempt", self.attempt)

    def attempt(self, configuration, data, gpus, free):
        self.asked.append(gpus)
        assert free() == 22 * GIB
        return next(self.tries)


def test_one_try_is_enough_where_it_fits(monkeypatch):
    gpu = FakeGpu(monkeypatch, Tried(reserved=6 * GIB, context=GIB, begun=GIB // 2))
    assert measure({}, NOTHING, 0.5) == Measured(
        device="NVIDIA L4",
        total=24 * GIB,
        free=int(22.5 * GIB),  # our own context ends with us
        reserved=6 * GIB,
        context=GIB,
    )
    assert gpu.asked == [0.5]


def test_what_does_not_fit_its_share_is_tried_with_all_there_is(monkeypatch):
    short = Tried(out_of_memory="OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB")
    gpu = FakeGpu(monkeypatch, short, Tried(reserved=15 * GIB, context=GIB))
    found = measure({}, NOTHING, 0.25)
    assert (found.reserved, found.within_share, found.tried) == (15 * GIB, False, "")
    assert gpu.asked == [0.25, 1.0]


@pytest.mark.parametrize("gpus", [0.5, 1, 2])
def test_what_does_not_fit_at_all(monkeypatch, gpus):
    short = Tried(out_of_memory="OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB")
    gpu = FakeGpu(monkeypatch, short, short)
    found = measure({}, NOTHING, gpus)
    assert (found.reserved, found.tried) == (None, ", tried to allocate 1.00 GiB more")
    assert gpu.asked == ([0.5, 1.0] if gpus < 1 else [gpus])


def test_a_try_that_fails_otherwise_is_not_repeated(monkeypatch):
    gpu = FakeGpu(monkeypatch, Tried(problem="ValueError: no such thing"))
    assert measure({}, NOTHING, 0.5).problem == "ValueError: no such thing"
    assert gpu.asked == [0.5]


def test_a_search_before_us_is_waited_for():
    left = iter([2, 2, 15, 22, 23])
    assert gpu_probe.settled(lambda: next(left), 24, pause=0) == 22
    assert gpu_probe.settled(lambda: 5, 24, pause=0, pauses=3) == 5, "somebody else has the rest"


def test_without_a_gpu_it_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert measure({}, NOTHING, 0.5).problem == "torch finds no GPU that it can use"


# The training itself


def test_the_steps_are_those_around_the_end_of_an_epoch(tiny_data, tiny_config, monkeypatch):
    """On the CPU: steps of both kinds, the last batch of an epoch among them, evaluations."""
    from model import training

    step, evaluate, seen = training.training_step, training.evaluate, []

    def watched(model, optimizers, batch, *, teacher_forcing, **options):
        seen.append((len(batch.source), teacher_forcing))
        return step(model, optimizers, batch, teacher_forcing=teacher_forcing, **options)

    def counted(*arguments):
        seen.append("evaluation")
        return evaluate(*arguments)

    monkeypatch.setattr(training, "training_step", watched)
    monkeypatch.setattr(training, "evaluate", counted)
    config = tiny_config(teacher_forcing_ratio=0.05, batch_size=5).to_mapping()
    data = np.frombuffer(tiny_data.as_bytes(), dtype=np.uint8)
    assert gpu_probe.train_a_little(config, data, 0.5, device="cpu") == (0, 0)
    steps = [each for each in seen if each != "evaluation"]
    assert len(steps) >= gpu_probe._STEPS and seen.count("evaluation") >= 2
    assert {rows for rows, _ in steps} == {5, len(tiny_data.examples["train"]) % 5}
    kinds = [forced for _, forced in steps]
    assert min(kinds.count(True), kinds.count(False)) > WARM_UP, "or they are never recorded"


def test_large_models_take_fewer_steps(tiny_data, tiny_config, monkeypatch):
    from model.training import Trainer

    intervals, train_interval = [], Trainer.train_interval
    monkeypatch.setattr(
        Trainer, "train_interval", lambda self: intervals.append(1) or train_interval(self)
    )
    monkeypatch.setattr(gpu_probe, "_ENOUGH", -1.0)
    data = np.frombuffer(tiny_data.as_bytes(), dtype=np.uint8)
    gpu_probe.train_a_little(tiny_config().to_mapping(), data, 0.5, device="cpu")
    assert len(intervals) == 1


@pytest.mark.parametrize(("ratio", "tried_with"), [(0, 0), (0.01, 0.5), (0.9, 0.5), (1, 1)])
def test_steps_of_one_kind_stay_so(tiny_config, ratio, tried_with):
    config = tiny_config(teacher_forcing_ratio=ratio, batch_size=5, optimizer="sgd")
    shortened = gpu_probe._shortened(config, "cuda")
    assert shortened.training.teacher_forcing_ratio == tried_with
    kept = ("batch_size", "optimizer", "precision", "val_examples", "clip")
    assert all(getattr(shortened.training, n) == getattr(config.training, n) for n in kept)
    assert shortened.model == config.model and shortened.training.device == "cuda"
