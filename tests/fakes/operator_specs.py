"""Specs of the operator's kinds, good and bad, and the CRDs as JSON Schema: what servers refuse without running one.

`REFUSED` says who refuses: `schema` (every server), `rule` (servers with CEL, and the reader), `reader` (only it).
"""

from datetime import datetime
from functools import cache
from typing import Any

import jsonschema
from flightpath_operator.api.crd import KINDS, definition

Json = dict[str, Any]

DIGEST = f"sha256:{'0a' * 32}"
MODEL: Json = {
    "model": "digits",
    "bundle": {"digest": DIGEST, "uri": "s3://models/store"},
    "runtime": {"engine": "onnxruntime", "variant": "onnxruntime-cpu-int8", "image": "registry.test/server:1"},
}
JOB: Json = {"image": "registry.test/train:1", "workers": 2}
CLUSTER: Json = {
    "image": "registry.test/ray:1",
    "rayVersion": "2.60.0",
    "workerGroups": [{"name": "gpu", "max": 4, "gpusPerWorker": 8}],
}
SMALLEST = {"TrainingJob": JOB, "TrainingCluster": CLUSTER, "ModelDeployment": MODEL}

ACCEPTED: list[tuple[str, Json]] = [
    *SMALLEST.items(),
    ("TrainingJob", JOB | {"workers": {"min": 1, "max": 4}}),
    ("TrainingJob", JOB | {"workers": 4096}),
    ("TrainingJob", JOB | {"checkpoint": {"uri": "pvc://claim/runs/1", "resume": 120}}),
    ("TrainingJob", JOB | {"checkpoint": {"uri": "nfs://10.0.0.1/exports/runs", "resume": "120"}}),
    ("TrainingJob", JOB | {"checkpoint": {"uri": "s3://bucket/a..b", "resume": "never", "keep": 3}}),
    ("TrainingJob", JOB | {"env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {}}}]}),
    ("TrainingJob", JOB | {"resources": {"requests": {"cpu": 2, "memory": "1.5Gi", "rdma/hca": "1"}}}),
    ("TrainingJob", JOB | {"restart": {"exitCodes": [{"codes": [137, 3], "action": "Restart"}], "stallFactor": 3}}),
    ("TrainingJob", JOB | {"success": {"target": 0}}),
    (
        "TrainingJob",
        JOB | {"volumes": [{"name": "d", "emptyDir": {}}], "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
    ),
    ("TrainingCluster", CLUSTER | {"maxGpus": 32, "suspend": True}),
    ("ModelDeployment", MODEL | {"replicas": 0, "autoscaling": {"min": 0, "max": 3, "metric": "cpu", "target": 70}}),
    ("ModelDeployment", MODEL | {"networkPolicy": {"allowFromNamespaces": ["gateways"]}}),
]
"""Kind and spec."""

REFUSED: list[tuple[str, str, Json, str]] = [
    ("schema", "TrainingJob", {"workers": 1}, "image"),
    ("schema", "TrainingJob", {"image": "a"}, "workers"),
    ("schema", "TrainingJob", JOB | {"image": ""}, "image"),
    ("schema", "TrainingJob", JOB | {"workers": -1}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": 0}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": 4097}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": 1.5}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": "two"}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": True}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": [1, 2]}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": []}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": {}}, "workers"),
    ("schema", "TrainingJob", JOB | {"workers": {"min": 1}}, "workers.max"),
    ("schema", "TrainingJob", JOB | {"workers": {"min": 0, "max": 2}}, "workers.min"),
    ("reader", "TrainingJob", JOB | {"workers": {"min": 3, "max": 2}}, "min must be <= max"),
    ("reader", "TrainingJob", JOB | {"workers": {"min": 1, "max": 2, "step": 1}}, "workers.step"),
    ("schema", "TrainingJob", JOB | {"gpusPerWorker": 17}, "gpusPerWorker"),
    ("schema", "TrainingJob", JOB | {"network": {"port": 80}}, "network.port"),
    ("schema", "TrainingJob", JOB | {"network": {"backend": "mpi"}}, "network.backend"),
    ("schema", "TrainingJob", JOB | {"framework": "jax"}, "framework"),
    ("schema", "TrainingJob", JOB | {"env": [{"name": "A=B", "value": "1"}]}, "env[0].name"),
    ("schema", "TrainingJob", JOB | {"env": [{"name": "A"}, {"name": "A"}]}, "env"),
    ("rule", "TrainingJob", JOB | {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}]}, "env[0]"),
    ("schema", "TrainingJob", JOB | {"volumes": [{"emptyDir": {}}]}, "volumes[0]"),
    ("schema", "TrainingJob", JOB | {"resources": {"limits": {"cpu": "1.5x"}}}, "resources.limits.cpu"),
    ("schema", "TrainingJob", JOB | {"resources": {"limits": {"cpu": -1}}}, "resources.limits.cpu"),
    ("rule", "TrainingJob", JOB | {"resources": {"limits": {"c p u": "1"}}}, "resources.limits"),
    ("rule", "TrainingJob", JOB | {"nodeSelector": {"-bad-": "x"}}, "nodeSelector"),
    ("schema", "TrainingJob", JOB | {"nodeSelector": {"good": "x y"}}, "nodeSelector"),
    ("schema", "TrainingJob", JOB | {"checkpoint": {"uri": "/tmp/x"}}, "checkpoint.uri"),
    ("rule", "TrainingJob", JOB | {"checkpoint": {"uri": "pvc://claim/../other"}}, "checkpoint"),
    ("schema", "TrainingJob", JOB | {"checkpoint": {"uri": "s3://b/r", "resume": "latest"}}, "checkpoint.resume"),
    ("schema", "TrainingJob", JOB | {"checkpoint": {"uri": "s3://b/r", "resume": -1}}, "checkpoint.resume"),
    ("rule", "TrainingJob", JOB | {"restart": {"backoffSeconds": 9, "maxBackoffSeconds": 8}}, "backoffSeconds"),
    ("schema", "TrainingJob", JOB | {"restart": {"exitCodes": [{"codes": [0], "action": "Fail"}]}}, "codes[0]"),
    ("schema", "TrainingJob", JOB | {"restart": {"maxRestarts": -1}}, "restart.maxRestarts"),
    ("schema", "TrainingJob", JOB | {"activeDeadlineSeconds": 0}, "activeDeadlineSeconds"),
    ("schema", "TrainingJob", JOB | {"queue": "A B"}, "queue"),
    ("schema", "TrainingJob", JOB | {"success": {"metric": "f1", "target": 1}}, "success.metric"),
    ("schema", "TrainingCluster", CLUSTER | {"workerGroups": []}, "workerGroups"),
    ("schema", "TrainingCluster", CLUSTER | {"rayVersion": "nightly"}, "rayVersion"),
    ("rule", "TrainingCluster", CLUSTER | {"workerGroups": [{"name": "a", "min": 3, "max": 2}]}, "workerGroups[0]"),
    ("schema", "TrainingCluster", CLUSTER | {"workerGroups": [{"name": "a", "max": 2}] * 2}, "workerGroups"),
    ("schema", "ModelDeployment", MODEL | {"bundle": {"digest": "sha256:00", "uri": "s3://a/b"}}, "bundle.digest"),
    ("schema", "ModelDeployment", MODEL | {"bundle": {"digest": DIGEST, "uri": "oci://a/b"}}, "bundle.uri"),
    ("schema", "ModelDeployment", MODEL | {"replicas": -1}, "replicas"),
    ("schema", "ModelDeployment", MODEL | {"drainSeconds": -1}, "drainSeconds"),
    ("schema", "ModelDeployment", MODEL | {"port": 80}, "port"),
    ("schema", "ModelDeployment", MODEL | {"runtime": MODEL["runtime"] | {"engine": "tgi"}}, "runtime.engine"),
    ("rule", "ModelDeployment", MODEL | {"runtime": MODEL["runtime"] | {"environment": {"1A": ""}}}, "environment"),
    ("rule", "ModelDeployment", MODEL | {"autoscaling": {"min": 3, "max": 2, "target": 1}}, "autoscaling"),
]
"""Who refuses, kind, spec, and what the message names."""


