"""kubectl works on the test API server as it works on any: apply, print, explain, scale, wait, delete."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.widgets import WIDGET, pod, widget

Object = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


class Kubectl:
    """Runs kubectl with a home of its own."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "HOME": str(home)}

    async def run(self, *words: str, stdin: Object | None = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *words,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(json.dumps(stdin or {}).encode()), 60)
        return process.returncode or 0, out.decode(), error.decode()

    async def __call__(self, *words: str, stdin: Object | None = None) -> str:
        """The output of a command that succeeds."""
        code, out, error = await self.run(*words, stdin=stdin)
        assert code == 0, error
        return out


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
def kubectl(server: ApiServer, tmp_path: Path) -> Kubectl:
    return Kubectl(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path)


async def test_apply_creates_changes_and_leaves_alone(server: ApiServer, kubectl: Kubectl) -> None:
    apply = ("apply", "-f", "-")
    assert "created" in await kubectl(*apply, stdin=WIDGET)
    assert "condition met" in await kubectl("wait", "--for=condition=Established", "crd/widgets.example.dev")
    assert "created" in await kubectl(*apply, stdin=widget("one", labels={"a": "x", "b": "y"}))
    assert "unchanged" in await kubectl(*apply, stdin=widget("one", labels={"a": "x", "b": "y"}))
    assert "configured" in await kubectl(*apply, stdin=widget("one", labels={"a": "z"}))
    assert server.get("widgets", "one")["spec"]["labels"] == {"a": "z"}


async def test_apply_merges_the_lists_of_built_in_kinds_by_key(server: ApiServer, kubectl: Kubectl) -> None:
    def deployment(*names: str) -> Object:
        environment = [{"name": name, "value": "1"} for name in names]
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "x:1", "env": environment}]},
        }
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}, "spec": spec}

    await kubectl("apply", "-f", "-", stdin=deployment("A", "B"))
    await kubectl("set", "env", "deployment/one", "OTHER=2")
    await kubectl("apply", "-f", "-", stdin=deployment("B", "C"))
    container = server.get("deployments", "one")["spec"]["template"]["spec"]["containers"][0]
    assert {each["name"] for each in container["env"]} == {"B", "C", "OTHER"}


async def test_apply_on_the_server_owns_fields(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    apply = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in await kubectl(*apply, stdin=widget("one"))
    await kubectl(*apply, "--field-manager=rival", "--force-conflicts", stdin=widget("one", size=4))
    code, _, error = await kubectl.run(*apply, stdin=widget("one"))
    assert (code, "conflict" in error) == (1, True)
    assert server.get("widgets", "one")["spec"]["size"] == 4


async def test_a_bad_spec_is_told_to_the_user(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    code, _, error = await kubectl.run("apply", "-f", "-", stdin=widget("one", size=0))
    assert code == 1
    assert "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1" in error
    code, _, error = await kubectl.run("apply", "-f", "-", stdin=widget("one", shape="round"))
    assert (code, 'unknown field "spec.shape"' in error) == (1, True)


async def test_get_prints_the_columns_of_the_definition(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    server.create(widget("one", size=3))
    ready = [{"type": "Ready", "status": "True"}]
    server.patch("widgets", "one", {"status": {"phase": "Up", "conditions": ready}}, status=True)
    head, row = (await kubectl("get", "wd")).splitlines()
    assert head.split() == ["NAME", "PHASE", "READY", "SIZE"]
    assert row.split() == ["one", "Up", "True", "3"]
    assert (await kubectl("get", "widgets.example.dev", "-o", "wide")).splitlines()[1].split()[-1] == "red"


async def test_get_prints_pods_services_and_selections(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(pod("one", labels={"app": "a"}))
    server.create(pod("two"))
    printed = await kubectl("get", "pods", "-l", "app=a", "-o", "wide")
    assert printed.splitlines()[1].split()[:3] == ["one", "0/1", "Pending"]
    assert len(printed.splitlines()) == 2
    names = await kubectl("get", "pods", "-A", "--sort-by=.metadata.name", "-o", "name", "--chunk-size=1")
    assert names.split() == ["pod/one", "pod/two"]
    assert json.loads(await kubectl("get", "pod", "one", "-o", "json"))["spec"]["containers"][0]["name"] == "main"


async def test_explain_tells_the_fields_of_custom_and_built_in_kinds(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    told = await kubectl("explain", "widget.spec")
    assert "What is wanted." in told
    assert "size\t<integer> -required-" in told
    assert "nodeSelector" in await kubectl("explain", "pod.spec")


async def test_scale_and_wait_go_by_the_scale_and_the_status(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    server.create(widget("one"))
    assert "scaled" in await kubectl("scale", "widget/one", "--replicas=4")
    assert server.get("widgets", "one")["spec"]["size"] == 4
    waiting = asyncio.create_task(kubectl("wait", "widget/one", "--for=jsonpath={.status.phase}=Up", "--timeout=20s"))
    async with asyncio.timeout(20):
        while not server.watches.count("widgets"):
            await asyncio.sleep(0.02)
    server.patch("widgets", "one", {"status": {"phase": "Up"}}, status=True)
    assert "condition met" in await waiting


async def test_delete_waits_for_the_finalizer(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    held = widget("one")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    server.create(held)
    deleting = asyncio.create_task(kubectl("delete", "widget", "one", "--timeout=20s"))
    async with asyncio.timeout(20):
        while "deletionTimestamp" not in server.get("widgets", "one")["metadata"]:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert not deleting.done()
    server.patch("widgets", "one", {"metadata": {"finalizers": None}})
    assert "deleted" in await deleting


async def test_a_definition_takes_its_objects_along(server: ApiServer, kubectl: Kubectl) -> None:
    server.create(WIDGET)
    server.create(widget("one"))
    await kubectl("delete", "crd", "widgets.example.dev")
    with pytest.raises(LookupError):
        server.resource("widgets")
    assert (await kubectl.run("get", "widgets"))[0] == 1


async def test_describe_shows_the_events_of_an_object(server: ApiServer, kubectl: Kubectl) -> None:
    made = server.create(pod("one"))
    involved = {"kind": "Pod", "name": "one", "namespace": "default", "uid": made["metadata"]["uid"]}
    event = {"reason": "Odd", "message": "something odd happened", "type": "Warning", "involvedObject": involved}
    server.create({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "one.1"}, **event})
    assert "something odd happened" in await kubectl("describe", "pod", "one")


async def test_tokens_reach_a_server_with_a_certificate(tmp_path: Path) -> None:
    async with ApiServer(tokens={"good": "system:admin"}, tls=True) as server:
        good = Kubectl(server.kubeconfig(tmp_path / "good"), tmp_path)
        assert "default" in await good("get", "namespaces")
        bad = Kubectl(server.kubeconfig(tmp_path / "bad", token="bad"), tmp_path)
        code, _, error = await bad.run("get", "namespaces")
        assert (code, "Unauthorized" in error or "must be logged in" in error) == (1, True)
