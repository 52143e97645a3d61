"""The Kubernetes manifests: by Kubernetes' schema, KubeRay's fields and Ray's own reading."""

import re
import tomllib

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as autoscaling_config,
)
from ray.autoscaler._private.kuberay.utils import parse_quantity

from tests.deploy.files import (
    AWS,
    KUBERNETES,
    PLACEHOLDER,
    ROOT,
    load,
    load_all,
    pins,
    secrets_in,
    uncommented,
)
from tests.deploy.kuberay import pod_templates, problems

MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))
CLUSTER = KUBERNETES / "ray-cluster.yaml"
JOB = KUBERNETES / "ray-job.yaml"
DOCKERFILE = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")
RAY = pytest.mark.parametrize("file", [CLUSTER, JOB], ids=lambda file: file.stem)


def cluster_of(file) -> dict:
    spec = load(file)["spec"]
    return spec.get("rayClusterSpec", spec)


def containers(file):
    """Every container of a manifest, with the specification of its pod."""
    for _, template in pod_templates(load(file)):
        for container in template["spec"]["containers"]:
            yield template["spec"], container


# Schemas


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_kubernetes_accepts_it(file):
    assert [found for each in load_all(file) for found in problems(each)] == []


def test_all_of_them_are_there():
    names = {"network-policy", "ray-cluster", "ray-job", "storage", "storage-s3"}
    assert {file.stem for file in MANIFESTS} == names


def wrong_mode(spec):
    spec["authOptions"]["mode"] = "tokens"


def misspelled(spec):
    spec["workerGroupSpecs"][0]["maxReplica"] = spec["workerGroupSpecs"][0].pop("maxReplicas")


def a_number_for_ray(spec):
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def a_misspelled_field_of_a_pod(spec):
    spec["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsNonroot"] = True


def a_container_without_a_name(spec):
    del spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["name"]


def a_medium_in_numbers(spec):
    volumes = spec["workerGroupSpecs"][0]["template"]["spec"]["volumes"]
    volumes[1]["emptyDir"]["medium"] = 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (wrong_mode, "spec.authOptions.mode: 'tokens' is not one of"),
        (misspelled, "spec.workerGroupSpecs.0: Additional properties are not allowed"),
        (a_number_for_ray, "spec.headGroupSpec.rayStartParams.num-cpus: 0 is not of type"),
        (a_misspelled_field_of_a_pod, "headGroupSpec.spec.securityContext: Additional"),
        (a_container_without_a_name, "gpu.spec.containers.0: 'name' is a required"),
        (a_medium_in_numbers, "gpu.spec.volumes.1.emptyDir.medium: 1 is not of type"),
    ],
)
def test_a_broken_copy_is_refused(damage, problem):
    manifest = load(CLUSTER)
    damage(manifest["spec"])
    assert any(found.startswith(problem) for found in problems(manifest))


@RAY
def test_kuberays_further_rules(file):
    """What its operator checks beyond the schema (``utils/validation.go``)."""
    spec = cluster_of(file)
    assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52, 0)  # for the token
    for _, template in list(pod_templates(load(file))):
        assert template["spec"]["restartPolicy"] == "Never"  # for autoscaler v2
    settings = {
        one["name"] for _, container in containers(file) for one in container.get("env", [])
    }
    assert "RAY_enable_autoscaler_v2" not in settings


# As Ray's autoscaler reads it


@RAY
def test_rays_autoscaler_reads_what_was_meant(file):
    resource = {"metadata": {"name": "x", "namespace": "y"}, "spec": cluster_of(file)}
    config = autoscaling_config(resource)  # checks it by Ray's schema too
    head, worker = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"] == {"CPU": 0, "memory": 8 * 1024**3}
    assert worker["resources"] == {"CPU": 3, "GPU": 1, "memory": 12 * 1024**3}
    assert worker["min_workers"] == 0 < worker["max_workers"] == config["max_workers"]
    assert config["idle_timeout_minutes"] == 10 == load(AWS)["idle_timeout_minutes"]
    assert cluster_of(file)["enableInTreeAutoscaling"] is True


