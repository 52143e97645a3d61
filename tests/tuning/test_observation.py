"""What a worker says of itself: device, type of its node, memory at its peak."""

import mmap
import types
from pathlib import Path

import pytest
import torch

from analysis import Results
from tests.tuning.test_saving import CONFIG
from tests.tuning.trainable_support import local_trainable
from tuning.trials import observation
from tuning.trials.observation import device_name, peaks, reset_peaks, worker_type

CPU = torch.device("cpu")
LARGE = 200_000_000


def take_and_give_back():
    """Touches so much memory for a moment; of a mapping of its own, which is given back."""
    with mmap.mmap(-1, LARGE) as memory:
        memory.write(b"\1" * LARGE)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peaks on this system")
def test_the_peak_is_that_since_it_was_reset():
    reset_peaks(CPU)
    before = peaks(CPU)["peak_memory_mb"]
    take_and_give_back()
    high = peaks(CPU)["peak_memory_mb"]
    assert high > before + 0.9 * LARGE / 1e6
    reset_peaks(CPU)
    assert peaks(CPU)["peak_memory_mb"] < high - 0.9 * LARGE / 1e6


def test_where_it_cannot_be_reset_the_process_peak_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(observation, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    reset_peaks(CPU)
    before = peaks(CPU)["peak_memory_mb"]
    reset_peaks(CPU)
    assert peaks(CPU)["peak_memory_mb"] >= before > 0


def test_what_nobody_knows_is_left_out(monkeypatch):
    monkeypatch.setattr(observation, "peak_memory", lambda: 0)
    assert peaks(CPU) == {}


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are not there."""
    fake = types.SimpleNamespace(
        current_device=lambda: 1,
        get_device_name=lambda index: f"Model {index}",
        max_memory_allocated=lambda device: 3_000_000,
        reset_peak_memory_stats=lambda device: None,
    )
    monkeypatch.setattr(observation.torch, "cuda", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu(gpus):
    reset_peaks(torch.device("cuda"))
    assert peaks(torch.device("cuda"))["peak_gpu_memory_mb"] == 3.0
    assert device_name(torch.device("cuda:0")) == "cuda:0 Model 0"
    assert device_name(torch.device("cuda")) == "cuda:1 Model 1"


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        ("5,7", "cuda:7 Model 1"),
        ("5, GPU-1f", "cuda:GPU-1f Model 1"),
        ("", "cuda:1 Model 1"),
        ("5", "cuda:1 Model 1"),
    ],
)
def test_a_gpu_has_its_number_on_the_machine(gpus, monkeypatch, visible, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_name(torch.device("cuda:1")) == name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_real_gpu():
    device = torch.device("cuda")
    held = torch.zeros(25_000_000, device=device)  # 100 MB
    assert peaks(device)["peak_gpu_memory_mb"] >= 100
    del held
    reset_peaks(device)
    assert peaks(device).get("peak_gpu_memory_mb", 0) < 100
    assert device_name(device).startswith("cuda:0 ")


def labelled(monkeypatch, labels, *, connected=True):
    import ray

    context = types.SimpleNamespace(get_node_labels=lambda: labels)
    monkeypatch.setattr(ray, "is_initialized", lambda: connected)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"ray.io/node-id": "1"}, None),
        ({"ray.io/accelerator-type": "H200"}, "H200"),
        ({"ray.io/accelerator-type": "T4", "ray.io/node-group": "gpu_spot"}, "gpu_spot"),
    ],
)
def test_the_type_of_a_node(monkeypatch, labels, name):
    labelled(monkeypatch, labels)
    assert worker_type() == name


def test_without_ray_there_is_no_type(monkeypatch):
    labelled(monkeypatch, {"ray.io/node-group": "x"}, connected=False)
    assert worker_type() is None


def test_only_the_first_report_of_an_attempt_says_where_it_is(tmp_path, tiny_data):
    worker = local_trainable(tmp_path, tiny_data)({"trial": 0, "attempt": 1, "config": CONFIG})
    first, second = worker.step(), worker.step()
    assert first["worker_device"] == "cpu"
    assert {"worker_device", "worker_type", "note"} <= set(first)
    assert not {"worker_device", "worker_type", "note"} & set(second)
    for result in (first, second):
        assert result["report"].metrics["peak_memory_mb"] > 0
    worker.stop()


@pytest.mark.ray
# Ray leaves sockets and file descriptors to the garbage collector when it shuts down.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_results_of_a_search_say_it(search):
    trials = Results.open(search(trials=2, parameters={"iterations": 8}).path).trials
    assert trials["worker_device"].tolist() == ["cpu", "cpu"]
    assert trials["worker_type"].isna().all(), "this Ray has no types of nodes"
    assert (trials["peak_memory_mb"] > 50).all()
    assert trials["peak_gpu_memory_mb"].isna().all()
    parts = ["wait_seconds", "train_seconds", "eval_seconds", "save_seconds"]
    assert (trials[parts] >= 0).all().all()
    assert (trials[parts].sum(axis=1) <= trials["seconds"] + 1e-2).all()
