"""Preflight: by hand on plain facts, on a Ray of this machine, and on clusters with real faults."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from model.errors import ResourceError
from model.seq2seq import Seq2Seq
from tests.tuning.preflight_support import (
    Machines,
    other_versions,
    why_no_mounts,
    without_our_code,
)
from tests.tuning.ray_support import ROOT, command, finish, sweep_mapping
from tuning.cluster import Resources, fitting
from tuning.environment import versions
from tuning.preflight import needs as needs_module
from tuning.preflight.checks import (
    Node,
    notes_on,
    of_machine,
    of_node,
    of_storage,
    size,
    told_apart,
)
from tuning.preflight.needs import Needs
from tuning.preflight.node_types import Growth, NodeType, growth, read_growth
from tuning.preflight.preflight import PreflightError, preflight
from tuning.preflight.probe import NodeFacts
from tuning.sweeps.sweep_file import parse_sweep

GB, MB = 10**9, 10**6
STORAGE = Path("/mnt/runs")
NODE = Node(id="ab" * 28, name="node n1", gpus=0, store=2 * GB)
NEEDS = Needs(data=10 * MB, trials=10, weights=50 * MB)


def facts(**values) -> NodeFacts:
    """Of a node with which nothing is wrong."""
    right = {
        "versions": {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu"},
        "there": True,
        "shared": True,
        "storage_problem": None,
        "storage_free": 100 * GB,
        "temporary": "/tmp/ray",
        "temporary_free": 100 * GB,
        "shm_free": 8 * GB,
        "shm_size": 8 * GB,
        "store": "/dev/shm",
        "fetch_problem": None,
        "gpus": None,
    }
    return NodeFacts(**right | values)


def problems(node=NODE, seen=True, needs=NEEDS, driver=None, **values) -> list[str]:
    found = facts(**values)
    judged = of_node(node, found, driver or facts(), STORAGE, seen=seen)
    return [*judged, *of_machine(node, found, needs)]


# By hand


def test_nothing_is_said_of_a_node_with_which_nothing_is_wrong():
    assert problems() == []
    assert list(notes_on(NODE, facts(), facts())) == []
    assert list(of_storage(facts(), STORAGE, NEEDS)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"there": False, "shared": False},
            "node n1: /mnt/runs: is not there; mount the same directory on every node, or choose "
            "another --storage.",
        ),
        (
            {"shared": False},
            "node n1: /mnt/runs: is another directory than the driver's, which has the same name; "
            "mount the same one on every node, or choose another --storage.",
        ),
        (
            {"storage_problem": "the file system is read-only"},
            "node n1: /mnt/runs: cannot be written: the file system is read-only.",
        ),
        (
            {"seen": False},
            "node n1: /mnt/runs: what it writes there does not reach the driver; mount the same "
            "directory on every node, or choose another --storage.",
        ),
        (
            {"versions": {"python": "3.11.7", "ray": "2.60.0", "torch": "2.12.1"}},
            "node n1: has torch 2.12.1, but the driver has 2.13.0+cpu; install the same "
            "everywhere.",
        ),
        (
            {"versions": {"python": "3.11.7", "ray": "2.60.0"}},
            "node n1: has no torch, but the driver has 2.13.0+cpu; install the same everywhere.",
        ),
        (
            {"fetch_problem": "it did not come within 10 s"},
            "node n1: cannot fetch the data from the driver's node (it did not come within 10 s); "
            "open the ports between the nodes to each other.",
        ),
        (
            {"temporary_free": 3 * MB},
            "node n1: /tmp/ray: 3 MB are free, but Ray's temporary files need 100 MB; free some "
            "space, or start Ray there with another --temp-dir.",
        ),
        (
            {"shm_free": 20 * MB, "shm_size": 64 * MB},
            "node n1: /dev/shm: 20 MB of 64 MB are free, but the data need 30 MB of shared memory; "
            "remove files there, or give it more (docker run --shm-size).",
        ),
        (
            {"node": dataclasses.replace(NODE, store=5 * MB)},
            "node n1: Ray's object store holds 5 MB, but the data are 10 MB; start Ray there with "
            "a larger --object-store-memory.",
        ),
        (
            {"node": dataclasses.replace(NODE, gpus=2), "gpus": 1},
            "node n1: Ray offers 2 GPU, but torch sees 1; install the GPU's driver and a torch "
            "that is built for it, or start Ray there with --num-gpus=1.",
        ),
    ],
)
def test_each_problem_in_words(values, said):
    assert problems(**values) == [said]


def test_what_a_driver_cannot_write_is_not_laid_at_the_nodes():
    driver = facts(storage_problem="permission denied")
    assert problems(shared=False, driver=driver) == []
    assert list(of_storage(driver, STORAGE, NEEDS)) == [
        "/mnt/runs: cannot be written by the driver: permission denied."
    ]


def test_the_build_of_torch_and_the_last_number_of_python_may_differ():
    """A head without a GPU has another build of torch than its workers."""
    other = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0+cu130"}
    assert problems(versions=other) == []
    assert list(notes_on(NODE, facts(versions=other), facts())) == [
        "node n1: Python 3.11.9, and the driver has 3.11.7."
    ]
    assert len(problems(versions=other | {"python": "3.12.9"})) == 1


def test_gpus_do_not_matter_to_trials_that_train_without():
    node = dataclasses.replace(NODE, gpus=1)
    assert len(problems(node=node, gpus=0)) == 1
    assert problems(node=node, gpus=0, needs=dataclasses.replace(NEEDS, gpus=False)) == []
    assert problems(node=node, gpus=None) == [], "Ray hides them from us"


def test_an_object_store_on_disk_is_slow_but_works():
    slow = facts(store="/tmp/ray", shm_size=64 * MB, shm_free=64 * MB)
    assert list(of_machine(NODE, slow, NEEDS)) == []
    assert list(notes_on(NODE, slow, facts())) == [
        "node n1: /dev/shm has 64 MB, less than Ray's object store of 2 GB, which therefore lies "
        "on disk (/tmp/ray) and is slow; give it more (docker run --shm-size)."
    ]


def test_a_disk_must_hold_what_the_search_writes():
    assert NEEDS.disk == (10 + 50 * 10 + 50 * 6) * MB
    assert list(of_storage(facts(storage_free=NEEDS.disk), STORAGE, NEEDS)) == []
    assert list(of_storage(facts(storage_free=NEEDS.disk - MB), STORAGE, NEEDS)) == [
        "/mnt/runs: 809 MB are free, but the search writes about 810 MB (the data, and the best "
        "weights of 10 trials, 50 MB each); free some space or choose another --storage."
    ]
    (one,) = of_storage(facts(storage_free=0), STORAGE, dataclasses.replace(NEEDS, trials=1))
    assert "(the data, and the best weights of 1 trial, 50 MB each)" in one
    assert Needs(data=5).disk == 5, "a search that has run all its trials writes no weights"


@pytest.mark.parametrize("attention", ["dot", "general", "concat"])
@pytest.mark.parametrize("embedding", [None, 24])
def test_the_weights_are_reckoned_as_the_model_has_them(tiny_config, attention, embedding):
    config = tiny_config(
        attention=attention, embedding_size=embedding, encoder_layers=3, decoder_layers=2
    ).model
    real = Seq2Seq(config, 300)
    counted = sum(p.numel() * 4 for name, p in real.named_parameters() if ".score." not in name)
    assert needs_module.weight_bytes(config, 300) == counted


def test_needs_are_those_of_the_sweep(tiny_data, corpus):
    sweep = parse_sweep(sweep_mapping(corpus, hidden_size={"values": [8, 16]}))
    needs = Needs.of(sweep, tiny_data, 7)
    small, large = (
        Needs.of(parse_sweep(sweep_mapping(corpus, hidden_size=h)), tiny_data, 7).weights
        for h in (8, 16)
    )
    assert small < needs.weights < large
    assert needs.trials == 7 and needs.gpus is False
    assert 0.9 < needs.data / len(tiny_data.as_bytes()) < 1
    assert Needs.of(parse_sweep(sweep_mapping(corpus, device="auto")), tiny_data, 1).gpus is True


def test_sizes_and_names():
    assert [size(n) for n in (5, 1500, 2 * MB, 80 * GB, 2000 * GB)] == [
        "5 bytes",
        "1.5 kB",
        "2 MB",
        "80 GB",
        "2 TB",
    ]
    named = told_apart({"a" * 56: "10.0.0.1", "b" * 56: "x", "c" * 56: "x"})
    assert list(named.values()) == ["node 10.0.0.1", "node x (bbbbbbbb)", "node x (cccccccc)"]


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(PreflightError(["one.", "two."])))
    assert isinstance(error, ResourceError)
    assert error.problems == ("one.", "two.") and str(error) == "one.\ntwo."


# What the autoscaler may add


def test_room_is_what_the_best_types_give_within_the_limits():
    small = NodeType("small", {"CPU": 1}, 10)
    large = NodeType("large", {"CPU": 4}, 2)
    unknown = NodeType("unknown", {}, 9)

    def fits(node):
        return int(node.get("CPU", 0))

    assert Growth((small, large, unknown), 5).room(fits) == 4 + 4 + 1 + 1 + 1
    assert Growth((small, large), 1).room(fits) == 4
    assert Growth().room(fits) == 0


CLUSTER = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}},
        "spot": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 4},
        "any": {"resources": {"CPU": 2}},
        "off": {"resources": {"CPU": 64}, "max_workers": 0},
        "own": {"max_workers": 3},
    },
}
GROWTH = Growth(
    (
        NodeType("spot", {"CPU": 4, "GPU": 1}, 4),
        NodeType("any", {"CPU": 2}, 6),
        NodeType("own", {}, 3),
    ),
    6,
)
#: As Ray starts its autoscaler: what matters is the command line, and that somebody has it.
AUTOSCALER = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def autoscaler():
    """Starts a process that looks like an autoscaler with a file."""
    started = []

    def start(file, address="10.0.0.1:4711"):
        options = (f"--gcs-address={address}", f"--autoscaling-config={file}")
        started.append(subprocess.Popen([*AUTOSCALER, *options]))

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_types_are_read_from_the_file_of_the_autoscaler(tmp_path, autoscaler):
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER, sort_keys=False))
    autoscaler(file)
    assert read_growth("10.0.0.1:4711") == GROWTH
    assert read_growth("10.0.0.1:4712") is None, "that is another cluster"


def test_a_file_that_cannot_be_read_is_said(tmp_path, autoscaler):
    autoscaler(tmp_path / "gone.yaml")
    found = read_growth("10.0.0.1:4711")
    assert found.problem.startswith("FileNotFoundError: ") and "gone.yaml" in found.problem


def test_on_kubernetes_they_are_read_from_the_clusters_resource(monkeypatch):
    """By Ray's own code, but for the request."""
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    group = {"groupName": "gpu", "minReplicas": 0, "maxReplicas": 5, "replicas": 0}
    group["rayStartParams"] = {"num-cpus": "8", "num-gpus": "1"}
    group["template"] = {"spec": {"containers": [{"resources": {"limits": {"memory": "4Gi"}}}]}}
    head = {"rayStartParams": {"num-cpus": "0"}, "template": group["template"]}
    spec = {"headGroupSpec": head, "workerGroupSpecs": [group], "enableInTreeAutoscaling": True}
    cluster = {"metadata": {"name": "searches", "namespace": "ml"}, "spec": spec}
    asked = []
    monkeypatch.setattr(KubernetesHttpApiClient, "__init__", lambda self, namespace: None)
    monkeypatch.setattr(
        KubernetesHttpApiClient, "get", lambda s, path: asked.append(path) or cluster
    )
    for name, value in (("CLUSTER_NAME", "searches"), ("CLUSTER_NAMESPACE", "ml")):
        monkeypatch.setenv(f"RAY_{name}", value)
    assert read_growth("10.0.0.1:4711") is None, "this is no Kubernetes"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.1.0.1")
    found = read_growth("10.0.0.1:4711")
    assert asked == ["rayclusters/searches"] and found.problem is None
    (gpu,) = found.types
    assert (gpu.name, gpu.most, found.most) == ("gpu", 5, 5)
    assert (gpu.resources["CPU"], gpu.resources["GPU"]) == (8, 1)
    spec["enableInTreeAutoscaling"] = False
    assert read_growth("10.0.0.1:4711") is None


