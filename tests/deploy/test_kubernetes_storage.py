"""Where experiments lie on Kubernetes: a volume, or S3 with nothing mounted."""

import http.server
import json
import re
import threading

import pytest
import yaml

from tests.deploy.files import KUBERNETES, PLACEHOLDER, load, load_all, uncommented
from tests.deploy.kuberay import pod_templates, problems
from tests.deploy.opening import check_opens
from tests.tuning.storage.object_store import CREDENTIALS
from tuning.storage.place import is_uri
from tuning.storage.working_copy import CACHE_VARIABLE

VOLUME, S3 = KUBERNETES / "storage.yaml", KUBERNETES / "storage-s3.yaml"
STORAGES = pytest.mark.parametrize("storage", [VOLUME, S3], ids=lambda file: file.stem)
RAY = pytest.mark.parametrize("name", ["ray-cluster", "ray-job"])
VOLUME_LINE = re.compile(r"^ +- &runs \{.*persistentVolumeClaim.*\}\n", re.MULTILINE)
SUBMITTER = "submitterPodTemplate"


def with_s3(name) -> dict:
    """A manifest as storage-s3.yaml says that it is to be changed: one line out, one in."""
    text = (KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8")
    changed, removed = VOLUME_LINE.subn("", text)
    assert removed == 1
    return yaml.safe_load(uncommented(changed, "- &runs {"))


def pods(manifest):
    """The pods of the Ray cluster: their specification and their only container."""
    for place_, template in pod_templates(manifest):
        if place_ != SUBMITTER:
            (container,) = template["spec"]["containers"]
            yield template["spec"], container


def named(file, kind) -> dict:
    (found,) = [each for each in load_all(file) if each["kind"] == kind]
    return found


def settings(file) -> dict[str, str]:
    """What the pods are told."""
    return named(file, "ConfigMap")["data"]


# The choice


@STORAGES
@RAY
def test_the_pods_are_told_where_and_are_somebody(name, storage):
    told, account = named(storage, "ConfigMap"), named(storage, "ServiceAccount")
    for pod, container in pods(load(KUBERNETES / f"{name}.yaml")):
        where, keys = container["envFrom"]
        assert where == {"configMapRef": {"name": told["metadata"]["name"]}}
        assert keys["secretRef"]["optional"] is True
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        assert not {one["name"] for one in container["env"]} & set(told["data"])


def test_one_variable_says_where():
    assert settings(VOLUME)["STORAGE"] == "/mnt/runs"
    uri = settings(S3)["STORAGE"]
    assert uri == f"s3://{PLACEHOLDER}/runs"
    assert is_uri(uri)
    script = (KUBERNETES / "search.sh").read_text(encoding="utf-8")
    assert "storage=${STORAGE:-/mnt/runs}\n" in script


@RAY
def test_with_s3_kubernetes_accepts_it_and_needs_no_volume(name):
    manifest = with_s3(name)
    assert problems(manifest) == []
    assert "persistentVolumeClaim" not in json.dumps(manifest)
    assert [each["kind"] for each in load_all(S3)] == ["ConfigMap", "ServiceAccount"]
    for pod, container in pods(manifest):
        paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        mounted = paths[settings(S3)[CACHE_VARIABLE]]
        (volume,) = [each for each in pod["volumes"] if each["name"] == mounted]
        assert set(volume) == {"name", "emptyDir"}
        assert "medium" not in volume["emptyDir"]  # on disk


@RAY
def test_nothing_else_changes_with_s3(name):
    def without_volume(manifest):
        for pod, _ in pods(manifest):
            pod["volumes"] = [each for each in pod["volumes"] if each["name"] != "runs"]
        return manifest

    as_it_is = load(KUBERNETES / f"{name}.yaml")
    assert without_volume(with_s3(name)) == without_volume(as_it_is)


def test_the_comments_of_it_are_yaml_too():
    text = uncommented(S3.read_text(encoding="utf-8"), "annotations:", "AWS_ENDPOINT_URL:")
    told, account = yaml.safe_load_all(text)
    assert [*problems(told), *problems(account)] == []
    assert told["data"]["AWS_ENDPOINT_URL"].startswith("http://")
    (role,) = account["metadata"]["annotations"].items()
    assert role == ("eks.amazonaws.com/role-arn", "arn:aws:iam::ACCOUNT:role/ROLE")


def test_the_commands_in_it_name_what_is_there():
    text = re.sub(r"\n#", "", S3.read_text(encoding="utf-8"))
    account = named(S3, "ServiceAccount")["metadata"]["name"]
    assert (
        re.search(r"create-pod-identity-association .*--service-account (\S+)", text)[1] == account
    )
    secret = re.search(r"create secret generic (\S+) --from-env-file=FILE", text)[1]
    for _, container in pods(load(KUBERNETES / "ray-job.yaml")):
        assert {"secretRef": {"name": secret, "optional": True}} in container["envFrom"]


# What the pods would do with it


def check_opens_in_a_pod(bucket, store, **more):
    """With the pods' settings, and what comes with their account or Secret."""
    told = {name: value.replace(PLACEHOLDER, bucket) for name, value in settings(S3).items()}
    check_opens(told["STORAGE"], told | {"AWS_ENDPOINT_URL": store.url} | more)


def test_keys_of_the_secret_open_the_bucket(bucket, store):
    keys = {n: CREDENTIALS[n] for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    check_opens_in_a_pod(bucket, store, **keys)
    assert store.names(bucket, "runs/a") == ["runs/a"]


def test_without_any_nobody_reads(bucket, store):
    with pytest.raises(AssertionError, match="ACCESS_DENIED"):
        check_opens_in_a_pod(bucket, store)


class PodIdentity(http.server.BaseHTTPRequestHandler):
    """The agent of EKS that gives a pod its account's credentials for the pod's own token.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        body = {
            "AccessKeyId": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "Token": "of the session",
            "Expiration": "2199-01-01T00:00:00Z",
        }
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.fixture
def agent():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PodIdentity)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_pods_account_opens_the_bucket(bucket, store, agent, tmp_path):
    """With what EKS's Pod Identity puts into every pod of an account that has a role."""
    token = tmp_path / "token"
    token.write_text("of the pod")
    check_opens_in_a_pod(
        bucket,
        store,
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{agent.server_port}/v1/credentials",
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token),
    )
    assert agent.asked == [("/v1/credentials", "of the pod")]
