"""A model server may fail in any way: users get an answer while any backend gives one."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.faulty_backend import (
    Behaviour,
    FaultyBackend,
    answer_body,
    answer_class,
    answer_status,
    answer_then_close_silently,
    break_off,
    hang_up,
)
from tests.fakes.gateways import GatewayClient, GatewayProcess, backend, infer_body, route, wait_for
from tests.fakes.models import end_process, start_model_server, wait_until_ready, write_bundle
from tests.fakes.ports import free_port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    try:
        process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[GatewayClient]:
    with GatewayClient(gateway) as client:
        yield client
        client.http.delete("/admin/v1/routes/digits", headers=gateway.admin_headers)


@pytest.fixture
def good() -> Iterator[FaultyBackend]:
    with FaultyBackend(answer_class(3)) as backend:
        yield backend


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer_status(500), id="500"),
        pytest.param(answer_status(503), id="503"),
        pytest.param(answer_body(b"not json"), id="broken-json"),
        pytest.param(answer_body(b'{"outputs": [1, 2'), id="cut-json"),
        pytest.param(answer_body(b"{}"), id="no-outputs"),
        pytest.param(break_off, id="broken-off"),
        pytest.param(hang_up, id="hung-up"),
    ],
)
def test_a_failed_attempt_is_charged_and_another_backend_answers(
    client: GatewayClient, good: FaultyBackend, fault: Behaviour
) -> None:
    with FaultyBackend(fault) as bad:
        client.put(route(backend("bad@us-east", bad.url, weight=100), backend("good@us-east", good.url, weight=0)))
        before = client.stats()
        responses = [client.infer() for _ in range(3)]
        after = client.stats()
    assert [response.status_code for response in responses] == [200] * 3
    assert {response.headers["x-flightpath-release"] for response in responses} == {"good"}
    charged = after["bad@us-east"]["errors"] - before.get("bad@us-east", {"errors": 0})["errors"]
    assert charged == 3
    assert sum(after["bad@us-east"]["latency"]["counts"]) == 0
    assert after["good@us-east"]["errors"] == 0


def test_a_connection_that_died_in_the_pool_is_no_error(client: GatewayClient) -> None:
    with FaultyBackend(answer_then_close_silently) as closing:
        client.put(route(backend("closing@us-east", closing.url, weight=100)))
        assert [client.infer().status_code for _ in range(10)] == [200] * 10
        assert client.stats()["closing@us-east"]["errors"] == 0


@pytest.mark.parametrize(
    ("fault", "status"), [(answer_status(500), 502), (answer_status(503), 503), (hang_up, 503), (break_off, 502)]
)
def test_when_all_fail_the_error_says_how(client: GatewayClient, fault: Behaviour, status: int) -> None:
    with FaultyBackend(fault) as bad:
        client.put(route(backend("bad@us-east", bad.url, weight=100)))
        response = client.infer()
    assert response.status_code == status
    assert response.json()["error"]["retryable"] is True
    assert "bad@us-east" in response.json()["error"]["got"]


def test_a_4xx_of_the_model_server_is_the_users(client: GatewayClient, good: FaultyBackend) -> None:
    with FaultyBackend(answer_status(422)) as strict:
        client.put(
            route(backend("strict@us-east", strict.url, weight=100), backend("good@us-east", good.url, weight=0))
        )
        assert client.infer().status_code == 422
        assert client.stats()["strict@us-east"]["errors"] == 0
        assert good.seen == []


def test_the_request_reaches_the_model_server_byte_for_byte(client: GatewayClient, good: FaultyBackend) -> None:
    client.put(route(backend("good@us-east", good.url, weight=100)))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.infer(
        headers={"x-request-id": "abc", "traceparent": trace, "authorization": "Bearer secret", "cookie": "a=b"}
    )
    headers, body = good.seen[-1]
    named = {name.lower(): value for name, value in headers.items()}
    assert body == infer_body()
    assert (named["x-request-id"], named["traceparent"]) == ("abc", trace)
    assert "x-flightpath-hop" not in named
    assert "authorization" not in named
    assert "cookie" not in named


def test_another_region_is_told_that_it_is_a_hop_and_named_in_the_answer(client: GatewayClient) -> None:
    said = {"x-flightpath-region": "eu-west", "x-flightpath-version": "9", "x-flightpath-release": "rel-9"}
    with FaultyBackend(answer_class(3), headers=said) as far:
        client.put(route(backend("rel-1@eu-west", far.url, weight=100, remote=True, region="eu-west")))
        response = client.infer()
        assert {name: response.headers[name] for name in said} == said
        assert {name.lower(): value for name, value in far.seen[-1][0].items()}["x-flightpath-hop"] == "1"


def test_a_hop_is_not_sent_on(client: GatewayClient, good: FaultyBackend) -> None:
    far = backend("far@eu-west", good.url, weight=100, remote=True, region="eu-west")
    client.put(route(far, reason="served in eu-west"))
    assert client.infer().status_code == 200
    assert client.infer(headers={"x-flightpath-hop": "1"}).status_code == 503
    assert len(good.seen) == 1


def test_another_region_that_lacks_the_model_is_passed_over(client: GatewayClient, good: FaultyBackend) -> None:
    with FaultyBackend(answer_status(404)) as far:
        client.put(
            route(
                backend("far@eu-west", far.url, weight=100, remote=True, region="eu-west"),
                backend("good@us-east", good.url, weight=0),
            )
        )
        assert client.infer().headers["x-flightpath-release"] == "good"


def test_a_model_server_killed_under_load_costs_no_user_an_answer(client: GatewayClient, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", tmp_path / "keys")
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        engines = [start_model_server(tmp_path / "bundle", port=port) for port in ports]
        for port, engine in zip(ports, engines, strict=True):
            stack.callback(end_process, engine)
            wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready", engine)
        client.put(
            route(*(backend(f"rel-{n}@us-east", f"http://127.0.0.1:{port}", weight=50) for n, port in enumerate(ports)))
        )
        statuses: list[int] = []
        half = threading.Event()

        def use(requests: int) -> None:
            with httpx.Client(base_url=str(client.http.base_url), timeout=20, trust_env=False) as user:
                for number in range(requests):
                    statuses.append(user.post("/v2/models/digits/infer", content=infer_body()).status_code)
                    if number == requests // 3:
                        half.set()

        users = [threading.Thread(target=use, args=(150,)) for _ in range(4)]
        for user in users:
            user.start()
        assert half.wait(timeout=30)
        engines[0].kill()
        for user in users:
            user.join()
    assert statuses == [200] * 600
    stats = client.stats()
    assert stats["rel-0@us-east"]["errors"] > 0
    assert stats["rel-1@us-east"]["errors"] == 0


def test_a_backend_that_keeps_failing_is_passed_over_and_comes_back_when_it_answers(
    client: GatewayClient, good: FaultyBackend
) -> None:
    with FaultyBackend(answer_status(500)) as flaky:
        client.put(route(backend("flaky@us-east", flaky.url, weight=50), backend("good@us-east", good.url, weight=50)))
        wait_for(lambda: client.infer().status_code == 200 and client.stats()["flaky@us-east"]["ejected"])
        stats = client.stats()["flaky@us-east"]
        assert stats["ejections"] >= 1
        assert stats["errors"] >= 3
        metrics = client.http.get("/metrics").text
        assert 'flightpath_gateway_backend_ejected{backend="flaky@us-east",model="digits"} 1.0' in metrics
        assert 'flightpath_gateway_ejections_total{backend="flaky@us-east",model="digits"}' in metrics
        flaky.behave(answer_class(3))
        wait_for(lambda: client.infer().headers["x-flightpath-release"] == "flaky")
        assert client.stats()["flaky@us-east"]["ejected"] is False


def test_the_only_backend_is_always_asked(client: GatewayClient) -> None:
    with FaultyBackend(answer_status(500)) as only:
        client.put(route(backend("only@us-east", only.url, weight=100)))
        assert [client.infer().status_code for _ in range(6)] == [502] * 6
        only.behave(answer_class(3))
        assert client.infer().status_code == 200
        assert client.stats()["only@us-east"]["ejected"] is False
