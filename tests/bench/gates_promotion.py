"""A promotion over three regions as the product decides it: `decide` on rollouts and snapshots, no code of its own.

Simulated are users and time alone. Left out: the watch after the last step, the mirror, the golden set, replays,
baking, and requests under way. A second passes for each of the candidate's requests, so that `step_timeout_s` is the
cap of requests after which a step ends as inconclusive.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from serving.counters import Snapshot
from serving.regions.deciding.canary_decision import weights_in_force
from serving.regions.deciding.evidence import Window
from serving.regions.deciding.gates import failures
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_decision import decide, finish_golden
from serving.regions.deciding.rollout_state import (
    GOLDEN,
    LIVE,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    Step,
    backend_id,
)
from serving.regions.registry.registry import LiveModel
from serving.releases import Release, RuntimeSpec
from tests.bench.gates_traffic import BOUNDS_MS, FIRST_BUCKET, TICK, Counts, Traffic, counters

REGIONS: Final = 3
CAP: Final = 30_000
"""The candidate's requests in one step without a verdict: inconclusive."""
OLD, NEW = "rel-1", "rel-2"
ROLLED_BACK, INCONCLUSIVE, PASSED = "rolled back", "inconclusive", "passed"
_LIVE: Final = LiveModel(model="m", release_id=OLD, previous_release_id=None, reason=None)
_RELEASE: Final = Release(
    id=NEW,
    model="m",
    bundle_digest="sha256:" + "0" * 64,
    store_uri="memory://s",
    runtime=RuntimeSpec(engine="onnxruntime", variant="v"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a promotion ended."""

    outcome: str
    requests: int
    """The candidate's, over all steps and regions."""
    why: str = ""
    """Gates that failed, or what was lacking."""


def next_look(tick: int, before: int) -> int:
    """After every tick of the promotion at first, then with every tenth request more, and at 50 of each step.

    An agent looks five times a second. `before`: ticks of earlier steps and regions.
    """
    until = tick + max(1, math.ceil(0.1 * (before + tick)))
    enough = 50 // TICK
    return enough if tick < enough < until else until


def promote(traffic: Traffic) -> End:
    """Region after region, until a verdict."""
    gates = traffic.scenario.gates
    policy = PromotionPolicy(bake_s=0.0, watch_s=0.0, step_timeout_s=float(CAP), required_gates=gates)
    earlier: list[Window] = []
    spent = 0
    for region in range(REGIONS):
        run = _Region(traffic=traffic, region=region, policy=policy, earlier=earlier, spent=spent)
        outcome, why = run.roll_out()
        spent = run.spent
        if outcome != PASSED:
            return End(outcome=outcome, requests=spent, why=why)
        earlier = run.rollout.windows
    return End(outcome=PASSED, requests=spent)


@dataclass(kw_only=True)
class _Region:
    traffic: Traffic
    region: int
    policy: PromotionPolicy
    earlier: list[Window]
    counted: dict[str, Counts] = field(init=False)
    """By backend, since the gateway's boot."""
    rollout: Rollout = field(init=False)
    now: float = 0.0
    tick: int = 0
    """Of the step."""
    spent: int
    """Requests of the candidate, over the whole promotion."""

    def __post_init__(self) -> None:
        name = f"region-{self.region}"
        self.counted = {
            backend_id(release, name): np.zeros(FIRST_BUCKET + len(BOUNDS_MS) + 1, dtype=np.int64)
            for release in (OLD, NEW)
        }
        begun = Rollout(
            id="p",
            region=name,
            release=_RELEASE,
            version=2,
            policy=self.policy,
            state=GOLDEN,
            steps=[Step(state=GOLDEN, percent=None, started_at=0.0)],
            regions=REGIONS,
            earlier=self.earlier,
            opening=self._stats(),
            previous=OLD,
            previous_version=1,
        )
        self.rollout = finish_golden(begun, [], self._observe(), self.now).rollout

    def roll_out(self) -> tuple[str, str]:
        """Outcome, and why."""
        while self.rollout.state != LIVE:
            action = decide(self.rollout, seen := self._observe(), self.now)
            if isinstance(action, Save):
                self.rollout = action.rollout
                if self.rollout.ending is not None:
                    return ROLLED_BACK, ",".join(gate.gate for gate in failures(self.rollout.steps[-1].gates))
                if self.rollout.waiting_for is not None:
                    return INCONCLUSIVE, self.rollout.waiting_for
            elif action.effect is Effect.SHIFT_WEIGHTS:
                assert seen.stats is not None
                self.rollout, self.tick = weights_in_force(self.rollout, seen.stats, self.now), 0
            else:
                assert action.effect is Effect.WAIT, action
                self._serve()
        return PASSED, ""

    def _serve(self) -> None:
        """Users, until the next look."""
        percent, until = self.rollout.percent, next_look(self.tick, self.spent // TICK - self.tick)
        assert percent is not None
        step = self.traffic.step(self.region, percent)
        old, new = self.counted
        self.counted[new] = self.counted[new] + step.candidate.between(self.tick, until)
        self.counted[old] = self.counted[old] + step.live(self.tick, until)
        self.spent += TICK * (until - self.tick)
        self.now += TICK * (until - self.tick)
        self.tick = until

    def _stats(self) -> Snapshot:
        labelled = self.traffic.scenario.labelled
        backends = {name: counters(counts, labelled=labelled) for name, counts in self.counted.items()}
        return Snapshot(boot_id="b", bounds_ms=BOUNDS_MS, backends=backends)

    def _observe(self) -> Observation:
        return Observation(
            candidate=Server.READY, previous=Server.READY, live=_LIVE, live_version=1, stats=self._stats()
        )
