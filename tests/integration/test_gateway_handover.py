"""A gateway may be replaced, stopped or killed under traffic; users notice only what cannot be avoided."""

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serving.gateway.handover import inherit_or_bind
from tests.fakes import faulty_llm as llm
from tests.fakes.faulty_backend import FaultyBackend, answer_class
from tests.fakes.gateways import GatewayClient, GatewayProcess, backend, infer_body, route, wait_for
from tests.fakes.ports import free_port


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path / "a-state-root-whose-path-is-longer-than-a-socket-address" / ("x" * 60))
    try:
        yield process
    finally:
        process.end()


@pytest.fixture
def model() -> Iterator[FaultyBackend]:
    with FaultyBackend(answer_class(3)) as backend:
        yield backend


def set_route(gateway: GatewayProcess, url: str) -> None:
    with GatewayClient(gateway) as client:
        client.put(route(backend("rel-1@us-east", url, weight=100))).raise_for_status()


def socket_of(gateway: GatewayProcess) -> int:
    """Which gateway a successor would talk to: the inode of its socket, 0 while there is none."""
    try:
        return (gateway.folder / "gateway.sock").stat().st_ino
    except FileNotFoundError:
        return 0


def ask(gateway: GatewayProcess) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v2/models/digits/infer", content=infer_body(), timeout=20, trust_env=False)


