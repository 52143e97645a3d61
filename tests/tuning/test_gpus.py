"""Trials on GPUs that Ray believes in: which ones they see, and how many share one."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from analysis import Results
from tests.tuning.marks import RAY_LEFTOVERS
from tests.tuning.ray_support import ROOT, command, finish, sweep_mapping
from tuning import going_on, launch
from tuning.cluster import Resources
from tuning.experiment import Experiment
from tuning.going_on import is_complete, resume
from tuning.preflight import gpu_probe, probe
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.gpu_packing import Measured
from tuning.preflight.needs import Needs
from tuning.preflight.preflight import PreflightError, preflight
from tuning.trials import trainable

pytestmark = [
    pytest.mark.ray,
    *RAY_LEFTOVERS,
]
GIB = 2**30


@pytest.fixture(scope="module")
def ray():
    """Ray on a machine of which CUDA_VISIBLE_DEVICES names two GPUs; what is there is not asked."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    os.environ["CUDA_VISIBLE_DEVICES"] = "5,7"
    import ray

    from tuning.local_ray import on_loopback

    with on_loopback():
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80_000_000,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    yield ray
    ray.shutdown()
    if before is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


class ShowsItsGpus(trainable.DialogueTrainable):
    """Says in place of its device which GPUs it may use, once all workers are there that fit."""

    def _said_once(self):
        there, until = self.experiment / "workers", time.monotonic() + 120
        there.mkdir(exist_ok=True)
        (there / str(os.getpid())).touch()
        while len(list(there.iterdir())) < int(2 / self._granted("GPU")):
            assert time.monotonic() < until, "another worker was to come"
            time.sleep(0.05)
        return super()._said_once() | {"worker_device": os.environ.get("CUDA_VISIBLE_DEVICES")}


@pytest.fixture
def seen(search, monkeypatch):
    """The GPUs of each worker of a search."""
    monkeypatch.setattr(trainable, "DialogueTrainable", ShowsItsGpus)

    def run(**options):
        rows = Results.open(search(trials=5, parameters={"iterations": 4}, **options).path).rows
        return {row.worker: row.worker_device for row in rows if row.worker_device is not None}

    return run


@pytest.mark.slow
def test_trials_with_a_gpu_each_have_their_own(seen):
    assert sorted(seen(gpus_per_trial=1).values()) == ["5", "7"]


def test_trials_that_share_see_one_each_of_those_that_are_named(seen):
    assert sorted(seen(gpus_per_trial=0.5).values()) == ["5", "5", "7", "7"]


@pytest.mark.slow
def test_a_trial_with_both_sees_both(seen):
    assert {frozenset(ids.split(",")) for ids in seen(gpus_per_trial=2).values()} == {
        frozenset({"5", "7"})
    }


class RunsOut(trainable.DialogueTrainable):
    """Trials that do not clip find no memory, from their second report on."""

    def _step(self):
        if self.trainer is not None and self.assignment["config"]["clip"] == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super()._step()


def test_memory_that_runs_out_ends_that_trial_alone_and_a_retry_may_try_again(search, monkeypatch):
    monkeypatch.setattr(trainable, "DialogueTrainable", RunsOut)
    fields = {"clip": {"values": [0, 25, 50]}, "learning_rate": 0.001}
    path = search(gpus_per_trial=0.5, method="grid", parameters=fields, max_failures=3).path
    trials = Results.open(path).trials
    assert trials["state"].tolist() == ["failed", "finished", "finished"]
    assert trials["attempts"].tolist() == [1, 1, 1], "it would run out again"
    assert trials.loc[0, "reason"] == (
        "out of GPU memory: needs more than all it may have, tried to allocate 2.00 GiB more; "
        "lower batch_size or hidden_size, or raise --gpus-per-trial."
    )
    assert is_complete(Experiment.open(path))
    monkeypatch.undo()
    launch.retry(path)
    trials = Results.open(path).trials
    assert trials["state"].tolist() == ["finished"] * 3
    assert trials["attempts"].tolist() == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.chaos
