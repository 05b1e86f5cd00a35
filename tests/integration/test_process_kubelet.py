"""Pods of the test API server run as processes of this machine, and end as Pods end."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.client import Client, connect, path_of
from tests.fakes.kubernetes.controllers import running_controllers
from tests.fakes.kubernetes.images import Image
from tests.fakes.kubernetes.kubelet import ProcessKubelet
from tests.fakes.kubernetes.nodes import NodeShape

Object = dict[str, Any]
IMAGES = {
    "python:3": Image(path=(Path(sys.executable).parent,), prefix=(sys.executable,)),
    "bare:1": Image(),
}

SERVE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = os.path.exists(sys.argv[2]) or self.path != "/ready"
        self.send_response(200 if ok else 503)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
print("up", flush=True)
time.sleep(60)
"""
TALK = """
import os, socket, sys
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if os.environ["RANK"] == "0":
    with socket.create_server(address) as server:
        connection, _ = server.accept()
        print("heard", connection.recv(10).decode())
else:
    import time
    for _ in range(200):
        try:
            socket.create_connection(address).sendall(b"hello")
            break
        except OSError:
            time.sleep(0.05)
    else:
        sys.exit(1)
"""


def container(code: str, name: str = "main", **rest: Any) -> Object:
    return {"name": name, "image": "python:3", "command": ["-c", code], **rest}


def pod(
    name: str, *containers: Object, policy: str = "Never", labels: dict[str, str] | None = None, **spec: Any
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"restartPolicy": policy, "containers": list(containers), **spec},
    }


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def kubelet(server: ApiServer, tmp_path: Path) -> AsyncIterator[ProcessKubelet]:
    shapes = (NodeShape(name="a", pods=4, resources={"nvidia.com/gpu": 2}), NodeShape(name="b", pods=4))
    config = server.kubeconfig(tmp_path / "kubeconfig")
    async with ProcessKubelet(config, IMAGES, nodes=shapes, time_scale=0.02) as kubelet:
        yield kubelet


async def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := holds()):
            await asyncio.sleep(0.02)
        return value


def status_of(server: ApiServer, name: str) -> Object:
    found = server.find("pods", name)
    return (found or {}).get("status") or {}


async def phase(server: ApiServer, name: str, wanted: str) -> Object:
    await until(lambda: status_of(server, name).get("phase") == wanted)
    return status_of(server, name)


def terminated(status: Object) -> Object:
    found: Object = status["containerStatuses"][0]["state"]["terminated"]
    return found


async def test_a_pod_runs_to_success_with_its_environment(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"FROM_MAP": "map"}})
    server.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "secret"}})
    environment = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "BOTH", "value": "$(NAME)-$(FROM_MAP)-$$(NAME)"},
    ]
    code = "import os; print(*(os.environ[n] for n in ('NAME', 'IP', 'SECRET', 'BOTH', 'HOSTNAME')))"
    server.create(pod("one", container(code, env=environment, envFrom=[{"configMapRef": {"name": "c"}}])))
    status = await phase(server, "one", "Succeeded")
    assert kubelet.log("one").split() == ["one", "127.0.0.1", "secret", "one-map-$(NAME)", "one"]
    assert terminated(status)["exitCode"] == 0
    assert status["podIP"] == "127.0.0.1"


async def test_an_exit_code_and_the_logs_tail_are_told(server: ApiServer, kubelet: ProcessKubelet) -> None:
    code = "import sys; print('bad input'); sys.exit(2)"
    server.create(pod("one", container(code, terminationMessagePolicy="FallbackToLogsOnError")))
    told = terminated(await phase(server, "one", "Failed"))
    assert (told["exitCode"], told["reason"], told["message"].strip()) == (2, "Error", "bad input")


async def test_a_message_file_comes_before_the_log(server: ApiServer, kubelet: ProcessKubelet) -> None:
    code = "import sys; open(sys.argv[1], 'w').write('the reason'); sys.exit(1)"
    server.create(pod("one", container(code, args=["/dev/termination-log"])))
    assert terminated(await phase(server, "one", "Failed"))["message"] == "the reason"


