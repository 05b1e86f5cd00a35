"""All rules over one plan, and what their breaches come to when the waivers are counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from infra.cost.prices import PriceBook
from infra.planned import PlannedWorld, read_world
from infra.policy import ceiling, encryption, exposure, quota, stateful, tags
from infra.policy.findings import Breach
from infra.policy.settings import Policy
from infra.policy.waivers import Waiver

_RULES: Final = (exposure.RULE, encryption.RULE, tags.RULE, ceiling.RULE, stateful.RULE, quota.RULE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    breaches: tuple[Breach, ...]
    """What blocks."""
    waived: tuple[tuple[Breach, Waiver], ...] = ()
    expired: tuple[Waiver, ...] = ()
    """They would have covered a breach, a while ago."""
    unused: tuple[Waiver, ...] = ()
    """They cover nothing in this plan: time to take them out."""

    @property
    def holds(self) -> bool:
        return not self.breaches


def rule_names() -> tuple[str, ...]:
    return _RULES


def check(
    document: Mapping[str, Any],
    policy: Policy,
    prices: PriceBook,
    waivers: Sequence[Waiver] = (),
    *,
    today: date,
) -> Verdict:
    found = sorted(set(_breaches(read_world(document), policy, prices)))
    holding = [waiver for waiver in waivers if waiver.holds_on(today)]
    waived = [(breach, waiver) for breach in found for waiver in holding if waiver.covers(breach)]
    covered = {breach for breach, _ in waived}
    left = tuple(breach for breach in found if breach not in covered)
    return Verdict(
        breaches=left,
        waived=tuple({breach: (breach, waiver) for breach, waiver in waived}.values()),
        expired=tuple(waiver for waiver in waivers if waiver.expires < today and any(map(waiver.covers, left))),
        unused=tuple(waiver for waiver in waivers if not any(map(waiver.covers, found))),
    )


def _breaches(world: PlannedWorld, policy: Policy, prices: PriceBook) -> Iterator[Breach]:
    yield from exposure.public_endpoints(world, policy.public_ports)
    yield from encryption.unencrypted(world)
    yield from tags.untagged(world, policy.required_tags)
    yield from stateful.lost_state(world, policy.stateful_types)
    yield from quota.above_quota(world, policy.gpu_quota.on_demand, policy.gpu_quota.spot)
    granted = policy.cost_ceiling_usd
    yield from ceiling.above_ceiling(world, prices, least_usd=granted.least, most_usd=granted.most)