def test_a_worker_that_ray_ends_for_want_of_memory_says_so(corpus, tmp_path):
    """Ray's memory monitor takes the machine for full; it ends workers, not the search."""
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(json.dumps(sweep_mapping(corpus, iterations=10**6, report_every=10**6)))
    monitor = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    search = command(
        "run", sweep, "--trials=1", "--name=full", "--max-failures=1", "--wandb=disabled",
        f"--storage={tmp_path}", env=monitor | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    said = finish(search)
    (trial,) = Results.open(tmp_path / "full").trials.to_dict("records")
    assert trial["state"] == "failed", said
    assert re.fullmatch(
        r"out of memory: Ray ended the worker because its node ran low on memory \([\d.]+GB of "
        r"[\d.]+GB used\); let fewer trials run there at once \(--cpus-per-trial, "
        r"--concurrency\)\.",
        trial["reason"],
    )


# How many share one, on this machine


@pytest.fixture
def demand(ray, corpus, tiny_data):
    from tuning.sweeps.sweep_file import parse_sweep

    return Demand.of(parse_sweep(sweep_mapping(corpus, device="auto")).space, tiny_data)


def takes(reserved, notes=None):
    """A measurement of a GPU of 24 GiB; what it is called with goes to a file of its own."""

    def fake(configuration, data, gpus):
        if notes is not None:
            visible = os.environ["CUDA_VISIBLE_DEVICES"]
            said = {"gpus": gpus, "visible": visible, "bytes": len(data)} | configuration
            (notes / str(os.getpid())).write_text(json.dumps(said))
        gib = {"total": 24 * GIB, "free": 24 * GIB, "context": GIB // 2}
        return Measured(device="NVIDIA L4", reserved=reserved * GIB if reserved else None, **gib)

    return fake


@pytest.fixture
def two_gpus(monkeypatch):
    """Torch sees as many as Ray offers."""
    monkeypatch.setattr(probe, "_gpus", lambda: 2)


def test_the_configuration_is_tried_with_what_a_trial_has(
    ray, demand, two_gpus, tmp_path, tiny_data
):
    notes = tmp_path / "notes"
    notes.mkdir()
    said = []
    needs = Needs(data=1)
    room = preflight(
        Resources(1, 0.5), tmp_path, None, needs,
        demand=lambda: demand, say=said.append, measure=takes(4, notes),
    )  # fmt: skip
    assert (room.trials, room.resources, said) == (4, Resources(1, 0.5), [])
    (note,) = notes.iterdir()
    tried = json.loads(note.read_text())
    assert int(note.name) != os.getpid() and tried["visible"] in ("5", "7")
    assert (tried["gpus"], tried["bytes"]) == (0.5, len(tiny_data.as_bytes()))
    assert tried["hidden_size"] == 16 and tried["clip"] in (0, 25, 50)


def trains_on_the_cpu(configuration, data, gpus):
    """All that is done on a GPU, but for CUDA: another process, which trains."""
    train = partial(gpu_probe.train_a_little, device="cpu")
    tried = gpu_probe.attempt(configuration, data, gpus, lambda: 0, train=train)
    gib = {"total": 24 * GIB, "free": 24 * GIB}
    return Measured(reserved=tried.reserved, problem=tried.problem, **gib)


def test_a_worker_of_ray_can_train_in_another_process(ray, demand, two_gpus, tmp_path):
    room = preflight(
        Resources(1, 0.5), tmp_path, None, Needs(data=1),
        demand=lambda: demand, measure=trains_on_the_cpu,
    )  # fmt: skip
    assert room.resources.gpus == 0.5


def test_trials_without_gpus_try_nothing(ray, two_gpus, tmp_path):
    def never():
        raise AssertionError

    preflight(Resources(1, 0), tmp_path, None, Needs(data=1), demand=never)
    preflight(Resources(1, 0.5), tmp_path, None, Needs(data=1, gpus=False), demand=never)


def test_what_does_not_fit_is_refused_with_all_else_that_is_wrong(ray, demand, two_gpus, tmp_path):
    needs = Needs(data=1, trials=10**6, weights=10**9)
    with pytest.raises(PreflightError) as raised:
        preflight(
            Resources(1, 0.5), tmp_path, None, needs, demand=lambda: demand, measure=takes(None)
        )
    disk, memory = raised.value.problems
    assert disk.startswith(f"{tmp_path}: ")
    assert "NVIDIA L4: the most demanding configuration needs more than the 24 GiB" in memory
    assert "(batch_size 8, hidden_size 16, encoder_layers 1, decoder_layers 1; utter" in memory


def test_where_no_gpu_is_there_after_all_it_is_said_once(ray, demand, monkeypatch, tmp_path):
    """Ray offers two, torch sees none: then there is nothing to try."""
    monkeypatch.setattr(probe, "_gpus", lambda: 0)
    with pytest.raises(PreflightError, match="Ray offers 2 GPU, but torch sees 0") as raised:
        preflight(
            Resources(1, 0.5), tmp_path, None, Needs(data=1),
            demand=lambda: demand, measure=takes(None),
        )  # fmt: skip
    assert len(raised.value.problems) == 1


@pytest.mark.slow
def test_a_search_goes_on_with_the_packing_that_was_lowered(
    search, two_gpus, monkeypatch, capsys, demand
):
    """Four were to share a GPU; three fit, which the manifest keeps."""

    def measured(reserved):
        for module in (launch, going_on):
            monkeypatch.setattr(module, "preflight", partial(preflight, measure=takes(reserved)))

    measured(6)
    fields = {"device": "auto", "iterations": 8}
    experiment = search(trials=2, gpus_per_trial=0.25, cpus_per_trial=0.5, parameters=fields)
    said = "".join(capsys.readouterr())
    assert "so 3 fit, not 4 as asked for" in said and "2 trials, 6 at a time" in said
    manifest = json.loads((experiment.path / "experiment.json").read_text())
    assert manifest["settings"]["resources"] == {"cpus": 0.5, "gpus": 0.3333}
    assert Results.open(experiment.path).trials["state"].tolist() == ["finished"] * 2

    measured(2)  # a GPU that could hold more: it stays as it was
    launch.extend(experiment.path, trials=1)
    said = "".join(capsys.readouterr())
    assert "3 trials, 2 known, 6 at a time" in said and "fit" not in said
    measured(11)  # one that holds fewer: lowered for this session, not in the manifest
    launch.extend(experiment.path, trials=1)
    said = "".join(capsys.readouterr())
    assert "so 2 fit, not 3 as asked for" in said and "4 trials, 3 known, 4 at a time" in said
    assert json.loads((experiment.path / "experiment.json").read_text()) == manifest
    assert resume(experiment.path).path == experiment.path


#: What is there is asked by Ray itself, of NVIDIA's library, which this machine may not have.
FOUR_GPUS = """
import os, sys
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
NvidiaGPUAcceleratorManager.get_current_node_num_accelerators = staticmethod(lambda: 4)
NvidiaGPUAcceleratorManager.get_current_node_accelerator_type = staticmethod(lambda: "L4")
from tuning.cluster import connected
with connected(None):
    import ray
    print(ray.cluster_resources().get("GPU", 0))
    tell = ray.remote(num_gpus=1, num_cpus=0)(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    count = int(ray.cluster_resources().get("GPU", 0))
    print(sorted(set(ray.get([tell.remote() for _ in range(count * 3)]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "offered", "given"), [("1,3", 2.0, {"1", "3"}), ("2", 1.0, {"2"}), ("", 0, set())]
)
def test_a_search_on_this_machine_uses_what_the_variable_names(visible, offered, given):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"CUDA_VISIBLE_DEVICES": visible, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", FOUR_GPUS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    count, ids = ended.stdout.strip().splitlines()[-2:]
    assert float(count) == offered
    assert set(ast.literal_eval(ids)) <= given and bool(given) == (ids != "[]")
