"""Use and spending as a real Prometheus tells them: two weeks of history, put into its database before it starts."""

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from infra.cost.errors import UsageUnavailable
from infra.cost.prices import load_prices
from infra.cost.usage import Prometheus, groups_in_use, spend_history
from serving.errors import InvalidInput
from tasks.clusters.cost_outcomes import RegionCost
from tasks.clusters.costing import report_costs
from tasks.clusters.settings import ClusterSettings
from tests.fakes.models import end_process, wait_until_ready
from tests.fakes.ports import free_port

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="needs prometheus and promtool"
)

DAYS = 16
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SERIES = {
    'flightpath:nodes:count{node_group="serving",instance_type="g6.xlarge",capacity_type="on_demand"}': lambda day: 8,
    'flightpath:nodes:count{node_group="system",instance_type="m7i.xlarge",capacity_type="on_demand"}': lambda day: 3,
    'flightpath:nodes:count{node_group="spot",instance_type="g5.12xlarge",capacity_type="spot"}': lambda day: 2,
    'flightpath:gpu_utilisation:ratio_avg1d{node_group="serving"}': lambda day: 0.2,
    'flightpath:gpu_utilisation:ratio_avg1d{node_group="spot"}': lambda day: 0.85,
    "flightpath:spend:usd_per_month": lambda day: 5000 + 10 * day,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    history, data, port = folder / "history.txt", folder / "data", free_port()
    history.write_text(_history())
    make = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=1440h", "openmetrics"]
    make += [str(history), str(data)]
    subprocess.run(make, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=60d"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/-/ready", process)
        yield Prometheus(url=url)
    finally:
        end_process(process)


def _history() -> str:
    """A sample every twelve hours, as OpenMetrics wants it: series after series, each in the order of time."""
    lines = []
    for name, value in SERIES.items():
        for step in range(DAYS * 2 + 1):
            at = NOW - timedelta(days=DAYS) + timedelta(hours=12 * step)
            lines.append(f"{name} {value(step // 2)} {at.timestamp():.0f}")
    return "\n".join([*lines, "# EOF", ""])


def test_groups_with_gpus_are_read_day_by_day(server: Prometheus) -> None:
    spot, serving = sorted(groups_in_use(server, now=NOW), key=lambda use: use.node_group, reverse=True)
    assert (serving.node_group, serving.instance_type, serving.spot) == ("serving", "g6.xlarge", False)
    assert (spot.node_group, spot.instance_type, spot.spot) == ("spot", "g5.12xlarge", True)
    assert len(serving.nodes) == 14
    assert serving.nodes == pytest.approx([8.0] * 14)
    assert spot.utilisation == pytest.approx([0.85] * 14)


def test_spending_is_a_figure_a_day(server: Prometheus) -> None:
    history = spend_history(server, days=14, now=NOW)
    assert [day.day for day in history] == [(NOW - timedelta(days=13 - n)).date() for n in range(14)]
    steps = [after.usd - before.usd for before, after in itertools.pairwise(history)]
    assert steps == pytest.approx([10.0] * 13)


def test_the_report_turns_it_into_advice_and_a_forecast(server: Prometheus) -> None:
    region = RegionCost(region="us-east", cloud_region="us-east-1", prices_of="", note="", least_usd=1, most_usd=2)
    silent = RegionCost(region="eu-west", cloud_region="eu-west-1", prices_of="", note="", least_usd=1, most_usd=2)
    servers = {"us-east": server.url, "eu-west": f"http://127.0.0.1:{free_port()}"}
    report = report_costs([region, silent], servers, 100.0, ClusterSettings())
    advice = {row.node_group: row for row in report.advice}
    assert (advice["serving"].verdict, advice["serving"].needed, advice["spot"].verdict) == ("shrink", 2, "keep")
    hourly = load_prices(ClusterSettings().prices).hourly_usd("g6.xlarge", "us-east-1")
    assert advice["serving"].saved_usd == pytest.approx(6 * hourly * 730)
    (coming,) = report.forecast
    assert coming.usd[-1] - coming.usd[0] == pytest.approx(290, rel=0.05)
    assert len(report.homes) == 2
    assert [problem.partition(":")[0] for problem in report.problems] == ["eu-west"]


def test_what_prometheus_refuses_and_what_is_none_are_errors(server: Prometheus) -> None:
    with pytest.raises(UsageUnavailable, match="refused, got 400"):
        server.daily("sum(", days=3)
    with pytest.raises(InvalidInput, match="got file:///etc/passwd"):
        Prometheus(url="file:///etc/passwd")
    started = time.monotonic()
    with pytest.raises(UsageUnavailable, match="did not answer"):
        Prometheus(url=f"http://127.0.0.1:{free_port()}").daily("up", days=3)
    assert time.monotonic() - started < 5
    assert httpx.get(f"{server.url}/-/ready", trust_env=False).status_code == 200
    with pytest.raises(UsageUnavailable):
        Prometheus(url=f"{server.url}/graph").daily("up", days=1)
