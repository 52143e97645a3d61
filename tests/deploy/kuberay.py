"""KubeRay's custom resources, as far as our manifests use them, as JSON schemas.

Names and types are those of KubeRay's resource definitions (``ray.io_rayclusters.yaml`` and
``ray.io_rayjobs.yaml``, and the Go types that they are made from), of release 1.5.1, the first with
``authOptions``, and later. Fields that we do not use are left out, so that a misspelled one is
refused, as Kubernetes itself would with ``--validate=strict``. A pod template is a plain object
here: :func:`problems` checks it against Kubernetes' own schema.
"""

from collections.abc import Iterator

import jsonschema
import kubernetes_validate

KUBERNETES = "1.34"


def _object(required: tuple[str, ...] = (), **properties: dict) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
YES_NO = {"type": "boolean"}
ANY = {"type": "object"}
TEXTS = {"type": "object", "additionalProperties": TEXT}

#: ``RayClusterSpec``.
CLUSTER = _object(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=_object(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=ANY,
        securityContext=ANY,
        env={"type": "array"},
    ),
    headGroupSpec=_object(("template",), rayStartParams=TEXTS, template=ANY),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ("groupName", "minReplicas", "maxReplicas", "template"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=TEXTS,
            template=ANY,
        ),
    },
)
#: ``RayJobSpec``.
JOB = _object(
    entrypoint=TEXT,
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=YES_NO,
    ttlSecondsAfterFinished=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterPodTemplate=ANY,
    rayClusterSpec=CLUSTER,
)
SPECIFICATION = {"RayCluster": CLUSTER, "RayJob": JOB}


def pod_templates(manifest: dict) -> Iterator[tuple[str, dict]]:
    """Every pod template of a RayCluster or RayJob, with its place."""
    spec = manifest["spec"]
    if "submitterPodTemplate" in spec:
        yield "submitterPodTemplate", spec["submitterPodTemplate"]
    cluster = spec.get("rayClusterSpec", spec)
    yield "headGroupSpec", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]


def problems(manifest: dict) -> list[str]:
    """What KubeRay or Kubernetes would refuse in a manifest, each with its place."""
    if manifest["kind"] not in SPECIFICATION:
        return _kubernetes_problems("", manifest)
    schema = _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind=TEXT,
        metadata=_object(
            ("name",), name={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,46}$"}, labels=TEXTS
        ),
        spec=SPECIFICATION[manifest["kind"]],
    )
    found = [
        f"{'.'.join(map(str, error.path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]
    if found:
        return found
    for place, template in pod_templates(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        found += _kubernetes_problems(f"{place}.", pod)
    return found


def _kubernetes_problems(place: str, manifest: dict) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{place}{'.'.join(map(str, error.path))}: {error.message}"]
    return []
