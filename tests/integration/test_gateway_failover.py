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
    table,
)
from tests.fakes.gateways import (
    GatewayClient,
    GatewayProcess,
    answers_timed,
    backend,
    endings,
    infer_body,
    route,
    wait_for,
)
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
    ("fault", "outcome"),
    [
        pytest.param(answer_status(500), "failed", id="500"),
        pytest.param(answer_status(503), "overloaded", id="503"),
        pytest.param(answer_status(429), "overloaded", id="429"),
        *(pytest.param(answer_status(s), "failed", id=str(s)) for s in (204, 302, 401, 403, 404, 408, 409, 415, 501)),
        pytest.param(answer_body(b"not json"), "failed", id="broken-json"),
        pytest.param(answer_body(b'{"outputs": [1, 2'), "failed", id="cut-json"),
        pytest.param(answer_body(b"{}"), "failed", id="no-outputs"),
        pytest.param(answer_body(b'{"outputs": []}'), "failed", id="empty-outputs"),
        pytest.param(answer_body(b"[]"), "failed", id="list"),
        pytest.param(answer_body(table(b"[NaN,1]", b"[1,2]")), "failed", id="nan"),
        pytest.param(answer_body(table(b"[1,-Infinity]", b"[1,2]")), "failed", id="infinity"),
        pytest.param(answer_body(table(b"[1e999,1]", b"[1,2]")), "failed", id="beyond-every-float"),
        pytest.param(answer_body(table(b"[1,2]", b"[1,3]")), "failed", id="shape-lies"),
        pytest.param(answer_body(table(b"[" + b"1," * 200_000 + b"NaN]", b"[1,200001]")), "failed", id="large-nan"),
        pytest.param(answer_body(table(b"[1,2]", b"[1,2]"), content_type="text/html"), "failed", id="html"),
        pytest.param(break_off, "failed", id="broken-off"),
        pytest.param(hang_up, "failed", id="hung-up"),
    ],
)
def test_a_failed_attempt_is_charged_and_another_backend_answers(
    client: GatewayClient, good: FaultyBackend, fault: Behaviour, outcome: str
) -> None:
    with FaultyBackend(fault) as bad:
        client.put(route(backend("bad@us-east", bad.url, weight=100), backend("good@us-east", good.url, weight=0)))
        responses = [client.infer() for _ in range(3)]
        after = client.stats()
    assert [response.status_code for response in responses] == [200] * 3
    assert {response.headers["x-flightpath-release"] for response in responses} == {"good"}
    assert endings(after["bad@us-east"]) == {outcome: 3}
    assert answers_timed(after["bad@us-east"]) == 0
    assert endings(after["good@us-east"]) == {"answered": 3}


def test_a_connection_that_died_in_the_pool_is_no_error(client: GatewayClient) -> None:
    with FaultyBackend(answer_then_close_silently) as closing:
        client.put(route(backend("closing@us-east", closing.url, weight=100)))
        assert [client.infer().status_code for _ in range(10)] == [200] * 10
        assert endings(client.stats()["closing@us-east"]) == {"answered": 10}