# On this machine


@pytest.mark.ray
def test_on_this_machine_disk_and_memory_are_looked_at(ray, tmp_path):
    storage, said = tmp_path / "new" / "runs", []
    preflight(Resources(1, 0), storage, None, Needs(data=MB), say=said.append)
    assert not storage.exists()
    much = Needs(data=900 * GB, trials=10**6, weights=GB)
    with pytest.raises(PreflightError) as raised:
        preflight(Resources(64, 0), storage, None, much, say=said.append)
    bundle, disk, store = raised.value.problems
    assert bundle.startswith("a trial asks for 64 CPU, but no node has that much")
    assert disk.startswith(f"{storage}: ") and "are free, but the search writes about" in disk
    assert "the data are 900 GB; start Ray there with a larger --object-store-memory." in store


@pytest.mark.ray
def test_the_head_is_asked_and_what_may_be_added_counts(ray, tmp_path, autoscaler, monkeypatch):
    """From a driver on another node; the head here has two CPUs of its own."""
    address = ray.get_runtime_context().gcs_address
    elsewhere = SimpleNamespace(gcs_address=address, get_node_id=lambda: "elsewhere")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: elsewhere)
    assert growth() is None
    assert fitting(Resources(1, 0), growth()) == 2
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER, sort_keys=False))
    autoscaler(file, address)
    assert growth() == GROWTH
    assert fitting(Resources(1, 0), growth()) == 2 + 4 * 4 + 2 * 2
    assert fitting(Resources(1, 0.5), growth()) == 4 * 2
    refusal = (
        r"nor has any type that the autoscaler may add \(spot: 4 CPU, 1 GPU; any: 2 CPU, 0 GPU; "
        r"own: not known\); lower"
    )
    with pytest.raises(ResourceError, match=refusal):
        fitting(Resources(5, 0), growth())
    file.write_text("max_workers: [")
    said = []
    monkeypatch.undo()
    preflight(Resources(1, 0), tmp_path, None, Needs(data=MB), say=said.append)
    (note,) = said
    assert note.startswith("what the autoscaler may add is not known (ParserError: ")
    assert note.endswith("only the nodes that are there count.") and "\n" not in note


