"""What the operator makes of one job, learned by watching it: so that its peers do the very same."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

from tests.bench.operator_peers import SAMPLE
from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.operator import OperatorProcess, install_crds, training_job

Object = dict[str, Any]
_SETTLED_S: Final = 1.5
_FROM_SERVER: Final = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")


async def learn(root: Path) -> Object:
    """What the operator makes of one job, and with how many writes: children, last status, requests by kind."""
    async with ApiServer() as server:
        install_crds(server)
        kubeconfig = server.kubeconfig(root / "learning")
        async with OperatorProcess(kubeconfig, root / "learning.log") as operator:
            await asyncio.to_thread(operator.wait_until_ready)
            server.requests.clear()
            server.create(training_job(SAMPLE))
            await _settled(server)
            writes = {
                f"{verb} {plural}": number
                for (verb, plural, _), number in sorted(server.requests.items())
                if verb in ("create", "patch", "delete", "update") and plural != "leases"
            }
            children = [_bare(o) for p in ("services", "configmaps", "pods") for o in server.objects(p)]
            return {
                "children": children,
                "status": server.get("trainingjobs", SAMPLE)["status"],
                "writes": writes,
            }


async def _settled(server: ApiServer) -> None:
    """Until the pod is there and nobody has written for a while."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < _SETTLED_S:
        now = sum(n for (verb, plural, _), n in server.requests.items() if verb != "get" and plural != "leases")
        if now != before or not server.objects("pods"):
            before, since = now, time.monotonic()
        await asyncio.sleep(0.05)


def _bare(obj: Object) -> Object:
    """As it was sent: without what the server adds."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _FROM_SERVER}
    spec = dict(obj.get("spec") or {})
    for field in ("clusterIPs", "nodeName"):
        spec.pop(field, None)
    body = {key: value for key, value in obj.items() if key not in ("metadata", "status", "spec")}
    return {**body, "metadata": metadata} | ({"spec": spec} if spec else {})


def save_recipe(root: Path, recipe: Object) -> Path:
    path = root / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path
