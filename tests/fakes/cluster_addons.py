"""What a cluster has that Flightpath uses and does not own, and workloads that somebody reports as running.

Istio and External Secrets are their definitions alone, without their checks and controllers.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from tests.fakes.kubernetes.app import ApiServer

WORKLOADS: Final = ("deployments", "statefulsets", "daemonsets")
BROUGHT_BY_OTHERS: Final = {
    "networking.istio.io/v1": ("DestinationRule", "Gateway", "ServiceEntry", "VirtualService"),
    "security.istio.io/v1": ("AuthorizationPolicy", "PeerAuthentication"),
    "telemetry.istio.io/v1": ("Telemetry",),
    "external-secrets.io/v1": ("ExternalSecret",),
}


def definitions() -> Iterator[dict[str, Any]]:
    """Of kinds with any content."""
    for api_version, kinds in BROUGHT_BY_OTHERS.items():
        group, version = api_version.split("/")
        for kind in kinds:
            plural = re.sub("y$", "ie", kind.lower()) + "s"
            schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            yield {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{group}"},
                "spec": {
                    "group": group,
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
                    "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
                },
            }


def report_rolled_out(server: ApiServer) -> None:
    """No kubelet runs here: the test plays the controllers that report every replica available."""
    for kind in WORKLOADS:
        for item in server.objects(kind):
            _report(server, kind, item)


def _report(server: ApiServer, kind: str, item: dict[str, Any]) -> None:
    count = item["spec"].get("replicas", 1)
    numbers = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), count)
    on_nodes = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady")
    status = {"observedGeneration": 99, **numbers, **dict.fromkeys(on_nodes, 1), "currentRevision": "a"}
    place = {"name": item["metadata"]["name"], "namespace": item["metadata"]["namespace"]}
    if kind != "deployments":
        # A real server sets it where nobody does; kubectl reads it.
        server.patch(kind, body={"spec": {"updateStrategy": {"type": "RollingUpdate"}}}, **place)
    server.patch(kind, body={"status": {**status, "updateRevision": "a"}}, status=True, **place)
