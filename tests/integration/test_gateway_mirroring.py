"""Every answer of a backend that is not the live one is compared with the live one's, at any weight."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.faulty_backend import FaultyBackend, answer_class, answer_status
from tests.fakes.gateways import GatewayClient, GatewayProcess, backend, infer_body, route, wait_for
from tests.fakes.models import (
    end_process,
    linear_weights,
    start_model_server,
    wait_until_ready,
    write_bundle,
)
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


def start_engine(root: Path, *, seed: int) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    write_bundle(root / f"bundle-{seed}", root / "keys", seed=seed)
    process = start_model_server(root / f"bundle-{seed}", port=port)
    wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready", process)
    return process, f"http://127.0.0.1:{port}"


def mirrored(client: GatewayClient, result: str) -> float:
    """The Prometheus counter of mirrored requests with this result."""
    name = f'flightpath_gateway_mirrored_total{{model="digits",result="{result}"}} '
    lines = client.http.get("/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def test_agreement_is_the_share_of_rows_on_which_two_real_models_agree(client: GatewayClient, tmp_path: Path) -> None:
    live, live_url = start_engine(tmp_path, seed=0)
    new, new_url = start_engine(tmp_path, seed=1)
    try:
        client.put(
            route(
                backend("live@us-east", live_url, weight=50),
                backend("new@us-east", new_url, weight=50, version=2),
                mirror_to="live@us-east",
            )
        )
        for _ in range(10):
            assert client.infer(rows=8).status_code == 200
        wait_for(lambda: client.stats()["new@us-east"]["compared"] == 40)
    finally:
        end_process(live)
        end_process(new)
    x = np.array([((row + 1) * column % 17) / 17 for row in range(8) for column in range(64)]).reshape(8, 64)
    classes = [(x @ weights + bias).argmax(axis=1) for weights, bias in (linear_weights(0), linear_weights(1))]
    expected = 5 * int((classes[0] == classes[1]).sum())
    stats = client.stats()
    assert stats["new@us-east"]["agreed"] == expected
    assert stats["new@us-east"]["requests"] == 5
    assert (stats["live@us-east"]["requests"], stats["live@us-east"]["compared"]) == (5, 0)


def test_a_candidate_at_100_percent_is_still_compared_and_the_mirror_is_charged_nothing(client: GatewayClient) -> None:
    differed = mirrored(client, "differed")
    with FaultyBackend(answer_class(1)) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend("live@us-east", live.url, weight=0),
                backend("new@us-east", new.url, weight=100),
                mirror_to="live@us-east",
            )
        )
        for _ in range(6):
            client.infer()
        wait_for(lambda: client.stats()["new@us-east"]["compared"] == 6)
        stats = client.stats()
        assert stats["new@us-east"]["agreed"] == 0
        assert stats["live@us-east"]["requests"] == 0
        assert sum(stats["live@us-east"]["latency"]["counts"]) == 0
        assert [body for _, body in live.seen] == [infer_body()] * 6
        wait_for(lambda: mirrored(client, "differed") == differed + 6)


def test_a_mirror_that_fails_is_no_comparison_and_no_error(client: GatewayClient) -> None:
    failed = mirrored(client, "failed")
    with FaultyBackend(answer_status(500)) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend("sick@us-east", live.url, weight=0),
                backend("fresh@us-east", new.url, weight=100),
                mirror_to="sick@us-east",
            )
        )
        assert client.infer().status_code == 200
        wait_for(lambda: len(live.seen) == 1)
        wait_for(lambda: mirrored(client, "failed") == failed + 1)
        stats = client.stats()
        assert stats["fresh@us-east"]["compared"] == 0
        assert stats["sick@us-east"]["errors"] == 0


def test_answers_of_the_live_backend_are_not_mirrored(client: GatewayClient) -> None:
    with FaultyBackend(answer_class(1)) as live:
        client.put(route(backend("only@us-east", live.url, weight=100), mirror_to="only@us-east"))
        for _ in range(5):
            client.infer()
        assert len(live.seen) == 5
        assert client.stats()["only@us-east"]["compared"] == 0
