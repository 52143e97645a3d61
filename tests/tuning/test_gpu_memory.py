"""A trial's share of a GPU, memory that runs out, and memory given back to the next trial."""

import gc
import types
import weakref

import pytest
import torch

from model.errors import GpuMemoryError
from model.training import Trainer
from tests.tuning.coordinator_support import coordinator
from tests.tuning.trainable_support import local_trainable
from tuning.trials import gpu_memory, trainable
from tuning.trials.gpu_memory import (
    give_back,
    keep_to_share,
    memory_error,
    out_of_memory,
    share,
)

GIB = 2**30
CONFIG = {
    "hidden_size": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "batch_size": 8,
    "iterations": 24,
    "report_every": 2,
    "device": "cpu",
    "threads": 1,
}
TORCH = (
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.06 GiB is free."
)
CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 24 GiB that is not there: 2 GiB are free, and torch has 9."""
    fake = types.SimpleNamespace(
        OutOfMemoryError=torch.cuda.OutOfMemoryError,
        fractions=[],
        emptied=0,
        is_initialized=lambda: True,
        get_device_properties=lambda device: types.SimpleNamespace(total_memory=24 * GIB),
        get_device_name=lambda: "NVIDIA L4",
        mem_get_info=lambda: (2 * GIB, 24 * GIB),
        memory_reserved=lambda: 9 * GIB,
    )

    def empty_cache():
        fake.emptied += 1

    fake.empty_cache = empty_cache
    fake.set_per_process_memory_fraction = lambda fraction, device: fake.fractions.append(fraction)
    monkeypatch.setattr(gpu_memory.torch, "cuda", fake)
    return fake


def test_a_trial_is_held_to_its_share_and_one_with_a_gpu_of_its_own_is_not(gpu):
    for gpus in (0.5, 1, 2, 0):
        keep_to_share(CUDA, gpus)
    assert gpu.fractions == [share(0.5, 24 * GIB) / (24 * GIB), 1.0, 1.0, 1.0]
    assert 0.45 < gpu.fractions[0] < 0.5
    keep_to_share(torch.device("cpu"), 0.5)
    assert len(gpu.fractions) == 4


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.cuda.OutOfMemoryError(TORCH), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("CUDA error: out of memory"), False),
        (MemoryError(), False),
    ],
)
def test_errors_that_mean_it(error, answer):
    assert memory_error(error) is (error if answer else None)


def test_memory_that_runs_out_while_a_step_is_recorded():
    """Torch then raises what it says when it ends the recording."""
    memory = torch.cuda.OutOfMemoryError(TORCH)
    with pytest.raises(RuntimeError, match="capture") as raised:
        try:
            raise memory
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error in a capture")
    assert memory_error(raised.value) is memory
    assert memory_error(None) is None


def test_what_is_said_of_a_shared_gpu(gpu):
    """What others left is less than the share of 11.1 GiB."""
    error = out_of_memory(torch.cuda.OutOfMemoryError(TORCH), 0.5)
    assert isinstance(error, GpuMemoryError)
    assert str(error) == (
        "out of GPU memory: needs more than 11 GiB of NVIDIA L4, its share of 24 GiB, tried to "
        "allocate 1.50 GiB more; lower batch_size or hidden_size, or raise --gpus-per-trial."
    )


def test_what_is_said_of_a_gpu_of_its_own(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "memory_reserved", lambda: 21.6 * GIB)
    error = out_of_memory(RuntimeError("CUDA error: out of memory"), 1)
    assert str(error) == (
        "out of GPU memory: needs more than 23.6 GiB of NVIDIA L4; lower batch_size or hidden_size."
    )


def test_a_gpu_that_answers_no_more(gpu, monkeypatch):
    def fail():
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(gpu, "mem_get_info", fail)
    assert str(out_of_memory(RuntimeError(TORCH), 1)) == (
        "out of GPU memory: needs more than all it may have, tried to allocate 1.50 GiB more; "
        "lower batch_size or hidden_size."
    )
    monkeypatch.setattr(gpu, "empty_cache", fail)
    give_back()


def test_what_refers_to_itself_is_collected_before_memory_is_given_back(gpu):
    circle = types.ModuleType("circle")
    circle.self, dead = circle, weakref.ref(circle)
    gc.disable()
    try:
        del circle
        assert dead() is not None
        give_back()
        assert dead() is None and gpu.emptied == 1
    finally:
        gc.enable()


def test_on_a_cpu_nothing_is_collected_for_that_takes_long(monkeypatch):
    monkeypatch.setattr(gpu_memory.gc, "collect", lambda: pytest.fail("it was"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    give_back()


# In the trainable


@pytest.fixture
def worker(tmp_path, tiny_data):
    """A trainable, without Ray, about to begin its first trial."""
    started = local_trainable(tmp_path, tiny_data)(assignment(0))
    yield started
    started.stop()


def assignment(trial):
    return {"trial": trial, "attempt": 1, "config": CONFIG}


def test_the_last_trials_trainer_is_gone_before_the_next_one_is_built(worker, monkeypatch):
    """Without the help of a collection of garbage."""
    built = []

    class Watched(Trainer):
        def __init__(self, *arguments, **options):
            assert [before() for before in built] == [None] * len(built)
            super().__init__(*arguments, **options)
            built.append(weakref.ref(self))
            weights = weakref.ref(self.model.output.weight)
            built.append(weights)

    monkeypatch.setattr(trainable, "Trainer", Watched)
    gc.disable()
    try:
        for trial in range(3):
            if trial:
                worker.reset_config(assignment(trial))
            for _ in range(2):
                worker.step()
    finally:
        gc.enable()
    assert len(built) == 6


def test_each_trial_gives_back_what_it_had_and_keeps_to_its_share(worker, monkeypatch):
    called = []
    monkeypatch.setattr(trainable, "give_back", lambda: called.append("give back"))
    monkeypatch.setattr(
        trainable, "keep_to_share", lambda device, gpus: called.append((device.type, gpus))
    )
    worker.step()
    worker.reset_config(assignment(1))
    worker.step()
    assert called == [("cpu", 1.0), "give back", ("cpu", 1.0)]


def test_memory_that_runs_out_is_said_in_our_words(worker, monkeypatch, tmp_path):
    """At the second report; the best weights of the first are on disk."""
    worker.step()

    def fail():
        raise torch.cuda.OutOfMemoryError(TORCH)

    monkeypatch.setattr(worker.trainer, "train_interval", fail)
    with pytest.raises(GpuMemoryError, match="out of GPU memory: needs more than .*1.50 GiB more;"):
        worker.step()
    assert (tmp_path / "trials" / "0000" / "best.pt").exists()


def test_so_it_is_where_the_model_does_not_even_fit(worker, monkeypatch):
    def fail(*arguments, **options):
        raise torch.cuda.OutOfMemoryError(TORCH)

    monkeypatch.setattr(trainable, "Trainer", fail)
    with pytest.raises(GpuMemoryError, match="out of GPU memory"):
        worker.step()


# In the search

NO_ROOM = "out of GPU memory: needs more than 11 GiB of NVIDIA L4"


def test_it_ends_the_trial_at_once_and_that_trial_alone(tmp_path):
    """The first trials to end are the largest, while the others have not reported yet."""
    search = coordinator(tmp_path / "journal", trials=6, max_failures=3)
    assignments = [search.next_assignment() for _ in range(6)]
    for assignment in assignments[:4]:
        search.failed(assignment.trial, NO_ROOM, retry=False)
    assert [search.trials[t].state for t in range(6)] == ["failed"] * 4 + ["running"] * 2
    assert search.next_assignment() is None
    for assignment in assignments[4:]:
        search.report(assignment.trial, 1, {"val_loss": 1.0}, state="finished")
    assert search.done


def test_a_retry_may_try_it_again(tmp_path):
    search = coordinator(tmp_path / "journal", trials=1)
    search.failed(search.next_assignment().trial, NO_ROOM, retry=False)
    assert search.ended_badly() == [0]
    search.retry([0])
    assert search.next_assignment().attempt == 2
