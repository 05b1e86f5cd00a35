"""What users of a gateway see: answers, headers, labels, and one shape of error."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from serving.counters import ENDINGS
from tests.fakes.gateways import GatewayClient, GatewayProcess, backend, infer_body, mirror, route
from tests.fakes.models import (
    end_process,
    linear_weights,
    start_model_server,
    wait_until_ready,
    write_bundle,
)
from tests.fakes.ports import free_port


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real model server of the linear model."""
    root, port = tmp_path_factory.mktemp("engine"), free_port()
    write_bundle(root / "bundle", root / "keys")
    process = start_model_server(root / "bundle", port=port)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_process(process)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    try:
        process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def client(gateway: GatewayProcess, engine: str) -> Iterator[GatewayClient]:
    """A client of the gateway with the engine at 100 %."""
    with GatewayClient(gateway) as client:
        assert client.put(route(backend("rel-1@us-east", engine, weight=100, version=7))).status_code == 200
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"code", "message", "got", "expected", "retryable"}
    return error


def test_an_answer_is_the_models_own_and_says_who_gave_it(client: GatewayClient) -> None:
    response = client.infer(rows=2, headers={"x-request-id": "my-id"})
    assert response.status_code == 200
    inputs = np.array(json.loads(infer_body(2))["inputs"][0]["data"], dtype=np.float32).reshape(2, 64)
    weights, bias = linear_weights(0)
    output = response.json()["outputs"][0]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), inputs @ weights + bias, rtol=1e-4)
    assert response.json()["id"] == "user-id"
    assert response.headers["x-request-id"] == "my-id"
    assert response.headers["x-flightpath-region"] == "us-east"
    assert response.headers["x-flightpath-version"] == "7"
    assert response.headers["x-flightpath-release"] == "rel-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "<script>"])
def test_a_request_id_that_could_do_harm_is_replaced(client: GatewayClient, given: str) -> None:
    returned = client.infer(headers={"x-request-id": given}).headers["x-request-id"]
    assert returned != given
    assert len(returned) == 32


def test_predict_gives_labels_and_probabilities(client: GatewayClient) -> None:
    samples = np.array(json.loads(infer_body(3))["inputs"][0]["data"]).reshape(3, 64)
    response = client.http.post("/v1/predict", json={"model": "digits", "inputs": samples.tolist()})
    assert response.status_code == 200
    document = response.json()
    weights, bias = linear_weights(0)
    logits = samples @ weights + bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert [p["label"] for p in document["predictions"]] == [str(c) for c in logits.argmax(axis=1)]
    np.testing.assert_allclose([p["score"] for p in document["predictions"]], shares.max(axis=1), rtol=1e-3)
    assert document["request_id"] == response.headers["x-request-id"]
    assert (document["version"], document["release"], document["region"]) == (7, "rel-1", "us-east")


def test_feedback_is_counted_once_on_the_backend_that_answered(client: GatewayClient) -> None:
    before = client.stats()["rel-1@us-east"]
    samples = np.array(json.loads(infer_body(2))["inputs"][0]["data"]).reshape(2, 64).tolist()
    answer = client.http.post("/v1/predict", json={"model": "digits", "inputs": samples}).json()
    said = [p["label"] for p in answer["predictions"]]
    labels = [said[0], str((int(said[1]) + 1) % 10)]
    feedback = {"token": answer["feedback_token"], "labels": labels}
    first = client.http.post("/v1/feedback", json=feedback)
    assert (first.status_code, first.json()) == (202, {"model": "digits", "rows": 2, "counted": True})
    again = client.http.post("/v1/feedback", json=feedback)
    assert (again.status_code, again.json()["counted"]) == (202, False)
    after = client.stats()["rel-1@us-east"]
    # Two rows of one request are one sample, half of it right.
    assert after["labelled"] - before["labelled"] == 1
    assert after["correct"] - before["correct"] == 0.5


def test_feedback_without_a_token_of_ours_is_refused(client: GatewayClient) -> None:
    token = client.infer(headers={"x-request-id": "mine"}).headers["x-flightpath-feedback"]
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    cases = [
        ({"request_id": "mine", "labels": ["1"]}, 400, "invalid_input"),
        ({"token": token, "labels": "1"}, 400, "invalid_input"),
        ({"token": token, "labels": ["1", "2"]}, 400, "invalid_input"),
        ({"token": token, "labels": ["nothing"]}, 400, "invalid_input"),
        ({"token": "mine", "labels": ["1"]}, 400, "invalid_input"),
        ({"token": "\u00e9" * 100, "labels": ["1"]}, 400, "invalid_input"),
        ({"token": forged, "labels": ["1"]}, 401, "unauthorized"),
    ]
    for document, status, code in cases:
        response = client.http.post("/v1/feedback", json=document)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert "token" in client.http.post("/v1/feedback", json={"request_id": "mine", "labels": ["1"]}).text
    # None of them used it up.
    assert client.http.post("/v1/feedback", json={"token": token, "labels": ["1"]}).json()["counted"] is True


