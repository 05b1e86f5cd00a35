"""Service level objectives, and the recording rules that follow from them.

One table tells what is promised; rules for every window are written from it, so that no window is forgotten and the
alerts on them (alerts/shared/slo.yml) need no number of their own but the burn rates. Windows and factors are those of
the multi-window, multi-burn-rate alerts in Google's Site Reliability Workbook, chapter 5.

A burn rate is the share of bad events over the share that the objective allows: at 1 the budget of a month lasts a
month. Below an objective of 93.1 % a burn rate of 14.4 cannot happen: the GPU objectives have the slower ones only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from infra.observability.files import Rule, group

WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
Scope = Literal["region", "global"]

_GATEWAY: Final = "flightpath_gateway_requests_total"
_SECONDS: Final = "flightpath_gateway_request_seconds"
NO_TOKENS: Final = "unless on (model) flightpath_gateway_tokens_total"
"""Models that count tokens are language models: how long a text takes is no latency, its first token's wait is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slo:
    """One promise. Either `bad` and `every` count events, or `error` is a share; all take `{window}`."""

    name: str
    objective: float
    """Share of good events or of time, 0 to 1."""
    promise: str
    scopes: tuple[Scope, ...]
    bad: str = ""
    every: str = ""
    error: str = ""

    @property
    def budget(self) -> float:
        return round(1 - self.objective, 6)


SLOS: Final = (
    Slo(
        name="availability",
        objective=0.9995,
        promise="requests of users that get no 5xx, in each region and over all of them",
        scopes=("region", "global"),
        bad=f'sum(rate({_GATEWAY}{{code=~"5.."}}[{{window}}])) or sum(rate({_GATEWAY}[{{window}}])) * 0',
        every=f"sum(rate({_GATEWAY}[{{window}}]))",
    ),
    Slo(
        name="uptime",
        objective=0.9995,
        promise="regions that answer a probe from at least one other place, over all regions",
        scopes=("global",),
        error="1 - avg(max by (target) (flightpath:probe_success:avg{window}))",
    ),
    Slo(
        name="latency",
        objective=0.95,
        promise="answered requests within 50 ms in a region: p95 < 50 ms (models that stream tokens apart)",
        scopes=("region",),
        bad=f"sum(rate({_SECONDS}_count[{{window}}]) {NO_TOKENS})"
        f' - sum(rate({_SECONDS}_bucket{{le="0.05"}}[{{window}}]) {NO_TOKENS})',
        every=f"sum(rate({_SECONDS}_count[{{window}}]) {NO_TOKENS})",
    ),
    Slo(
        name="gpu_utilisation",
        objective=0.85,
        promise="busy time of the GPUs that pods hold",
        scopes=("region",),
        error="1 - avg_over_time(flightpath:gpus_busy:ratio[{window}])",
    ),
    Slo(
        name="gpu_allocation",
        objective=0.90,
        promise="GPUs that pods hold, of all in the region",
        scopes=("region",),
        error="1 - avg_over_time(flightpath:gpus_allocated:ratio[{window}])",
    ),
)


def rule_file(scope: Scope) -> dict[str, Any]:
    """The rules of every objective that is judged at `scope`; groups are evaluated in order within themselves."""
    slos = [slo for slo in SLOS if scope in slo.scopes]
    return {"groups": [group(f"slo-{slo.name}", list(_rules(slo, scope))) for slo in slos]}


def _rules(slo: Slo, scope: Scope) -> Iterator[Rule]:
    labels = {"slo": slo.name}
    yield Rule("flightpath:slo_objective:ratio", f"vector({slo.objective})", labels)
    for window in WINDOWS:
        yield from _counted(slo, scope, window) if slo.every else _shared(slo, window)
        errors = f'flightpath:slo_errors:ratio_rate{window}{{slo="{slo.name}",region=""}}'
        yield Rule(f"flightpath:slo_burn:rate{window}", f"{errors} / {slo.budget}", labels)
    yield Rule(
        "flightpath:slo_attained:ratio_3d",
        f'1 - flightpath:slo_errors:ratio_rate3d{{slo="{slo.name}",region=""}}',
        labels,
    )


def _counted(slo: Slo, scope: Scope, window: str) -> Iterator[Rule]:
    """Regions record both counts, so that the global ratio is one of requests and not an average of regions."""
    labels = {"slo": slo.name}
    bad, every = f"flightpath:slo_bad:rate{window}", f"flightpath:slo_all:rate{window}"
    if scope == "region":
        yield Rule(bad, slo.bad.replace("{window}", window), labels)
        yield Rule(every, slo.every.replace("{window}", window), labels)
    chosen = f'{{slo="{slo.name}"}}'
    ratio = f"sum({bad}{chosen}) / (sum({every}{chosen}) > 0)"
    yield Rule(f"flightpath:slo_errors:ratio_rate{window}", ratio, labels)


def _shared(slo: Slo, window: str) -> Iterator[Rule]:
    yield Rule(f"flightpath:slo_errors:ratio_rate{window}", slo.error.replace("{window}", window), {"slo": slo.name})
