"""What plans cost, where spending goes, and what to do about it: by known figures, and by what must hold for all."""

import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.cost.demand import UnknownRegion
from infra.cost.errors import TooFewDays, UnknownPrice
from infra.cost.forecast import Day, forecast
from infra.cost.plan import MonthlyCost, Usage, cost_of_plan
from infra.cost.prices import HOURS_A_MONTH, Kind, load_prices
from infra.cost.rightsizing import GroupUse, advise
from infra.cost.spot import Interruptions, spot_choice
from infra.cost.transfer import homes
from serving.errors import InvalidInput
from tasks.clusters.cost_outcomes import AdviceRow, CostLine, CostReport, ForecastRow, HomeRow, RegionCost, SpotRow
from tasks.clusters.cost_page import cost_page
from tests.fakes.cloud_plans import azure_west_europe, document, gcp_europe_west, planned
from tests.fakes.recorded_plans.recording import REGIONS, recorded

PRICES = load_prices(Path(__file__).resolve().parents[2] / "examples" / "infra" / "prices.json")
START = date(2026, 9, 1)

# Plans


def usd(kind: Kind, item: str) -> float:
    return PRICES.find(kind, item, "us-east-1").usd


def by_kind(cost: MonthlyCost) -> dict[str, tuple[float, float]]:
    """Least and most."""
    return {
        kind: (
            sum(line.least_usd for line in cost.lines if line.demand.kind == kind),
            sum(line.most_usd for line in cost.lines if line.demand.kind == kind),
        )
        for kind in {line.demand.kind for line in cost.lines}
    }


def test_every_part_of_a_plan_is_counted_by_its_price() -> None:
    cost = cost_of_plan(recorded("us-east"), PRICES)
    system = [line for line in cost.lines if line.demand.item == "m7i.xlarge"]
    hourly = PRICES.hourly_usd("m7i.xlarge", "us-east-1")
    assert [(line.least_usd, line.most_usd) for line in system] == [
        (pytest.approx(3 * hourly * HOURS_A_MONTH), pytest.approx(9 * hourly * HOURS_A_MONTH))
    ]
    kinds = by_kind(cost)
    assert kinds["network"][0] == pytest.approx(3 * usd("network", "nat_gateway") * HOURS_A_MONTH)
    both_zones = 2 * usd("database", "db.m7g.large") * HOURS_A_MONTH
    assert kinds["database"] == (pytest.approx(both_zones), pytest.approx(both_zones))
    assert kinds["disk"][0] == pytest.approx(5 * 200 * usd("disk", "gp3"))
    assert sum(most for _, most in kinds.values()) == pytest.approx(cost.most_usd)
    assert cost.left_out["stored objects"] == 1


def test_spot_groups_are_counted_at_spot_prices() -> None:
    lines = [line for line in cost_of_plan(recorded("us-east"), PRICES).lines if line.demand.spot]
    spot = PRICES.hourly_usd("g5.12xlarge", "us-east-1", spot=True)
    assert [(line.demand.item, line.least_usd, line.most_usd) for line in lines] == [
        ("g5.12xlarge", 0.0, pytest.approx(8 * spot * HOURS_A_MONTH))
    ]


@pytest.mark.parametrize("plan", [gcp_europe_west(), azure_west_europe()], ids=["gcp", "azure"])
def test_the_other_clouds_are_counted_too(plan: object) -> None:
    cost = cost_of_plan(plan, PRICES)  # type: ignore[arg-type]  # a document of the tests
    assert set(by_kind(cost)) == {"instance", "disk", "database", "database_disk", "network", "control_plane"}
    assert 0 < cost.least_usd < cost.most_usd


def test_what_a_user_stores_is_counted_as_told() -> None:
    usage = Usage(stored_gb=1000)
    without, with_ = cost_of_plan(recorded("us-east"), PRICES), cost_of_plan(recorded("us-east"), PRICES, usage=usage)
    assert with_.least_usd - without.least_usd == pytest.approx(1000 * usd("storage", "s3"))
    assert "stored objects" not in with_.left_out


def test_what_goes_costs_nothing_and_what_has_no_price_is_an_error() -> None:
    gone = document(planned("aws_nat_gateway.a", None, actions=("delete",), before={}))
    assert cost_of_plan(gone, PRICES).most_usd == 0
    with pytest.raises(UnknownPrice, match=r"no price for instance warp\.9"):
        cost_of_plan(document(planned("aws_instance.a", {"instance_type": "warp.9"})), PRICES)