# On clusters


@pytest.fixture
def machines(tmp_path_factory):
    with Machines(tmp_path_factory.mktemp("c")) as started:
        yield started


CHECK = """
import json, sys, time
from pathlib import Path
from tuning.cluster import Resources, connected
from tuning.preflight.needs import Needs
from tuning.preflight.preflight import PreflightError, preflight
given, said = json.loads(sys.argv[1]), {"notes": [], "problems": [], "seconds": []}
with connected(given["address"]):
    for _ in range(given["times"]):
        began = time.monotonic()
        try:
            preflight(Resources(*given["resources"]), Path(given["storage"]), given["address"],
                      Needs(**given["needs"]), wait=given["wait"], say=said["notes"].append)
        except PreflightError as error:
            said["problems"] = list(error.problems)
        said["seconds"].append(time.monotonic() - began)
print(json.dumps(said))
"""


def checked(machines, storage, *, resources=(1, 0), wait=60.0, times=1, **needs):
    """What preflight says, from a process of its own: Ray reads its settings once."""
    given = {"address": machines.address, "storage": str(storage), "resources": resources}
    given |= {"wait": wait, "times": times, "needs": {"data": MB} | needs}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, json.dumps(given)],
        env=machines.environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.ray
def test_nothing_is_said_of_a_good_cluster_and_nothing_is_left(machines, tmp_path):
    machines.head()
    machines.start("alpha")
    machines.wait()
    said = checked(machines, tmp_path / "new" / "runs", times=2)
    assert said["problems"] == [] and said["notes"] == []
    assert list(tmp_path.iterdir()) == [], "a directory that was made only for this is removed"
    assert said["seconds"][1] < said["seconds"][0], "the processes are there by now"
    with_files = tmp_path / "runs"
    (with_files / "experiment").mkdir(parents=True)
    assert checked(machines, with_files)["problems"] == []
    assert [path.name for path in with_files.iterdir()] == ["experiment"]


