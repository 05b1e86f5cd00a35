"""What regions cost and could cost: their plans by the price file, and their use as Prometheus saw it."""

from collections.abc import Mapping, Sequence
from typing import Final

from infra.cost.errors import CostError
from infra.cost.forecast import Forecast, forecast
from infra.cost.plan import Line, Usage, cost_of_world
from infra.cost.prices import PriceBook, load_prices
from infra.cost.rightsizing import Advice, advise
from infra.cost.spot import SpotChoice, spot_choice
from infra.cost.transfer import homes
from infra.cost.usage import Prometheus, groups_in_use, spend_history
from infra.planned import read_world
from tasks.clusters import environments
from tasks.clusters.cost_outcomes import (
    AdviceRow,
    CostLine,
    CostReport,
    ForecastRow,
    HomeRow,
    RegionCost,
    SpotRow,
)
from tasks.clusters.settings import ClusterSettings

_FORECAST_DAYS: Final = 30


def cost_region(
    name: str, variables: Mapping[str, str], backend: Mapping[str, str], stored_gb: float, settings: ClusterSettings
) -> RegionCost:
    """Of everything that the configuration wants, whether it was applied already or not."""
    environment = environments.open_environment(name, settings)
    plan = environment.driver(backend, settings).plan(environments.values(variables, settings))
    plan.discard()
    prices = load_prices(settings.prices)
    cost = cost_of_world(read_world(plan.document), prices, usage=Usage(stored_gb=stored_gb))
    machines = {(line.demand.item, line.demand.region) for line in cost.lines if line.demand.kind == "instance"}
    choices = (spot_choice(prices, item, place) for item, place in sorted(machines))
    return RegionCost(
        region=name,
        cloud_region=next((line.demand.region for line in cost.lines), ""),
        prices_of=prices.day.isoformat(),
        note=prices.note,
        least_usd=cost.least_usd,
        most_usd=cost.most_usd,
        lines=[_line(line) for line in cost.lines],
        spot=[_spot(choice) for choice in choices if choice is not None],
        left_out=[f"{what} ({count})" for what, count in sorted(cost.left_out.items())],
    )


def report_costs(
    costs: Sequence[RegionCost], prometheus: Mapping[str, str], moved_gb: float, settings: ClusterSettings
) -> CostReport:
    """`prometheus`: the server's URL by region. One that is silent costs its advice, never the report."""
    prices = load_prices(settings.prices)
    report = CostReport(
        prices_of=prices.day.isoformat(),
        note=prices.note,
        least_usd=sum(cost.least_usd for cost in costs),
        most_usd=sum(cost.most_usd for cost in costs),
        regions=list(costs),
        homes=_homes(costs, prices, moved_gb) if moved_gb else [],
    )
    for cost in costs:
        if url := prometheus.get(cost.region):
            _add_use(report, cost, Prometheus(url=url), prices)
    return report


def _add_use(report: CostReport, cost: RegionCost, server: Prometheus, prices: PriceBook) -> None:
    try:
        for use in groups_in_use(server):
            report.advice.append(_advice(cost.region, advise(use, prices, cost.cloud_region)))
        history = spend_history(server)
        report.forecast.append(
            _forecast(cost.region, history[-1].usd if history else 0.0, forecast(history, _FORECAST_DAYS))
        )
    except CostError as problem:
        report.problems.append(f"{cost.region}: {problem}")


def _homes(costs: Sequence[RegionCost], prices: PriceBook, moved_gb: float) -> list[HomeRow]:
    places = [cost.cloud_region for cost in costs if cost.cloud_region]
    return [HomeRow(region=home.region, usd=home.usd) for home in homes(prices, places, moved_gb)]


def _line(line: Line) -> CostLine:
    demand = line.demand
    return CostLine(
        address=demand.address,
        kind=demand.kind,
        item=demand.item,
        spot=demand.spot,
        least_usd=line.least_usd,
        most_usd=line.most_usd,
    )


def _spot(choice: SpotChoice) -> SpotRow:
    return SpotRow(
        item=choice.item,
        on_demand_usd=choice.on_demand_usd,
        spot_usd=choice.spot_usd,
        finished_hour_usd=choice.finished_hour_usd,
        break_even_share=choice.break_even_share,
        pays=choice.pays,
    )


def _advice(region: str, advice: Advice) -> AdviceRow:
    return AdviceRow(
        region=region,
        node_group=advice.node_group,
        instance_type=advice.instance_type,
        verdict=advice.verdict,
        nodes=advice.nodes,
        needed=advice.needed,
        utilisation=advice.utilisation,
        saved_usd=advice.saved_usd,
    )


def _forecast(region: str, now_usd: float, coming: Forecast) -> ForecastRow:
    last = coming.days[-1]
    return ForecastRow(
        region=region,
        now_usd=now_usd,
        usd=[day.usd for day in coming.days],
        low=[day.low for day in coming.days],
        high=[day.high for day in coming.days],
        day=last.day.isoformat(),
        confidence=coming.confidence,
    )