def test_a_request_that_ends_a_new_connection_is_not_sent_to_that_server_again(client: GatewayClient) -> None:
    with FaultyBackend(hang_up) as dying:
        client.put(route(backend("dying@us-east", dying.url, weight=100)))
        assert client.infer().status_code == 503
        assert len(dying.seen) == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [(answer_status(500), 502), (answer_status(503), 503), (answer_status(429), 429), (hang_up, 503), (break_off, 502)],
)
def test_when_all_fail_the_error_says_how(client: GatewayClient, fault: Behaviour, status: int) -> None:
    with FaultyBackend(fault) as bad:
        client.put(route(backend("bad@us-east", bad.url, weight=100)))
        response = client.infer()
    assert response.status_code == status
    assert response.json()["error"]["retryable"] is True
    assert "bad@us-east" in response.json()["error"]["got"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_the_model_server_is_the_users(client: GatewayClient, good: FaultyBackend, status: int) -> None:
    with FaultyBackend(answer_status(status)) as strict:
        client.put(
            route(backend("strict@us-east", strict.url, weight=100), backend("good@us-east", good.url, weight=0))
        )
        assert [client.infer().status_code for _ in range(4)] == [status] * 4
        counters = client.stats()["strict@us-east"]
        assert (endings(counters), counters["ejected"]) == ({"refused": 4}, False)
        assert good.seen == []


def test_a_refusal_that_is_no_json_reaches_the_user_as_json(client: GatewayClient) -> None:
    with FaultyBackend(answer_body(b"<html>too large</html>", status=413)) as strict:
        client.put(route(backend("strict@us-east", strict.url, weight=100)))
        response = client.infer()
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_the_request_reaches_the_model_server_byte_for_byte(client: GatewayClient, good: FaultyBackend) -> None:
    client.put(route(backend("good@us-east", good.url, weight=100)))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.infer(
        headers={
            **{"x-request-id": "abc", "traceparent": trace, "tracestate": "vendor=1"},
            **{"authorization": "Bearer secret", "cookie": "a=b", "x-flightpath-anything": "1"},
            "x-flightpath-synthetic": "1",
        }
    )
    headers, body = good.seen[-1]
    named = {name.lower(): value for name, value in headers.items()}
    assert body == infer_body()
    assert (named["x-request-id"], named["traceparent"], named["tracestate"]) == ("abc", trace, "vendor=1")
    assert not [name for name in named if name.startswith("x-flightpath-")]
    assert "authorization" not in named
    assert "cookie" not in named


def test_another_region_is_told_that_it_is_a_hop_and_named_in_the_answer(
    client: GatewayClient, gateway: GatewayProcess
) -> None:
    said = {"x-flightpath-region": "eu-west", "x-flightpath-version": "9", "x-flightpath-release": "rel-9"}
    with FaultyBackend(answer_class(3), headers=said) as far:
        client.put(route(backend("rel-1@eu-west", far.url, weight=100, remote=True, region="eu-west")))
        response = client.infer()
        assert {name: response.headers[name] for name in said} == said
        told = {name.lower(): value for name, value in far.seen[-1][0].items()}
        assert (told["x-flightpath-hop"], told["via"]) == ("1", "1.1 flightpath-us-east")
        assert told["x-flightpath-credential"] == gateway.peer_headers["x-flightpath-credential"]


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("x-flightpath-region", b"\xff\xfe"),
        ("x-flightpath-region", b""),
        ("x-flightpath-version", b"9" * 5000),
        ("x-flightpath-version", b"-1"),
        ("x-flightpath-version", "\u0663".encode()),
        ("x-flightpath-release", b"a\tb"),
        ("x-flightpath-release", b"x" * 400),
    ],
)
def test_what_another_region_says_of_itself_is_told_on_only_if_it_holds(
    client: GatewayClient, name: str, lie: bytes
) -> None:
    with FaultyBackend(answer_class(3), headers={name: lie.decode("latin-1")}) as far:
        client.put(route(backend("rel-1@eu-west", far.url, weight=100, remote=True, region="eu-west", version=4)))
        response = client.infer()
    assert response.status_code == 200
    named = {key: response.headers[f"x-flightpath-{key}"] for key in ("region", "version", "release")}
    assert named == {"region": "eu-west", "version": "4", "release": "rel-1"}


def test_a_hop_is_not_sent_on_if_a_peer_says_so(
    client: GatewayClient, gateway: GatewayProcess, good: FaultyBackend
) -> None:
    far = backend("far@eu-west", good.url, weight=100, remote=True, region="eu-west")
    client.put(route(far, reason="served in eu-west"))
    assert client.infer().status_code == 200
    for lie in ({}, {"x-flightpath-credential": ""}, {"x-flightpath-credential": "0" * 64}):
        assert client.infer(headers={"x-flightpath-hop": "1", **lie}).status_code == 200
    assert client.infer(headers={"x-flightpath-hop": "1", **gateway.peer_headers}).status_code == 503
    assert len(good.seen) == 4


def test_a_request_that_was_here_before_is_not_sent_on_whoever_brings_it_back(
    client: GatewayClient, good: FaultyBackend
) -> None:
    far = backend("far@eu-west", good.url, weight=100, remote=True, region="eu-west")
    client.put(route(far, reason="served in eu-west"))
    assert client.infer(headers={"via": "1.1 proxy, 1.1 flightpath-us-east, 1.1 flightpath-eu-west"}).status_code == 503
    assert client.infer(headers={"via": "1.1 flightpath-us-east-2"}).status_code == 200
    told = {name.lower(): value for name, value in good.seen[-1][0].items()}
    assert told["via"] == "1.1 flightpath-us-east-2, 1.1 flightpath-us-east"


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
    assert endings(stats["rel-0@us-east"])["failed"] > 0
    assert endings(stats["rel-1@us-east"])["answered"] + endings(stats["rel-0@us-east"])["answered"] == 600


def test_a_backend_that_keeps_failing_is_passed_over_and_comes_back_when_it_answers(
    client: GatewayClient, good: FaultyBackend
) -> None:
    with FaultyBackend(answer_status(500)) as flaky:
        client.put(route(backend("flaky@us-east", flaky.url, weight=50), backend("good@us-east", good.url, weight=50)))
        wait_for(lambda: client.infer().status_code == 200 and client.stats()["flaky@us-east"]["ejected"])
        stats = client.stats()["flaky@us-east"]
        assert stats["ejections"] >= 1
        assert endings(stats)["failed"] >= 3
        metrics = client.http.get("/metrics").text
        assert 'flightpath_gateway_attempts_total{backend="flaky@us-east",model="digits",outcome="failed"}' in metrics
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