# What was decided


def test_the_job_starts_the_same_cluster():
    assert cluster_of(JOB) == cluster_of(CLUSTER)


@RAY
def test_the_image_is_one_and_says_its_version(file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = {container["image"] for _, container in containers(file)}
    assert images == {f"{PLACEHOLDER}/dialogue-tune:{project['version']}"}
    assert images.pop() in uncommented(AWS.read_text(encoding="utf-8"), "docker:")


@RAY
def test_ray_is_the_version_that_requirements_pin(file):
    assert cluster_of(file)["rayVersion"] == pins()["ray"]


@RAY
def test_the_token_is_asked_for_and_usage_statistics_are_off(file):
    spec = cluster_of(file)
    assert spec["authOptions"] == {"mode": "token"}
    ours = [container for _, container in containers(file) if container["name"] != SUBMITTER]
    assert len(ours) == 2
    for container in ours:
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


SUBMITTER = "ray-job-submitter"


@RAY
def test_nobody_is_root_and_nobody_can_become_it(file):
    for pod, container in containers(file):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked
    assert cluster_of(file)["autoscalerOptions"]["securityContext"] == locked
    user = pod["securityContext"]["runAsUser"]
    assert f"--uid {user} " in DOCKERFILE
    assert f"\nUSER {user}\n" in DOCKERFILE


@RAY
def test_trials_leave_a_worker_before_it_ends(file):
    from tuning.__main__ import _parser

    ((pod, worker),) = [each for each in containers(file) if each[1]["name"] == "ray-worker"]
    python, *words = worker["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, words[:2]) == ("python", ["-m", "tuning"])
    arguments = _parser().parse_args(words[2:])
    assert arguments.now
    assert arguments.deadline < pod["terminationGracePeriodSeconds"]
    assert "COPY --chown=1000:1000 tuning ./tuning" in DOCKERFILE


@RAY
def test_every_container_has_limits(file):
    options = cluster_of(file)["autoscalerOptions"]
    for container in [*(container for _, container in containers(file)), options]:
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind])


@RAY
def test_shared_memory_is_what_ray_takes(file):
    from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

    for pod, container in containers(file):
        if container["name"] == SUBMITTER:
            continue
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volume = next(v for v in pod["volumes"] if paths[v["name"]] == "/dev/shm")["emptyDir"]
        assert volume["medium"] == "Memory"
        memory = parse_quantity(container["resources"]["limits"]["memory"])
        share = float(parse_quantity(volume["sizeLimit"]) / memory)
        assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION < share < 0.5


@RAY
def test_every_node_mounts_the_experiments_at_the_same_place(file):
    claim = load_all(KUBERNETES / "storage.yaml")[0]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod, container in containers(file):
        if container["name"] == SUBMITTER:
            continue
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volume = next(v for v in pod["volumes"] if v["name"] == mounts["/mnt/runs"])
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}


def test_the_job_cleans_up_after_itself_and_may_start_again():
    spec = load(JOB)["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0


def test_the_policy_lets_in_the_cluster_and_the_operator_alone():
    policy = load(KUBERNETES / "network-policy.yaml")["spec"]
    ours = {"app": "dialogue-tune"}
    assert policy["podSelector"] == {"matchLabels": ours}
    assert policy["policyTypes"] == ["Ingress"]
    cluster, operator = policy["ingress"]
    assert cluster == {"from": [{"podSelector": {"matchLabels": ours}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all("podSelector" in source for source in operator["from"])
    for file in (CLUSTER, JOB):
        for _, template in pod_templates(load(file)):
            assert template["metadata"]["labels"] == ours


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_placeholders_are_said_and_nothing_is_secret(file):
    text = file.read_text(encoding="utf-8")
    values = [line for line in text.splitlines() if re.search(rf"^[^#]*{PLACEHOLDER}", line)]
    assert text.count(f"# {PLACEHOLDER}:") == len(values)
    assert secrets_in(text) == []