async def test_a_killed_process_is_told_by_its_signal(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create(pod("one", container("import time; print('up', flush=True); time.sleep(60)")))
    await until(lambda: "one" in [p["metadata"]["name"] for p in server.objects("pods")] and ready(server, "one"))
    kubelet.kill("one", signal.SIGKILL)
    told = terminated(await phase(server, "one", "Failed"))
    assert (told["exitCode"], told["signal"]) == (137, 9)


def ready(server: ApiServer, name: str) -> bool:
    conditions = status_of(server, name).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def test_memory_and_eviction_have_their_reasons(server: ApiServer, kubelet: ProcessKubelet) -> None:
    for name in ("fat", "evicted"):
        server.create(pod(name, container("import time; time.sleep(60)")))
        await until(partial(ready, server, name))
    kubelet.kill_for_memory("fat")
    assert terminated(await phase(server, "fat", "Failed"))["reason"] == "OOMKilled"
    await kubelet.evict("evicted")
    assert (await phase(server, "evicted", "Failed"))["reason"] == "Evicted"


async def test_init_containers_run_first_and_share_volumes(server: ApiServer, kubelet: ProcessKubelet) -> None:
    mounts: Object = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    write = container(
        "import sys; open(sys.argv[1], 'w').write('weights')", name="fetch", args=["/data/model"], **mounts
    )
    read = "import os, sys; print(open(os.environ['MODEL']).read(), sys.argv[1])"
    main = container(
        read, args=["--store=file:///data/model"], env=[{"name": "MODEL", "value": "/data/model"}], **mounts
    )
    server.create(pod("one", main, initContainers=[write], volumes=[{"name": "data", "emptyDir": {}}]))
    await phase(server, "one", "Succeeded")
    text, option = kubelet.log("one").split()
    assert text == "weights"
    assert option.startswith("--store=file:///tmp/")


async def test_a_failed_init_container_fails_the_pod(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create(pod("one", container("print('never')"), initContainers=[container("raise SystemExit(3)", "fetch")]))
    status = await phase(server, "one", "Failed")
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert kubelet.log("one") == ""


async def test_a_container_restarts_by_policy(server: ApiServer, kubelet: ProcessKubelet) -> None:
    code = "import os, sys; n = len(os.listdir(sys.argv[1])); open(f'{sys.argv[1]}/{n}', 'w'); sys.exit(n < 2)"
    mounts = [{"name": "data", "mountPath": "/data"}]
    volumes = [{"name": "data", "emptyDir": {}}]
    server.create(pod("one", container(code, args=["/data"], volumeMounts=mounts), policy="OnFailure", volumes=volumes))
    status = await phase(server, "one", "Succeeded")
    assert status["containerStatuses"][0]["restartCount"] == 2


async def test_deletion_gives_a_grace_and_then_removes_the_pod(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create(pod("one", container(POLITE)))
    await until(lambda: kubelet_log(kubelet, "one"))
    server.delete("pods", "one")
    await until(lambda: server.find("pods", "one") is None)
    assert kubelet.log("one") == "up\nbye\n"


async def test_a_deaf_process_is_killed_after_its_grace(server: ApiServer, kubelet: ProcessKubelet) -> None:
    code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    server.create(pod("one", container(code), terminationGracePeriodSeconds=1))
    process = int(await until(lambda: kubelet_log(kubelet, "one").strip()))
    server.delete("pods", "one")
    await until(lambda: server.find("pods", "one") is None)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def kubelet_log(kubelet: ProcessKubelet, name: str) -> str:
    try:
        return kubelet.log(name)
    except LookupError:
        return ""


async def test_a_pre_stop_hook_runs_before_the_signal(
    server: ApiServer, kubelet: ProcessKubelet, tmp_path: Path
) -> None:
    mark = tmp_path / "stopped"
    hook = {"preStop": {"exec": {"command": [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]}}}
    server.create(pod("one", container("import time; time.sleep(60)", lifecycle=hook)))
    await until(lambda: ready(server, "one"))
    server.delete("pods", "one")
    await until(lambda: server.find("pods", "one") is None)
    assert mark.exists()


async def test_readiness_follows_the_probe_and_feeds_the_endpoints(
    server: ApiServer, kubelet: ProcessKubelet, tmp_path: Path
) -> None:
    gate = tmp_path / "ready"
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    server.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    probes: Object = {
        "startupProbe": {"httpGet": {"path": "/live", "port": "http"}, "failureThreshold": 100},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "failureThreshold": 1},
    }
    ports: Object = {"ports": [{"name": "http", "containerPort": 8000}]}
    for name in ("one", "two"):
        main = container(SERVE, args=["8000", str(gate)], **probes, **ports)
        server.create(pod(name, main, policy="Always", labels={"app": "web"}))
    await until(lambda: started(server, "one") and started(server, "two"))
    assert kubelet.endpoints("web") == []
    gate.touch()
    await until(lambda: len(kubelet.endpoints("web")) == 2)
    assert {await asyncio.to_thread(fetch, *address) for address in kubelet.endpoints("web")} == {"one", "two"}
    gate.unlink()
    await until(lambda: kubelet.endpoints("web") == [])


def started(server: ApiServer, name: str) -> bool:
    statuses = status_of(server, name).get("containerStatuses") or []
    return any(each["started"] for each in statuses)


def fetch(host: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as response:
        text: str = response.read().decode()
        return text


async def test_two_jobs_with_one_port_do_not_meet(server: ApiServer, kubelet: ProcessKubelet) -> None:
    for job in ("red", "blue"):
        spec = {"clusterIP": "None", "selector": {"job": job}}
        server.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": job}, "spec": spec})
        for rank in (0, 1):
            variables = {"MASTER_ADDR": f"{job}-w0.{job}.default.svc", "MASTER_PORT": "29500", "RANK": str(rank)}
            environment = [{"name": name, "value": value} for name, value in variables.items()]
            main = container(TALK, env=environment, ports=[{"containerPort": 29500}])
            name = f"{job}-w{rank}"
            server.create(pod(name, main, hostname=name, subdomain=job, labels={"job": job}))
    for job in ("red", "blue"):
        await phase(server, f"{job}-w0", "Succeeded")
        assert kubelet.log(f"{job}-w0") == "heard hello\n"


async def test_an_unknown_image_waits_until_it_can_be_pulled(server: ApiServer, kubelet: ProcessKubelet) -> None:
    kubelet.fail_image("python:3")
    server.create(pod("one", container("print('up')")))
    waiting = ["ErrImagePull", "ImagePullBackOff"]
    await until(lambda: waiting_reason(server, "one") in waiting)
    assert status_of(server, "one")["phase"] == "Pending"
    kubelet.mend_image("python:3")
    await phase(server, "one", "Succeeded")


def waiting_reason(server: ApiServer, name: str) -> str:
    statuses = status_of(server, name).get("containerStatuses") or [{}]
    return str(((statuses[0].get("state") or {}).get("waiting") or {}).get("reason", ""))


async def test_a_missing_config_map_holds_the_start(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create(pod("one", container("print('up')", envFrom=[{"configMapRef": {"name": "late"}}])))
    await until(lambda: waiting_reason(server, "one") == "CreateContainerConfigError")
    server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {}})
    await phase(server, "one", "Succeeded")


async def test_a_missing_program_is_a_start_error(server: ApiServer, kubelet: ProcessKubelet) -> None:
    server.create(pod("one", {"name": "main", "image": "bare:1", "command": ["no-such-program"]}))
    assert terminated(await phase(server, "one", "Failed"))["reason"] == "StartError"


async def test_pods_beyond_the_capacity_wait_and_say_so(server: ApiServer, kubelet: ProcessKubelet) -> None:
    limits: Object = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    for name in ("one", "two", "three"):
        server.create(pod(name, container("import time; time.sleep(60)", **limits)))
    await until(lambda: sum(ready(server, name) for name in ("one", "two", "three")) == 2)
    waiting = next(name for name in ("one", "two", "three") if not ready(server, name))
    scheduled = await until(lambda: unschedulable(server, waiting))
    assert "Insufficient nvidia.com/gpu" in scheduled["message"]
    server.delete("pods", "one" if waiting != "one" else "two", grace_s=0)
    await until(lambda: ready(server, waiting))


def unschedulable(server: ApiServer, name: str) -> Object | None:
    conditions = status_of(server, name).get("conditions") or []
    return next((each for each in conditions if each.get("reason") == "Unschedulable"), None)


async def test_a_cordoned_node_and_an_excluded_one_take_nothing(server: ApiServer, kubelet: ProcessKubelet) -> None:
    await kubelet.cordon("a")
    await until(lambda: server.get("nodes", "a")["spec"].get("unschedulable"))
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["b"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    server.create(pod("one", container("print()"), affinity={"nodeAffinity": required}))
    await until(lambda: unschedulable(server, "one"))
    await kubelet.cordon("a", on=False)
    await phase(server, "one", "Succeeded")
    assert server.get("pods", "one")["spec"]["nodeName"] == "a"


async def test_a_lost_node_takes_its_processes_and_tells_nothing(server: ApiServer, kubelet: ProcessKubelet) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    server.create(pod("one", container(code), nodeSelector={"kubernetes.io/hostname": "b"}))
    process = int(await until(lambda: kubelet_log(kubelet, "one").strip()))
    await until(lambda: ready(server, "one"))
    await kubelet.lose_node("b")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert status_of(server, "one")["phase"] == "Running"
    conditions = server.get("nodes", "b")["status"]["conditions"]
    assert [each["status"] for each in conditions if each["type"] == "Ready"] == ["Unknown"]


async def test_a_claim_outlives_the_pods_that_mount_it(server: ApiServer, kubelet: ProcessKubelet) -> None:
    volumes = [{"name": "state", "persistentVolumeClaim": {"claimName": "checkpoints"}}]
    mounts = [{"name": "state", "mountPath": "/checkpoints", "subPath": "run"}]
    for name, code in (
        ("first", "import sys; open(sys.argv[1] + '/step', 'w').write('7')"),
        ("second", "import sys; print(open(sys.argv[1] + '/step').read())"),
    ):
        server.create(pod(name, container(code, args=["/checkpoints"], volumeMounts=mounts), volumes=volumes))
        await phase(server, name, "Succeeded")
        server.delete("pods", name)
    assert kubelet.log("second") == "7\n"


async def test_a_failing_liveness_probe_restarts_the_container(
    server: ApiServer, kubelet: ProcessKubelet, tmp_path: Path
) -> None:
    probe = {"exec": {"command": ["python3", "-c", f"import os; os.stat({str(tmp_path / 'dead')!r})"]}}
    main = container("import time; time.sleep(60)", livenessProbe={**probe, "failureThreshold": 1})
    server.create(pod("one", main, policy="Always"))
    await until(lambda: any(each["restartCount"] for each in status_of(server, "one").get("containerStatuses") or []))


def test_status_documents_are_json() -> None:
    from tests.fakes.kubernetes.containers import ContainerState
    from tests.fakes.kubernetes.pod_status import phase_of, status_of

    mains = [ContainerState("main", "python:3")]
    assert phase_of([], mains, over=False) == "Pending"
    assert json.loads(json.dumps(status_of([], mains, "Pending", [], "now")))["phase"] == "Pending"


def deployment(code: str, *, replicas: int, gate: Path) -> Object:
    main = container(
        code,
        args=["8000", str(gate)],
        ports=[{"name": "http", "containerPort": 8000}],
        readinessProbe={"httpGet": {"path": "/ready", "port": "http"}},
    )
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [main]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


@pytest.fixture
async def controllers(server: ApiServer, tmp_path: Path) -> AsyncIterator[None]:
    async with running_controllers(server.kubeconfig(tmp_path / "kubeconfig-controllers")):
        yield


@pytest.mark.usefixtures("controllers")
async def test_a_deployment_rolls_without_an_unready_moment(
    server: ApiServer, kubelet: ProcessKubelet, tmp_path: Path
) -> None:
    gate = tmp_path / "ready"
    gate.touch()
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    server.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    server.create(deployment(SERVE, replicas=2, gate=gate))
    await until(lambda: settled(server, 2))
    first = {each["metadata"]["name"] for each in server.objects("pods")}
    fewest = 2

    async def watch_endpoints() -> None:
        nonlocal fewest
        while True:
            fewest = min(fewest, len(kubelet.endpoints("web")))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch_endpoints())
    changed = deployment(SERVE + "\n# a new version", replicas=2, gate=gate)
    server.patch("deployments", "web", {"spec": changed["spec"]})
    await until(
        lambda: settled(server, 2) and not first & {each["metadata"]["name"] for each in server.objects("pods")}
    )
    watching.cancel()
    assert fewest == 2
    server.patch("deployments", "web", {"spec": {"replicas": 0}})
    await until(lambda: server.objects("pods") == [])


def settled(server: ApiServer, replicas: int) -> bool:
    web = server.get("deployments", "web")
    status, generation = web.get("status") or {}, web["metadata"]["generation"]
    counts = [status.get(name) for name in ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas")]
    return counts == [generation, replicas, replicas, replicas]


@pytest.mark.usefixtures("controllers", "kubelet")
async def test_a_job_runs_to_completion_and_its_pods_go_with_it(server: ApiServer) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [container("print('done')")]}}
    spec = {"completions": 2, "parallelism": 1, "template": template}
    server.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": spec})
    await until(lambda: [each["type"] for each in conditions_of(server, "jobs", "one")] == ["Complete"])
    assert len(server.objects("pods")) == 2
    server.delete("jobs", "one")
    await until(lambda: server.objects("pods") == [])


@pytest.mark.usefixtures("controllers", "kubelet")
async def test_a_job_fails_after_its_back_off_limit(server: ApiServer) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [container("raise SystemExit(1)")]}}
    spec = {"backoffLimit": 1, "template": template}
    server.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": spec})
    await until(lambda: [each["type"] for each in conditions_of(server, "jobs", "one")] == ["Failed"])
    assert len(server.objects("pods")) == 2