@pytest.mark.alone  # on a busy machine Ray gives the mute node up meanwhile
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.skipif(why_no_mounts() is not None, reason=why_no_mounts() or "")
def test_every_real_fault_is_said_in_words_all_at_once(machines, tmp_path):
    """A node with a full disk of its own, one with nearly all that can be wrong, and two mute."""
    storage = tmp_path / "shared" / "runs"
    storage.mkdir(parents=True)
    alphas = machines.temporary("alpha")
    machines.head()
    machines.start("alpha", mounts={storage: "4k!", alphas: "90m"})
    machines.start(
        "beta",
        gpus=1,
        mounts={storage.parent: "1m", "/dev/shm": "90m"},
        environment=other_versions(tmp_path / "versions"),
    )
    machines.start("gamma")
    machines.start("delta", environment=without_our_code(tmp_path / "without"))
    machines.start("epsilon", mounts={storage: "overlay"})
    machines.wait()
    machines.stop_answering("gamma")
    said = checked(
        machines, storage, resources=(8, 1), wait=25, data=75 * MB, trials=10**6, weights=GB
    )
    here, found = versions(), iter(said["problems"])
    assert next(found).startswith("a trial asks for 8 CPU, 1 GPU, but no node has that much")
    assert next(found).startswith(f"{storage}: ")  # the disk that all share
    assert next(found) == (
        f"node alpha: {storage}: is another directory than the driver's, which has the same name; "
        "mount the same one on every node, or choose another --storage."
    )
    assert next(found) == (
        f"node alpha: {storage}: cannot be written: no space is left on the device."
    )
    temporary = next(found)
    assert temporary.startswith(f"node alpha: {alphas}/session_") and " MB are free" in temporary
    assert next(found) == (
        f"node beta: {storage}: is not there; mount the same directory on every node, or choose "
        "another --storage."
    )
    for name, there, package in (
        ("Python", "3.10.13", "python"),
        ("Ray", "2.59.0", "ray"),
        ("torch", "9.9.9", "torch"),
    ):
        assert next(found) == (
            f"node beta: has {name} {there}, but the driver has {here[package]}; install the same "
            "everywhere."
        )
    memory = next(found)
    assert memory.startswith("node beta: /dev/shm: ")
    assert "of 94.4 MB are free, but the data need 95 MB of shared memory" in memory
    assert next(found) == (
        "node beta: Ray offers 1 GPU, but torch sees 0; install the GPU's driver and a torch that "
        "is built for it, or start Ray there with --num-gpus=0."
    )
    assert next(found).startswith("node delta: cannot run our code: ")
    assert next(found) == (
        f"node epsilon: {storage}: what it writes there does not reach the driver; mount the same "
        "directory on every node, or choose another --storage."
    )
    assert next(found) == "node gamma: does not answer within 25 s; restart Ray there, or end it."
    assert list(found) == []
    assert list(storage.iterdir()) == []
    assert list((machines.directory / "epsilon-upper").iterdir()) == []


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(why_no_mounts() is not None, reason=why_no_mounts() or "")
def test_a_full_disk_that_all_share_and_shared_memory_too_small_for_ray(machines, tmp_path):
    """The driver says it; shared memory that Ray does not use is but a note."""
    storage = tmp_path / "runs"
    storage.mkdir()
    machines.head()
    machines.start("alpha", mounts={"/dev/shm": "64m"})
    machines.wait()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(storage)]
    subprocess.run(mounted, check=True)
    try:
        with pytest.raises(OSError), (storage / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"0" * 4096)
        said = checked(machines, storage)
        assert [path.name for path in storage.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", "--lazy", str(storage)], check=True)
    assert said["problems"][0] == (
        f"{storage}: cannot be written by the driver: no space is left on the device."
    )
    (note,) = said["notes"]
    assert note.startswith(
        "node alpha: /dev/shm has 67.1 MB, less than Ray's object store of 80 MB"
    )


WORKER = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}


