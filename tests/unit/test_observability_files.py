"""Rules, alerts and dashboards as files: nothing stale, nothing dangling, no alert without both of its tests."""

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cost.prices import load_prices
from infra.observability.files import FOLDER, read_rules, rule_files
from infra.observability.generated import contents, stale
from infra.observability.panels import BOARDS, Series
from infra.observability.prices import price_rules
from infra.observability.slo import SLOS, WINDOWS
from serving.errors import InvalidInput
from serving.regions.deciding.rollout_state import STATES

ROOT = FOLDER.parent.parent
REGION = ("rules/region", "alerts/region", "alerts/shared")
GLOBAL = ("rules/global", "alerts/global", "alerts/shared")
PRICES = ROOT / "examples/infra/prices.json"
_RECORDED = re.compile(r"flightpath:[a-z0-9_]+:[a-z0-9_]+")
_RAW = re.compile(r"\b(?:flightpath_[a-z_]+|vllm:[a-z_]+|DCGM_FI_[A-Z_]+)\b")


@functools.cache
def rules(*folders: str) -> list[dict[str, Any]]:
    return list(read_rules(rule_files(*folders)))


@functools.cache
def records(*folders: str) -> set[str]:
    prices = price_rules(load_prices(PRICES), "us-east-1", budget_usd=1)["groups"][0]["rules"]
    return {rule["record"] for rule in [*rules(*folders), *prices] if "record" in rule}


@functools.cache
def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules("alerts/region", "alerts/global", "alerts/shared")}


@functools.cache
def cases() -> list[dict[str, Any]]:
    return [case for path in (FOLDER / "tests").glob("*.yml") for case in yaml.safe_load(path.read_text())["tests"]]


def test_generated_files_are_what_their_generators_write() -> None:
    assert stale() == []
    assert len(list(contents())) == 2 + len(BOARDS)


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_every_alert_has_a_firing_and_a_silent_case(alert: str) -> None:
    mine = [case for case in cases() for test in case["alert_rule_test"] if test["alertname"] == alert]
    firing = [case for case in mine if case["alert_rule_test"][0]["exp_alerts"]]
    silent = [case for case in mine if not case["alert_rule_test"][0]["exp_alerts"]]
    assert firing
    assert silent

    def names(case: dict[str, Any]) -> set[str]:
        return {series["series"].partition("{")[0] for series in case["input_series"]}

    # A silent case that feeds other metrics than the firing one proves nothing.
    assert any(names(case) & names(other) for case in silent for other in firing)


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_every_alert_says_what_to_do(alert: str) -> None:
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    runbook = ROOT / rule["annotations"]["runbook"]
    assert alert in runbook.read_text() or rule["annotations"]["runbook"].endswith("stuck-pending.md")


def test_the_document_lists_every_alert_with_its_runbook_and_every_objective() -> None:
    page = (ROOT / "docs/observability.md").read_text()
    for alert, rule in alerts().items():
        runbook = rule["annotations"]["runbook"].removeprefix("docs/")
        assert re.search(rf"\| {alert} \| {rule['labels']['severity']} \| \[[a-z-]+\]\({runbook}\) \|", page), alert
    assert len(re.findall(r"\]\(runbooks/", page)) == len(alerts())
    for slo in SLOS:
        assert re.search(rf"\| {slo.name} \|.*\| {slo.objective * 100:g} % \|", page), slo.name


@pytest.mark.parametrize("folders", [REGION, GLOBAL], ids=["region", "global"])
def test_rules_and_alerts_use_recorded_series_that_exist(folders: tuple[str, ...]) -> None:
    known = records(*folders) | (records(*REGION) if folders is GLOBAL else set())
    used = {name for rule in rules(*folders) for name in _RECORDED.findall(rule["expr"])}
    assert used - known == set()


def test_dashboards_show_recorded_series_and_nothing_else() -> None:
    known = records(*REGION) | records(*GLOBAL)
    for board in BOARDS:
        document = json.loads((FOLDER / f"dashboards/{board.uid}.json").read_text())
        targets = [target for panel in document["panels"] for target in panel.get("targets", ())]
        assert targets
        for target in targets:
            assert re.fullmatch(_RECORDED.pattern + r'(\{region=~"\$region"\})?', target["expr"])
            assert _RECORDED.findall(target["expr"])[0] in known


def test_every_recorded_series_is_shown_alerted_on_or_built_upon() -> None:
    shown = {series.record for board in BOARDS for panels in board.rows.values() for p in panels for series in p.series}
    used = {n for rule in [*rules(*REGION), *rules(*GLOBAL)] for n in _RECORDED.findall(rule["expr"])}
    assert (records(*REGION) | records(*GLOBAL)) - shown - used == set()


def test_raw_metrics_are_those_that_the_product_exports() -> None:
    """Names are searched in the sources: the operator's are read, since nothing imports it."""
    sources = "".join(path.read_text() for folder in ("serving", "operator") for path in (ROOT / folder).rglob("*.py"))
    used = {name for rule in rules(*REGION) for name in _RAW.findall(rule["expr"]) if name.startswith("flightpath_")}
    for name in used:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert any(f'"{known}"' in sources for known in (base, base.removesuffix("_total"))), name


def test_raw_metrics_of_vllm_are_those_that_the_installed_one_exports() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed: its metrics cannot be compared")
    source = (Path(found.origin).parent / "v1/metrics/loggers.py").read_text()
    used = {name for rule in rules(*REGION) for name in _RAW.findall(rule["expr"]) if name.startswith("vllm:")}
    assert used
    for name in used:
        assert f'"{name.removesuffix("_total")}"' in source, name


def test_gpu_metrics_are_those_that_the_exporter_is_told_to_export() -> None:
    counters = (FOLDER / "dcgm/dcgm-counters.csv").read_text()
    told = {line.split(",")[0] for line in counters.splitlines() if line and not line.startswith("#")}
    used = {name for rule in rules(*REGION) for name in _RAW.findall(rule["expr"]) if name.startswith("DCGM_")}
    assert used == told


def test_rollouts_under_way_are_all_states_but_the_final_ones() -> None:
    (rule,) = (r for r in rules("rules/region") if r.get("record") == "flightpath:rollouts_under_way:sum")
    final = set(re.findall(r'state!~"([a-z_|]+)"', rule["expr"])[0].split("|"))
    assert final == {"live", "rolled_back", "aborted"}
    assert final < set(STATES)


def test_objectives_have_every_window_and_no_burn_rate_that_cannot_happen() -> None:
    for slo in SLOS:
        assert 0 < slo.budget < 1
        if 14.4 * slo.budget >= 1:
            assert slo.name.startswith("gpu_")
        assert 6 * slo.budget < 1
    recorded = records(*REGION)
    assert {f"flightpath:slo_burn:rate{window}" for window in WINDOWS} <= recorded


def test_prices_of_a_region_without_any_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no instance has a price here"):
        price_rules(load_prices(PRICES), "mars", budget_usd=1)
    with pytest.raises(InvalidInput, match="budget"):
        price_rules(load_prices(PRICES), "us-east-1", budget_usd=0)


def test_series_over_all_regions_take_no_region() -> None:
    assert Series("flightpath:global_gpus:sum", everywhere=True).expr == "flightpath:global_gpus:sum"
    assert Series("flightpath:gpus:count").expr == 'flightpath:gpus:count{region=~"$region"}'
