"""promtool and amtool on every file of infra/observability."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from infra.cost.prices import load_prices
from infra.observability.files import FOLDER, render, rule_files
from infra.observability.prices import price_rules

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is missing: apt-get install prometheus-alertmanager"
)
_ROUTES = FOLDER / "alertmanager/alertmanager.yml"


def run(*command: str, cwd: Path = FOLDER) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_every_rule_file(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yml"
    book = load_prices(FOLDER.parent.parent / "examples/infra/prices.json")
    prices.write_text(render(price_rules(book, "eu-west-1", budget_usd=20_000)))
    folders = ("rules/region", "rules/global", "alerts/region", "alerts/global", "alerts/shared")
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, [*rule_files(*folders), prices]))


@needs_promtool
@pytest.mark.parametrize("path", sorted((FOLDER / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(path: Path) -> None:
    run("promtool", "test", "rules", path.name, cwd=path.parent)


@needs_promtool
@pytest.mark.parametrize("name", ["region", "global"])
def test_promtool_accepts_the_configuration(name: str, tmp_path: Path) -> None:
    """Debian builds Prometheus without the discovery of Kubernetes: that part is taken out of the copy."""
    document = yaml.safe_load((FOLDER / f"prometheus/{name}/{name}.yml").read_text())
    for job in document["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
    copy = tmp_path / "prometheus.yml"
    copy.write_text(yaml.safe_dump(document))
    run("promtool", "check", "config", "--syntax-only", str(copy))


@needs_amtool
def test_amtool_accepts_the_routes() -> None:
    run("amtool", "check-config", str(_ROUTES))


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "slo=availability"], "pages"),
        (["severity=page", "alertname=GatewayDown"], "pages"),
        (["severity=page", "slo=gpu_utilisation"], "platform-pages"),
        (["severity=ticket", "alertname=SpendAboveBudget"], "cost"),
        (["severity=ticket", "alertname=GpuFaults"], "training"),
        (["severity=ticket", "alertname=SloBurnsSlowly", "slo=latency"], "tickets"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_alerts_reach_who_should_hear_them(labels: list[str], receiver: str) -> None:
    told = run("amtool", "config", "routes", "test", f"--config.file={_ROUTES}", *labels)
    assert told.strip() == receiver