def autoscaling(machines, *, second: bool) -> None:
    """A head without CPUs, whose autoscaler may add two workers of one CPU each."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray", "worker_start_ray")
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": machines.address,
            "launch_multiple": second,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, "one-cpu": WORKER},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "file_mounts": {},
        "cluster_synced_files": [],
        "auth": {},
        **{f"{name}_commands": [] for name in (*commands, *starts)},
    }
    file = machines.directory / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment |= {"RAY_enable_autoscaler_v2": str(int(second)), "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(
        ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"), FAKE_HEAD_NODE_ID
    )
    machines.head(0, f"--autoscaling-config={file}", environment=environment)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.ray
@pytest.mark.parametrize("second", [False, True], ids=["first autoscaler", "second autoscaler"])
def test_a_search_without_workers_brings_them(machines, tmp_path, corpus, second):
    autoscaling(machines, second=second)
    sweep, storage = tmp_path / "sweep.yaml", tmp_path / "runs"
    sweep.write_text(yaml.safe_dump(sweep_mapping(corpus, iterations=200)))
    arguments = ("run", sweep, "--storage", storage, "--address", machines.address)
    arguments += ("--wandb", "disabled")
    refused = command(
        *arguments, "--name", "large", "--cpus-per-trial", 2, env=machines.environment()
    )
    said = finish(refused)
    assert refused.returncode == 2
    assert (
        "a trial asks for 2 CPU, but no node has that much (the nodes have: 0 CPU, 0 GPU), nor has "
        "any type that the autoscaler may add (one-cpu: 1 CPU, 0 GPU); lower --cpus-per-trial or "
        "--gpus-per-trial." in said
    )
    assert not (storage / "large").exists()
    search = command(*arguments, "--name", "fits", "--trials", 4, env=machines.environment())
    said = finish(search, 240)
    assert search.returncode == 0, said
    from analysis.results import Results

    results = Results.open(storage / "fits")
    assert results.trials["state"].tolist() == ["finished"] * 4
    workers = {row.worker for row in results.rows if row.kind == "report"}
    assert "4 trials, 2 at a time" in said
    assert 1 <= len(workers) <= 2, said  # the second may come when all is done