def document(kind: str, spec: Json, name: str = "digits") -> Json:
    """An object as a user writes it."""
    return {
        "apiVersion": "flightpath.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "team"},
        "spec": spec,
    }


def live(kind: str, spec: Json, name: str = "digits", **metadata: Any) -> Json:
    """An object as the API server returns it."""
    given = document(kind, spec, name)
    server = {
        "uid": "4c1f0a6e-0000-4000-8000-000000000001",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return given | {"metadata": given["metadata"] | server | metadata}


def schema_problems(obj: Json, part: str = "spec") -> list[str]:
    """What the CRD's schema refuses in `part`, and fields that a server would prune."""
    checked = _validator(obj["kind"], part).iter_errors(obj[part])
    return [f"{part}{error.json_path[1:]}: {error.message}" for error in checked]


@cache
def _validator(kind: str, part: str) -> jsonschema.Draft202012Validator:
    [found] = [candidate for candidate in KINDS if candidate.name == kind]
    [version] = definition(found)["spec"]["versions"]
    return jsonschema.Draft202012Validator(
        _as_json_schema(version["schema"]["openAPIV3Schema"]["properties"][part]),
        format_checker=_FORMATS,
    )


_FORMATS = jsonschema.FormatChecker([])


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _as_json_schema(schema: Json) -> Json:
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "items" in schema:
        result["items"] = _as_json_schema(schema["items"])
    if schema.get("x-kubernetes-list-type") in ("map", "set"):
        result["uniqueItems"] = True
    for key in ("properties", "patternProperties"):
        if key in schema:
            result[key] = {name: _as_json_schema(value) for name, value in schema[key].items()}
    if "additionalProperties" in schema:
        result["additionalProperties"] = _as_json_schema(schema["additionalProperties"])
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result
