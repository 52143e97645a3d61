"""Memory of a real GPU: measured, running out, given back; skipped without one."""

import gc
import json

import numpy as np
import pytest
import torch

from analysis import Results
from model.errors import GpuMemoryError
from tests.tuning.marks import RAY_LEFTOVERS
from tests.tuning.trainable_support import local_trainable
from tuning.preflight.gpu_probe import measure
from tuning.trials.gpu_memory import share

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    *RAY_LEFTOVERS,
]
MIB, GIB = 2**20, 2**30
SMALL = {
    "hidden_size": 64,
    "batch_size": 32,
    "iterations": 24,
    "report_every": 6,
    "teacher_forcing_ratio": 0.5,
    "device": "cuda",
}


@pytest.fixture
def data(tiny_data):
    return np.frombuffer(tiny_data.as_bytes(), dtype=np.uint8)


@pytest.fixture(autouse=True)
def whole_gpu():
    """Leaves this process as much of the GPU as it had."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


def test_a_small_configuration(data):
    found = measure(SMALL, data, 0.5)
    assert found.problem is None and found.within_share
    assert found.device == torch.cuda.get_device_name()
    assert found.total == torch.cuda.get_device_properties(0).total_memory
    assert MIB < found.reserved < GIB
    assert 50 * MIB < found.context < 3 * GIB
    assert found.reserved < found.free <= found.total


def test_more_of_a_configuration_takes_more(data):
    small, large = measure(SMALL, data, 1), measure(SMALL | {"hidden_size": 1500}, data, 1)
    weights = 4 * 15 * 1500**2  # about: two layers each way, and Adam's moments beside them
    assert large.reserved > small.reserved + 3 * weights


def test_what_does_not_fit_its_share_is_measured_with_all_there_is(data):
    """A share of next to nothing; the model alone is larger."""
    total = torch.cuda.get_device_properties(0).total_memory
    gpus = 0.5 * GIB / total
    found = measure(SMALL | {"hidden_size": 2500}, data, gpus)
    assert found.problem is None and not found.within_share
    assert found.reserved > share(gpus, total)


def test_what_does_not_fit_at_all(data):
    """All but 2 GiB of the GPU is held by us."""
    free = torch.cuda.mem_get_info()[0]
    held = torch.empty(free - 2 * GIB, dtype=torch.uint8, device="cuda")
    found = measure(SMALL | {"hidden_size": 2500}, data, 1)
    assert held.numel() == free - 2 * GIB
    assert (found.reserved, found.problem) == (None, None)
    assert found.free < 3 * GIB
    assert found.tried.startswith(", tried to allocate ")


@pytest.fixture
def worker(tmp_path, data):
    """A trainable, without Ray, that holds as much of a GPU as is said."""

    def start(gpus, **fields):
        class Holding(local_trainable(tmp_path, data)):
            def _granted(self, resource):
                return gpus if resource == "GPU" else 1.0

        return Holding(assignment(0, **fields))

    return start


def assignment(trial, **fields):
    return {"trial": trial, "attempt": 1, "config": SMALL | fields}


def test_device_memory_is_free_before_the_next_trial(worker):
    """Steps of both kinds have been recorded, which keep memory of their own."""
    trainable = worker(1, hidden_size=512)
    for _ in range(4):
        trainable.step()
    assert torch.cuda.memory_reserved() > 40 * MIB
    trainable.reset_config(assignment(1))
    assert torch.cuda.memory_reserved() <= 40 * MIB, "workspaces of libraries"
    trainable.step()
    trainable.stop()


def test_memory_that_runs_out_is_said_and_the_process_can_go_on(worker):
    trainable = worker(0.5 * GIB / torch.cuda.get_device_properties(0).total_memory)
    trainable.reset_config(assignment(1, hidden_size=4000))
    with pytest.raises(GpuMemoryError) as raised:
        for _ in range(4):
            trainable.step()
    said = str(raised.value)
    assert said.startswith("out of GPU memory: needs more than ")
    assert torch.cuda.get_device_name() in said and ", its share of " in said
    assert said.endswith("; lower batch_size or hidden_size, or raise --gpus-per-trial.")
    raised = None
    trainable.reset_config(assignment(2))
    assert trainable.step()["report"].state == "running"
    trainable.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_two_trials_share_a_gpu(tmp_path, corpus):
    """With a Ray of its own, which finds the GPU itself; the packing is tried first."""
    from tests.tuning.ray_support import command, finish, sweep_mapping

    sweep = tmp_path / "sweep.json"
    sweep.write_text(json.dumps(sweep_mapping(corpus, device="auto")))
    search = command(
        "run", sweep, "--trials=4", "--name=shared", "--gpus-per-trial=0.5", "--wandb=disabled",
        f"--storage={tmp_path}",
    )  # fmt: skip
    said = finish(search, 400)
    assert search.returncode == 0, said
    trials = Results.open(tmp_path / "shared").trials
    assert trials["state"].tolist() == ["finished"] * 4
    assert trials["worker_device"].str.startswith("cuda:").all()
    assert "at a time" in said and "fits" not in said
