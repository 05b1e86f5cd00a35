"""Rule gpu-quota: node groups at their largest stay within the GPUs that the cloud grants.

A quota that is too small shows itself late otherwise: as a training that waits for its last node.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from infra.cost.demand import demands_of
from infra.cost.prices import HOURS_A_MONTH
from infra.machines import UnknownMachine, gpus, machine
from infra.planned import PlannedWorld
from infra.policy.findings import Breach

RULE: Final = "gpu-quota"


def above_quota(world: PlannedWorld, on_demand: Mapping[str, int], spot: Mapping[str, int]) -> Iterator[Breach]:
    """A model without a quota has none. Clouds count spot apart."""
    asked: dict[tuple[str, bool], dict[str, int]] = defaultdict(dict)
    for demand in demands_of(world):
        if demand.kind != "instance" or demand.most <= 0:
            continue
        try:
            count = gpus(demand.item)
        except UnknownMachine as unknown:
            expected = unknown.expected or "a known one"
            yield Breach(resource=demand.address, rule=RULE, got=f"machine {demand.item}", expected=expected)
            continue
        if count:
            asked[machine(demand.item).gpu, demand.spot][demand.address] = round(demand.most / HOURS_A_MONTH) * count
    for (model, is_spot), groups in asked.items():
        yield from _judge(model, is_spot, groups, (spot if is_spot else on_demand).get(model, 0))


def _judge(model: str, is_spot: bool, groups: Mapping[str, int], granted: int) -> Iterator[Breach]:
    total = sum(groups.values())
    if total > granted:
        largest = max(groups, key=lambda address: (groups[address], address))
        kind = f"{'spot' if is_spot else 'on-demand'} {model}"
        got = f"{total} {kind} GPUs at most in {len(groups)} groups"
        yield Breach(resource=largest, rule=RULE, got=got, expected=f"{granted} or fewer")
