"""What one of two versions answered is repeated on the other and compared, off the request's path."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.faulty_backend import FaultyBackend, answer_class, answer_status
from tests.fakes.gateways import (
    GatewayClient,
    GatewayProcess,
    answers_timed,
    backend,
    endings,
    infer_body,
    mirror,
    route,
    wait_for,
)
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
                mirror=mirror("new@us-east", "live@us-east"),
            )
        )
        for _ in range(10):
            assert client.infer(rows=8).status_code == 200
        wait_for(lambda: client.stats()["new@us-east"]["compared"] == 5)
    finally:
        end_process(live)
        end_process(new)
    x = np.array([((row + 1) * column % 17) / 17 for row in range(8) for column in range(64)]).reshape(8, 64)
    classes = [(x @ weights + bias).argmax(axis=1) for weights, bias in (linear_weights(0), linear_weights(1))]
    stats = client.stats()
    # A request of eight rows is one sample: the share of its rows that agree.
    assert stats["new@us-east"]["agreed"] == pytest.approx(5 * float((classes[0] == classes[1]).mean()))
    assert endings(stats["new@us-east"]) == {"answered": 5}
    assert (endings(stats["live@us-east"]), stats["live@us-east"]["compared"]) == ({"answered": 5}, 0)


def test_a_candidate_at_100_percent_is_still_compared_and_the_mirror_is_charged_nothing(client: GatewayClient) -> None:
    differed = mirrored(client, "differed")
    with FaultyBackend(answer_class(1)) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend("live@us-east", live.url, weight=0),
                backend("new@us-east", new.url, weight=100),
                mirror=mirror("new@us-east", "live@us-east"),
            )
        )
        for _ in range(6):
            client.infer()
        wait_for(lambda: client.stats()["new@us-east"]["compared"] == 6)
        stats = client.stats()
        assert stats["new@us-east"]["agreed"] == 0
        assert (endings(stats["live@us-east"]), answers_timed(stats["live@us-east"])) == ({}, 0)
        assert [body for _, body in live.seen] == [infer_body()] * 6
        wait_for(lambda: mirrored(client, "differed") == differed + 6)


def test_a_mirror_that_fails_is_no_comparison_and_no_error(client: GatewayClient) -> None:
    failed = mirrored(client, "failed")
    with FaultyBackend(answer_status(500)) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend("sick@us-east", live.url, weight=0),
                backend("fresh@us-east", new.url, weight=100),
                mirror=mirror("fresh@us-east", "sick@us-east"),
            )
        )
        assert client.infer().status_code == 200
        wait_for(lambda: len(live.seen) == 1)
        wait_for(lambda: mirrored(client, "failed") == failed + 1)
        stats = client.stats()
        assert stats["fresh@us-east"]["compared"] == 0
        assert endings(stats["sick@us-east"]) == {}


def test_answers_of_the_live_backend_are_not_repeated_unless_a_shadow_is_asked_for(client: GatewayClient) -> None:
    with FaultyBackend(answer_class(1)) as live, FaultyBackend(answer_class(1)) as new:
        pair = backend("old@us-east", live.url, weight=100), backend("shadow@us-east", new.url, weight=0)
        client.put(route(*pair, mirror=mirror("shadow@us-east", "old@us-east")))
        for _ in range(5):
            client.infer()
        assert (len(live.seen), len(new.seen)) == (5, 0)
        client.put(route(*pair, mirror=mirror("shadow@us-east", "old@us-east", live_share=1.0)))
        for _ in range(5):
            client.infer()
        wait_for(lambda: client.stats()["shadow@us-east"]["compared"] == 5)
        new.behave(answer_status(500))
        for _ in range(5):
            client.infer()
        wait_for(lambda: len(new.seen) == 10)
        stats = client.stats()
    # A candidate that fails on what no user asked of it has no ending for it.
    assert (endings(stats["shadow@us-east"]), stats["shadow@us-east"]["agreed"]) == ({}, 5)
    assert (stats["old@us-east"]["compared"], stats["shadow@us-east"]["ejected"]) == (0, False)


def test_what_an_agent_replays_is_not_repeated(client: GatewayClient, gateway: GatewayProcess) -> None:
    with FaultyBackend(answer_class(1)) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend("was@us-east", live.url, weight=0),
                backend("is@us-east", new.url, weight=100),
                mirror=mirror("is@us-east", "was@us-east"),
            )
        )
        client.infer(headers={"x-flightpath-synthetic": "1", **gateway.peer_headers})
        client.infer()
        wait_for(lambda: client.stats()["is@us-east"]["compared"] == 1)
        assert len(live.seen) == 1


@pytest.mark.parametrize("label_first", [True, False])
def test_a_label_says_which_of_the_two_versions_was_right(client: GatewayClient, label_first: bool) -> None:
    held, name = threading.Event(), "first" if label_first else "last"

    def slowly(handler: Any) -> None:
        assert not label_first or held.wait(timeout=20)
        answer_class(1)(handler)

    with FaultyBackend(slowly) as live, FaultyBackend(answer_class(2)) as new:
        client.put(
            route(
                backend(f"live-{name}@us-east", live.url, weight=0),
                backend(f"new-{name}@us-east", new.url, weight=100),
                mirror=mirror(f"new-{name}@us-east", f"live-{name}@us-east"),
            )
        )
        for label in (2, 1, 1, 7):
            token = client.infer().headers["x-flightpath-feedback"]
            if not label_first:
                wait_for(lambda: client.stats()[f"new-{name}@us-east"]["compared"] > tokens_used(client, name))
            answer = client.http.post("/v1/feedback", json={"token": token, "labels": [label]})
            assert answer.json()["counted"] is True
        held.set()
        wait_for(lambda: client.stats()[f"new-{name}@us-east"]["pairs"] == 4)
        counters = client.stats()[f"new-{name}@us-east"]
    assert (counters["won"], counters["lost"]) == (1, 2)
    assert (counters["labelled"], counters["correct"]) == (4, 1)


def tokens_used(client: GatewayClient, name: str) -> int:
    labelled: int = client.stats()[f"new-{name}@us-east"]["labelled"]
    return labelled