class Traffic:
    """Users that keep asking over keep-alive connections of their own; nothing is ever retried."""

    def __init__(self, port: int, *, users: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.reopened = 0
        self._threads = [threading.Thread(target=self._use) for _ in range(users)]

    def _use(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v2/models/digits/infer", body=infer_body())
                response = connection.getresponse()
                body = response.read()
                self.statuses.append(response.status)
                if response.status != 200:
                    self.failures.append(f"{response.status}: {body.decode()}")
                # `connection: close` was announced: the next request opens a new connection by itself.
                self.reopened += response.getheader("connection") == "close"
            except (OSError, http.client.HTTPException) as failed:
                self.failures.append(repr(failed))
                connection.close()
        connection.close()

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        target = len(self.statuses) + count
        wait_for(lambda: len(self.statuses) >= target, timeout_s=30)


def test_no_request_fails_while_gateways_replace_each_other(gateway: GatewayProcess, model: FaultyBackend) -> None:
    old = gateway.start()
    set_route(gateway, model.url)
    with Traffic(gateway.port, users=8) as traffic:
        traffic.wait_for_more(100)
        for _ in range(3):
            new = gateway.spawn()
            assert old.wait(timeout=30) == 0
            assert new.poll() is None
            traffic.wait_for_more(100)
            old = new
    assert traffic.failures == []
    assert set(traffic.statuses) == {200}
    assert traffic.reopened >= 8


def test_a_successor_serves_the_routes_and_starts_its_counters_at_0(
    gateway: GatewayProcess, model: FaultyBackend
) -> None:
    old = gateway.start()
    set_route(gateway, model.url)
    assert ask(gateway).status_code == 200
    with GatewayClient(gateway) as client:
        stats_url, headers = "/admin/v1/stats/digits", gateway.admin_headers
        before = client.http.get(stats_url, headers=headers).json()
    gateway.spawn()
    assert old.wait(timeout=30) == 0
    with GatewayClient(gateway) as client:
        after = client.http.get(stats_url, headers=headers).json()
        assert client.infer().status_code == 200
    assert after["boot_id"] != before["boot_id"]
    answered = [read["backends"]["rel-1@us-east"]["users"]["answered"] for read in (before, after)]
    assert answered == [1, 0]


def test_a_token_is_good_once_whichever_gateway_is_asked_and_after_a_restart(
    gateway: GatewayProcess, model: FaultyBackend
) -> None:
    old = gateway.start()
    set_route(gateway, model.url)
    tokens = [ask(gateway).headers["x-flightpath-feedback"] for _ in range(3)]

    def counted(token: str) -> bool:
        answer = httpx.post(f"{gateway.url}/v1/feedback", json={"token": token, "labels": [3]}, trust_env=False)
        found: bool = answer.raise_for_status().json()["counted"]
        return found

    assert counted(tokens[0])
    gateway.spawn()
    assert old.wait(timeout=30) == 0
    assert [counted(token) for token in tokens[:2]] == [False, True]
    gateway.processes[-1].kill()
    gateway.processes[-1].wait()
    gateway.start()
    assert [counted(token) for token in tokens] == [False, False, True]
    for name in ("feedback.key", "feedback.sqlite"):
        assert (gateway.folder / name).exists()
    assert (gateway.folder / "feedback.key").stat().st_mode & 0o777 == 0o600


def test_a_killed_gateway_comes_back_with_its_routes_and_no_agent(
    gateway: GatewayProcess, model: FaultyBackend
) -> None:
    old = gateway.start()
    set_route(gateway, model.url)
    old.kill()
    old.wait()
    assert (gateway.folder / "gateway.sock").exists()
    gateway.start()
    assert ask(gateway).status_code == 200


def test_sigterm_lets_a_running_request_finish_and_exits_0(gateway: GatewayProcess, model: FaultyBackend) -> None:
    process = gateway.start()
    set_route(gateway, model.url)
    entered, release = threading.Event(), threading.Event()

    def hold(handler: object) -> None:
        entered.set()
        assert release.wait(timeout=20)
        answer_class(3)(handler)  # type: ignore[arg-type]

    model.behave(hold)
    answers: list[httpx.Response] = []
    user = threading.Thread(target=lambda: answers.append(ask(gateway)))
    user.start()
    assert entered.wait(timeout=10)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not (gateway.folder / "gateway.sock").exists())
    release.set()
    user.join()
    assert answers[0].status_code == 200
    assert answers[0].headers["connection"] == "close"
    assert process.wait(timeout=30) == 0


async def test_a_successor_that_dies_half_way_changes_nothing(gateway: GatewayProcess, model: FaultyBackend) -> None:
    old = gateway.start()
    set_route(gateway, model.url)
    successor = await inherit_or_bind(gateway.folder, ("127.0.0.1", gateway.port))
    assert successor.from_pid == old.pid
    with GatewayClient(gateway) as client:
        changed = route(backend("rel-2@us-east", model.url, weight=100))
        refused = client.put(changed)
        assert (refused.status_code, refused.json()["error"]["retryable"]) == (503, True)
        assert successor.predecessor is not None
        successor.predecessor.close()
        successor.listener.close()
        wait_for(lambda: client.put(changed).status_code == 200)
        assert client.infer().headers["x-flightpath-release"] == "rel-2"
    assert old.poll() is None


def test_a_port_held_by_a_stranger_is_one_line_that_names_port_and_process(
    gateway: GatewayProcess, busy_port: int
) -> None:
    stranger = GatewayProcess(gateway.root, port=busy_port)
    process = stranger.spawn()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    holder = psutil.Process()
    assert line.startswith(f"error: port {busy_port} is taken, got {holder.name()} (pid {holder.pid})")


def test_an_unknown_region_is_one_line(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.gateways.REGION", "nowhere")
    process = gateway.spawn()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.decode().splitlines() == [
        "error: unknown region, got nowhere, expected us-east | eu-west | asia-pacific"
    ]


def test_unreadable_routes_are_set_aside_and_the_gateway_waits_for_its_agent(gateway: GatewayProcess) -> None:
    gateway.folder.mkdir(parents=True)
    (gateway.folder / "routes.json").write_text('{"schema_version": 1, "routes": [')
    process = gateway.spawn()

    def status(path: str) -> int:
        try:
            return httpx.get(f"{gateway.url}{path}", trust_env=False).status_code
        except httpx.ConnectError:
            assert process.poll() is None
            return 0

    wait_for(lambda: status("/healthz") == 200)
    assert status("/readyz") == 503
    assert (gateway.folder / "routes.unreadable.json").exists()
    set_route(gateway, f"http://127.0.0.1:{free_port()}")
    assert status("/readyz") == 200
    assert json.loads((gateway.folder / "routes.json").read_text())["routes"][0]["model"] == "digits"


def test_a_running_stream_stays_with_the_old_gateway_until_its_end(
    gateway: GatewayProcess, model: FaultyBackend
) -> None:
    old = gateway.start()
    gate = threading.Event()
    model.behave(llm.stream(llm.token("before"), llm.wait(gate), llm.token("after"), llm.finish(), llm.DONE))
    with GatewayClient(gateway) as client:
        client.put(route(backend("rel-1@us-east", model.url, weight=100), model="tiny", classes=[])).raise_for_status()
        with client.http.stream("POST", "/v1/chat/completions", json={"model": "tiny", "stream": True}) as response:
            reads = response.iter_raw()
            received, before = next(reads), socket_of(gateway)
            successor = gateway.spawn()
            wait_for(lambda: socket_of(gateway) != before, timeout_s=30)
            assert old.poll() is None
            gate.set()
            received += b"".join(reads)
    assert llm.texts_of(llm.data_of(received)) == ["before", "after"]
    assert llm.data_of(received)[-1] == b"[DONE]"
    assert old.wait(timeout=30) == 0
    assert successor.poll() is None