def test_what_a_gateway_or_an_agent_asks_gets_no_token(client: GatewayClient, gateway: GatewayProcess) -> None:
    for mark in ("hop", "synthetic"):
        told = {f"x-flightpath-{mark}": "1", **gateway.peer_headers}
        assert "x-flightpath-feedback" not in client.infer(headers=told).headers


def test_an_answer_of_very_many_rows_has_no_token(client: GatewayClient) -> None:
    assert "x-flightpath-feedback" in client.infer(rows=1000).headers
    response = client.infer(rows=1024)
    assert response.status_code == 200
    assert len(response.headers["x-flightpath-feedback"]) < 2048


def test_an_unknown_model_is_404(client: GatewayClient) -> None:
    for response in (
        client.http.post("/v2/models/nothing/infer", content=infer_body()),
        client.http.post("/v1/predict", json={"model": "nothing", "inputs": [[1]]}),
        client.http.get("/v2/models/nothing/ready"),
    ):
        assert response.status_code == 404
        assert error_of(response)["expected"] == "digits"


def test_a_model_with_nothing_to_serve_it_is_503_with_the_reason(client: GatewayClient, engine: str) -> None:
    client.put(route(backend("rel-1@us-east", engine, weight=0), reason="rel-1 was rolled back: errors"))
    for response in (
        client.infer(),
        client.http.post("/v1/predict", json={"model": "digits", "inputs": [[1]]}),
        client.http.get("/v2/models/digits/ready"),
    ):
        assert response.status_code == 503
        assert error_of(response)["retryable"] is True
        assert "rel-1 was rolled back: errors" in response.json()["error"]["message"]
        assert response.headers["retry-after"] == "1"
    listed = client.http.get("/v1/models").json()["data"][0]
    assert (listed["status"], listed["reason"]) == ("unavailable", "rel-1 was rolled back: errors")


def test_a_users_mistake_is_the_model_servers_400_and_charges_nobody(client: GatewayClient) -> None:
    before = client.stats()["rel-1@us-east"]
    response = client.http.post("/v2/models/digits/infer", content=b'{"inputs": []}')
    assert response.status_code == 400
    assert error_of(response)["expected"] == "['x']"
    after = client.stats()["rel-1@us-east"]
    assert after["users"]["refused"] == before["users"]["refused"] + 1
    assert after["users"]["failed"] == before["users"]["failed"]
    assert after["users"]["latencies"] == before["users"]["latencies"]


def test_an_input_that_makes_the_model_overflow_is_the_users(client: GatewayClient) -> None:
    before = client.stats()["rel-1@us-east"]
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [3e38] * 64}
    for _ in range(4):
        response = client.http.post("/v2/models/digits/infer", json={"inputs": [tensor]})
        assert (response.status_code, error_of(response)["code"]) == (422, "unprocessable")
        assert error_of(response)["expected"] == "inputs with finite outputs"
    after = client.stats()["rel-1@us-east"]
    assert after["users"]["refused"] - before["users"]["refused"] == 4
    assert (after["users"]["failed"], after["ejected"]) == (before["users"]["failed"], False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"digits","inputs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"digits","inputs":[["\\ud800"]]}',
        b'{"model":"digits","inputs":[[1' + b"0" * 400 + b"]]}",
        b'{"model":"digits","inputs":[[' + b"9" * 5000 + b"]]}",
        b'{"model":"digits","inputs":[[NaN]]}',
        b"\xff\xfe",
    ],
)
def test_samples_that_are_rubbish_are_the_users(client: GatewayClient, body: bytes) -> None:
    response = client.http.post("/v1/predict", content=body)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_input")