def test_a_plan_that_does_not_tell_its_region_has_no_cost() -> None:
    plan = document(planned("aws_nat_gateway.a", {}))
    plan["configuration"]["provider_config"] = {}
    with pytest.raises(UnknownRegion, match=r"aws_nat_gateway\.a"):
        cost_of_plan(plan, PRICES)


@pytest.mark.parametrize("region", REGIONS)
def test_no_part_costs_more_at_least_than_at_most(region: str) -> None:
    cost = cost_of_plan(recorded(region), PRICES)
    assert all(0 <= line.least_usd <= line.most_usd for line in cost.lines)


# Spot


@settings(deadline=None)
@given(a_day=st.floats(0, 100), minutes=st.integers(0, 600))
def test_spot_pays_exactly_until_its_break_even(a_day: float, minutes: int) -> None:
    interruptions = Interruptions(a_day=a_day, lost=timedelta(minutes=minutes))
    choice = spot_choice(PRICES, "p4d.24xlarge", "us-east-1", interruptions)
    assert choice is not None
    assert choice.finished_hour_usd >= choice.spot_usd
    if not math.isclose(choice.lost_share, choice.break_even_share):
        assert choice.pays == (choice.lost_share < choice.break_even_share)


def test_a_machine_that_is_not_sold_as_spot_has_no_choice() -> None:
    only = [price for price in PRICES.prices.values() if not price.spot]
    book = type(PRICES).of(only, day=PRICES.day)
    assert spot_choice(book, "p4d.24xlarge", "us-east-1") is None
    with pytest.raises(InvalidInput):
        Interruptions(a_day=-1)


# Transfer


def test_the_home_from_which_copies_cost_least_comes_first() -> None:
    places = ["us-east-1", "eu-west-1", "ap-southeast-1"]
    found = homes(PRICES, places, 100)
    assert [home.region for home in found][-1] == "ap-southeast-1"
    assert [home.usd for home in found] == sorted(home.usd for home in found)
    for home in found:
        assert home.usd == pytest.approx(sum(100 * PRICES.transfer_usd(home.region, to) for to, _ in home.to))
        assert {to for to, _ in home.to} == set(places) - {home.region}


# Forecast


def line(days: int, slope: float, noise: "np.random.Generator | None" = None, weekend: float = 0.0) -> list[Day]:
    rows = []
    for number in range(days):
        day = START + timedelta(days=number)
        error = float(noise.normal(0, 5)) if noise else 0.0
        rows.append(Day(day=day, usd=100 + slope * number + error + (weekend if day.weekday() >= 5 else 0.0)))
    return rows


@settings(max_examples=30, deadline=None)
@given(days=st.integers(7, 60), slope=st.floats(-5, 5), ahead=st.integers(1, 30))
def test_a_straight_line_goes_on_as_it_is(days: int, slope: float, ahead: int) -> None:
    found = forecast(line(days, slope), ahead)
    assert found.days[-1].day == START + timedelta(days=days - 1 + ahead)
    for number, day in enumerate(found.days):
        assert day.usd == pytest.approx(100 + slope * (days + number), abs=1e-5)
        assert day.high - day.low == pytest.approx(0, abs=1e-4)


def test_the_interval_holds_as_often_as_it_says() -> None:
    """400 histories with known noise: the day to come lies in its 90 % interval in 90 % of them, within 3 sigma."""
    noise, inside = np.random.default_rng(7), 0
    for _ in range(400):
        history = line(21, 1.5, noise)
        (coming,) = forecast(history[:20], 1, confidence=0.9).days
        inside += coming.low <= history[20].usd <= coming.high
    assert abs(inside / 400 - 0.9) < 3 * math.sqrt(0.9 * 0.1 / 400)


def test_the_interval_widens_with_the_distance() -> None:
    found = forecast(line(20, 1, np.random.default_rng(1)), 30)
    widths = [day.high - day.low for day in found.days]
    assert widths == sorted(widths)


def test_four_weeks_tell_weekends_from_weekdays() -> None:
    found = forecast(line(28, 1, weekend=-40), 14)
    assert found.weekly
    for number, day in enumerate(found.days):
        assert day.usd == pytest.approx(100 + 28 + number + (-40 if day.day.weekday() >= 5 else 0), abs=1e-6)
    assert not forecast(line(27, 1), 1).weekly