def conditions_of(server: ApiServer, plural: str, name: str) -> list[Object]:
    found: list[Object] = (server.get(plural, name).get("status") or {}).get("conditions") or []
    return found


@pytest.mark.cluster
async def test_a_real_control_planes_pods_run_and_leave() -> None:
    if not (real := os.environ.get("KUBECONFIG_REAL")):
        pytest.skip("KUBECONFIG_REAL names no control plane")
    async with connect(Path(real)) as client, ProcessKubelet(Path(real), IMAGES, time_scale=0.02) as kubelet:
        pods = path_of("v1", "pods", "default")
        for name, code in (("real-one", POLITE), ("real-two", "raise SystemExit(4)")):
            await client.request("POST", pods, pod(name, container(code)))
        failed = await real_pod(client, f"{pods}/real-two", "Failed")
        assert terminated(failed["status"])["exitCode"] == 4
        await real_pod(client, f"{pods}/real-one", "Running")
        await until(lambda: kubelet_log(kubelet, "real-one"))
        for name in ("real-one", "real-two"):
            await client.request("DELETE", f"{pods}/{name}")
        async with asyncio.timeout(30):
            while await client.find(f"{pods}/real-one") is not None:
                await asyncio.sleep(0.05)
        assert kubelet.log("real-one") == "up\nbye\n"
        await client.request("DELETE", path_of("v1", "nodes", name="local"))


async def real_pod(client: Client, path: str, phase: str) -> Object:
    async with asyncio.timeout(30):
        while True:
            found = await client.request("GET", path)
            if found["status"]["phase"] == phase:
                return found
            await asyncio.sleep(0.05)