def test_a_body_beyond_the_bound_is_413_announced_or_not(client: GatewayClient) -> None:
    body = b"x" * (8 * 1024 * 1024 + 1)
    assert client.http.post("/v2/models/digits/infer", content=body).status_code == 413
    chunked = client.http.post("/v2/models/digits/infer", content=iter([body[: 1 << 22]] * 3))
    assert (chunked.status_code, error_of(chunked)["code"]) == (413, "too_large")
    assert client.infer().status_code == 200


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer", "Basic x", "Bearer \u00e9"])
def test_admin_calls_without_the_gateways_token_are_401(client: GatewayClient, token: str | None) -> None:
    headers = {} if token is None else {"authorization": token.encode()}
    for method, path in (
        ("GET", "routes"),
        ("PUT", "routes/digits"),
        ("DELETE", "routes/digits"),
        ("GET", "stats/digits"),
    ):
        response = client.http.request(method, f"/admin/v1/{path}", headers=headers)
        assert (response.status_code, error_of(response)["code"]) == (401, "unauthorized")
    assert client.infer().status_code == 200


def test_a_route_that_does_not_hold_leaves_the_one_in_force(client: GatewayClient, engine: str) -> None:
    response = client.put(route(backend("rel-1@us-east", engine, weight=-1)))
    assert response.status_code == 400
    assert "weight of rel-1@us-east is out of range, got -1" in response.json()["error"]["message"]
    assert client.infer().status_code == 200


def test_a_deleted_model_is_unknown(client: GatewayClient, gateway: GatewayProcess) -> None:
    assert client.http.delete("/admin/v1/routes/digits", headers=gateway.admin_headers).status_code == 200
    assert client.infer().status_code == 404
    assert client.http.get("/v1/models").json() == {"object": "list", "data": []}


def test_routes_are_listed_as_they_were_set(client: GatewayClient, gateway: GatewayProcess, engine: str) -> None:
    document = route(
        backend("a@us-east", engine, weight=60),
        backend("b@us-east", engine, weight=40),
        mirror=mirror("b@us-east", "a@us-east"),
    )
    assert client.put(document).json() == document
    assert client.http.get("/admin/v1/routes", headers=gateway.admin_headers).json() == {"routes": [document]}
    saved = json.loads((gateway.folder / "routes.json").read_text())
    assert saved == {"schema_version": 1, "routes": [document]}


def test_the_protocols_own_questions_are_answered(client: GatewayClient) -> None:
    assert client.http.get("/v2").json()["name"] == "flightpath-gateway"
    assert client.http.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert client.http.get("/v2/models/digits").json()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 64]}
    ]
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
        asked = client.http.get(path)
        head = client.http.head(path)
        assert (asked.status_code, head.status_code, head.content) == (200, 200, b"")
        assert head.headers["content-length"] == asked.headers["content-length"]
    assert client.http.get("/nothing").status_code == 404


def test_weights_are_exact_shares_of_real_traffic(client: GatewayClient, engine: str) -> None:
    client.put(
        route(backend("live@us-east", engine, weight=75), backend("canary@us-east", engine, weight=25, version=2))
    )
    versions = [client.infer().headers["x-flightpath-release"] for _ in range(40)]
    assert (versions.count("live"), versions.count("canary")) == (30, 10)


def test_synthetic_requests_are_counted_apart_if_a_peer_says_so(client: GatewayClient, gateway: GatewayProcess) -> None:
    before = client.stats()["rel-1@us-east"]
    client.infer(headers={"x-flightpath-synthetic": "1", **gateway.peer_headers})
    client.infer(headers={"x-flightpath-synthetic": "1"})
    client.infer(headers={"x-flightpath-synthetic": "1", "x-flightpath-credential": "x"})
    after = client.stats()["rel-1@us-east"]
    for kind, count in (("users", 2), ("synthetic", 1)):
        assert after[kind]["answered"] - before[kind]["answered"] == count
        assert sum(after[kind]["latencies"]) - sum(before[kind]["latencies"]) == count
    assert (after["in_flight"], after["overdue"]) == (0, 0)


def test_prometheus_reads_requests_by_model_version_and_code(client: GatewayClient) -> None:
    client.infer()
    client.http.post("/v2/models/nothing/infer", content=b"{}")
    text = client.http.get("/metrics").text
    assert 'flightpath_gateway_requests_total{code="200",model="digits",version="7"}' in text
    assert 'flightpath_gateway_requests_total{code="404",model="",version=""}' in text
    assert "flightpath_gateway_request_seconds_bucket" in text


def test_the_status_page_stands_alone(client: GatewayClient) -> None:
    page = client.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/status" in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    (model,) = client.http.get("/v1/status").json()["models"]
    shown = {"requests", "p50_ms", "p95_ms", "agreed", "weight", "overdue", *ENDINGS}
    assert shown <= set(model["backends"][0])