def test_too_little_history_and_a_day_twice_are_refused() -> None:
    with pytest.raises(TooFewDays, match="got 6 days, expected >= 7"):
        forecast(line(6, 1), 1)
    with pytest.raises(InvalidInput, match="a day is there twice"):
        forecast([*line(7, 1), line(1, 1)[0]], 1)
    with pytest.raises(InvalidInput):
        forecast(line(7, 1), 0)


# Sizes


def use(nodes: list[float], utilisation: list[float], spot: bool = False) -> GroupUse:
    return GroupUse(
        node_group="serving",
        instance_type="g6.xlarge",
        spot=spot,
        nodes=tuple(nodes),
        utilisation=tuple(utilisation),
    )


@pytest.mark.parametrize(
    ("nodes", "used", "verdict", "needed"),
    [
        ([8.0] * 14, [0.2] * 14, "shrink", 2),
        ([8.0] * 14, [0.2] * 13 + [0.85], "keep", 8),
        ([4.0] * 14, [0.85] * 14, "keep", 4),
        ([4.0] * 14, [1.0] * 14, "grow", 5),
        ([2.0] * 14, [0.0] * 14, "shrink", 0),
    ],
)
def test_sizes_follow_the_busiest_day(nodes: list[float], used: list[float], verdict: str, needed: int) -> None:
    advice = advise(use(nodes, used), PRICES, "us-east-1")
    assert (advice.verdict, advice.needed) == (verdict, needed)
    saved = (
        0 if verdict == "keep" else (nodes[0] - needed) * PRICES.hourly_usd("g6.xlarge", "us-east-1") * HOURS_A_MONTH
    )
    assert advice.saved_usd == pytest.approx(saved)


@settings(deadline=None)
@given(
    days=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), min_size=7, max_size=30),
    target=st.floats(0.1, 1),
)
def test_the_nodes_that_are_advised_carry_every_day_at_the_target(
    days: list[tuple[float, float]], target: float
) -> None:
    advice = advise(use([n for n, _ in days], [u for _, u in days]), PRICES, "us-east-1", target=target)
    assert all(nodes * used <= advice.needed * target + 1e-6 for nodes, used in days)
    assert advice.needed == 0 or any(nodes * used > (advice.needed - 1) * target - 1e-6 for nodes, used in days)
    assert (advice.saved_usd > 0) == (advice.verdict == "shrink")


def test_advice_wants_a_week_and_as_many_figures_of_both() -> None:
    with pytest.raises(TooFewDays, match="got 6 days of serving"):
        advise(use([1.0] * 6, [0.5] * 6), PRICES, "us-east-1")
    with pytest.raises(InvalidInput, match="7 and 6 days"):
        use([1.0] * 7, [0.5] * 6)


# The page


def test_the_page_shows_regions_forecast_and_advice_as_one_drawing_and_tables() -> None:
    lines = [CostLine(address="a", kind="instance", item="<m7i>", spot=False, least_usd=1200.5, most_usd=9000)]
    spot = SpotRow(item="p4d", on_demand_usd=20, spot_usd=8, finished_hour_usd=8.1, break_even_share=0.6, pays=True)
    region = RegionCost(
        region="us-east",
        cloud_region="us-east-1",
        prices_of="2026-11-01",
        note="an <example>",
        least_usd=1200.5,
        most_usd=9000,
        lines=lines,
        spot=[spot],
        left_out=["keys and calls (3)"],
    )
    advice = AdviceRow(
        region="us-east",
        node_group="serving",
        instance_type="g6.xlarge",
        verdict="shrink",
        nodes=8,
        needed=2,
        utilisation=0.2,
        saved_usd=3500,
    )
    coming = ForecastRow(
        region="us-east",
        now_usd=1000,
        usd=[1001, 1002],
        low=[900, 890],
        high=[1100, 1110],
        day="2026-12-01",
        confidence=0.9,
    )
    report = CostReport(
        prices_of="2026-11-01",
        note="an <example>",
        least_usd=1200.5,
        most_usd=9000,
        regions=[region],
        advice=[advice],
        forecast=[coming],
        homes=[HomeRow(region="us-east-1", usd=12.5)],
        problems=["eu-west: Prometheus did not answer"],
    )
    page = cost_page(report)
    assert page.count("<svg") == 1
    for text in (
        "1,200",
        "9,000",
        "an &lt;example&gt;",
        "shrink",
        "3,500",
        "60% of the hours",
        "12.50",
        "eu-west: Prom",
    ):
        assert text in page, text
    assert "<example>" not in page
