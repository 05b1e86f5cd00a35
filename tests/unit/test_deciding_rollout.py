"""What a rollout does next: example by example, and its two promises under anything that may be observed."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.counters import Counters, Snapshot
from serving.regions.deciding.canary_decision import open_window, weights_in_force
from serving.regions.deciding.evidence import added
from serving.regions.deciding.gates import FAILED, INCONCLUSIVE, PASSED, GateResult, judge_golden
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_decision import decide, finish_golden, finish_replication
from serving.regions.deciding.rollout_document import read_rollout
from serving.regions.deciding.rollout_revert import fail_replication, overrule, request_revert, weights_restored
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    LIVE,
    ROLLED_BACK,
    SHADOW,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    close,
    same_phase,
)
from serving.regions.registry.registry import LiveModel
from serving.releases import Release, RuntimeSpec
from tests.fakes.counted import BOUNDS_MS, counters

OLD, NEW, REGION = "rel-1", "rel-2", "here"
POLICY = PromotionPolicy(
    min_requests=10,
    bake_s=0.0,
    required_gates=[],
    synthetic_evidence=True,
    synthetic_after_s=1.0,
    drain_s=5.0,
    standby_s=0.0,
    start_timeout_s=60.0,
    watch_s=0.0,
)
"""Steps that pass on requests alone: what evidence decides is tested by itself."""


def make_rollout(policy: PromotionPolicy = POLICY) -> Rollout:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    release = Release(id=NEW, model="m", bundle_digest="sha256:" + "0" * 64, store_uri="memory://s", runtime=runtime)
    return Rollout(id="p", region=REGION, release=release, version=2, policy=policy)


@dataclass
class World:
    """A region in memory: servers, weights and counters, changed only by what a rollout asks for."""

    rollout: Rollout
    live: LiveModel | None
    servers: dict[str, Server]
    weights: dict[str, int] = field(default_factory=dict)
    stats: Snapshot = field(default_factory=lambda: Snapshot(boot_id="b", bounds_ms=BOUNDS_MS))
    golden: list[GateResult] = field(default_factory=list)
    gateway_up: bool = True
    replication_fails: bool = False
    meanwhile: str = "nothing"
    """What happens while the next effect is under way, before its outcome is known."""
    now: float = 0.0
    history: list[str] = field(default_factory=list)

    def observe(self) -> Observation:
        return Observation(
            candidate=self.servers.get(NEW, Server.ABSENT),
            candidate_note="exited with 1",
            previous=self.servers.get(self.rollout.previous or "", Server.ABSENT),
            live=self.live,
            live_version=1,
            stats=self.stats if self.gateway_up else None,
            recent=self.stats if self.gateway_up else None,
        )

    def step(self) -> None:
        """One decision, carried out."""
        self.now += 0.5
        # Whatever is in memory between two steps can be lost: only the document is carried on.
        self.rollout = read_rollout(self.rollout.to_json())
        action = decide(self.rollout, self.observe(), self.now)
        if isinstance(action, Save):
            self._save(action)
        else:
            self._do(action)

    def _save(self, save: Save) -> None:
        self.rollout = save.rollout
        self.live = save.live or self.live
        self.history.append(save.message)

    def _do(self, do: Do) -> None:
        self.history.append(do.effect)
        if do.effect in (Effect.SHIFT_WEIGHTS, Effect.RESTORE_WEIGHTS) and not self.gateway_up:
            return
        decided_on = self.rollout
        self._act(do.effect)
        disturb(self, self.meanwhile)
        if same_phase(decided_on, self.rollout):
            self._conclude(do.effect)

    def _act(self, effect: Effect) -> None:
        if effect in (Effect.LAUNCH, Effect.LAUNCH_PREVIOUS):
            self.servers[NEW if effect is Effect.LAUNCH else OLD] = Server.STARTING
        elif effect in (Effect.SHIFT_WEIGHTS, Effect.RESTORE_WEIGHTS):
            self._route()
        elif effect in (Effect.STOP_CANDIDATE, Effect.STOP_PREVIOUS):
            self._stop(NEW if effect is Effect.STOP_CANDIDATE else self.rollout.previous)

    def _conclude(self, effect: Effect) -> None:
        if effect is Effect.REPLICATE:
            if self.replication_fails:
                self._save(fail_replication(self.rollout, "corrupt", self.now))
            else:
                self.rollout = finish_replication(self.rollout, self.now)
        elif effect is Effect.CHECK_GOLDEN:
            self._save(finish_golden(self.rollout, self.golden, self.observe(), self.now))
        elif effect is Effect.SHIFT_WEIGHTS:
            self.rollout = weights_in_force(self.rollout, self.stats, self.now)
        elif effect is Effect.RESTORE_WEIGHTS:
            self.rollout = weights_restored(self.rollout, self.now)
        elif effect in (Effect.STOP_CANDIDATE, Effect.STOP_PREVIOUS):
            self.rollout = replace(self.rollout, settled=True)

    def _route(self) -> None:
        """What plan_route does with the same facts."""
        percent, live = self.rollout.candidate_percent, self.live.release_id if self.live else None
        self.weights = {} if live is None else {live: 100 - (percent or 0)}
        if percent is not None:
            self.weights[NEW] = percent

    def _stop(self, name: str | None) -> None:
        if name is None or self.servers.pop(name, None) is None:
            return
        assert name not in self.weights, f"{name} is stopped while it is routed: {self.weights}"
        if name == OLD:
            assert self.passed_all_steps(), "the old server is stopped before the 100 % step passed"

    def passed_all_steps(self) -> bool:
        last = [step for step in self.rollout.steps if step.state == CANARY and step.percent == 100]
        return bool(last) and last[-1].finished_at is not None and all(g.status != FAILED for g in last[-1].gates)

    def count(self, requests: int, errors: int, live: int = 95) -> None:
        """Users whom the candidate and, while it is routed, the live version answered."""
        grown = {NEW: counters(answered=requests - errors, failed=errors)}
        if self.weights.get(OLD):
            grown[OLD] = counters(answered=live)
        backends = dict(self.stats.backends)
        for name, more in grown.items():
            backends[f"{name}@{REGION}"] = added(self.stats.of(f"{name}@{REGION}"), more)
        self.stats = replace(self.stats, backends={f"{OLD}@{REGION}": Counters(bounds_ms=BOUNDS_MS), **backends})


def make_world(**changes: object) -> World:
    live = LiveModel(model="m", release_id=OLD, previous_release_id=None, reason=None)
    world = World(rollout=make_rollout(), live=live, servers={OLD: Server.READY}, weights={OLD: 100})
    return replace(world, **changes) if changes else world  # type: ignore[arg-type]


def run(world: World, *, errors: int = 0, steps: int = 400) -> World:
    """Let servers become ready and requests come in, until the rollout is settled."""
    for _ in range(steps):
        if world.rollout.settled:
            return world
        world.step()
        for name, state in world.servers.items():
            if state is Server.STARTING:
                world.servers[name] = Server.READY
        if NEW in world.weights:
            world.count(5, errors)
    raise AssertionError(f"not settled: {world.rollout}")


def test_a_good_release_goes_live_and_the_old_server_stops_last() -> None:
    world = run(make_world())
    assert (world.rollout.state, world.live and world.live.release_id) == (LIVE, NEW)
    assert world.servers == {NEW: Server.READY}
    assert [m for m in world.history if m.startswith("canary")] == [
        "canary 5 %",
        "canary 25 %",
        "canary 50 %",
        "canary 100 %",
    ]
    assert world.history.index("live") < world.history.index(Effect.STOP_PREVIOUS)
    assert world.live == LiveModel(model="m", release_id=NEW, previous_release_id=OLD, reason=None)


def test_a_held_rollout_starts_its_server_and_waits_for_its_turn() -> None:
    world = make_world(rollout=replace(make_rollout(), held=True))
    for _ in range(200):
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    assert world.servers == {OLD: Server.READY, NEW: Server.READY}
    assert (world.rollout.state, world.weights) == ("starting", {OLD: 100})
    world.rollout = replace(world.rollout, held=False)
    assert run(world).rollout.state == LIVE


def test_a_held_rollout_whose_server_ends_is_rolled_back() -> None:
    world = make_world(rollout=replace(make_rollout(), held=True))
    while NEW not in world.servers:
        world.step()
    world.servers[NEW] = Server.FAILED
    assert run(world).rollout.state == ROLLED_BACK


def test_errors_put_the_old_weights_back_before_the_candidate_stops() -> None:
    world = run(make_world(), errors=5)
    assert world.rollout.state == ROLLED_BACK
    assert world.weights == {OLD: 100}
    assert world.servers == {OLD: Server.READY}
    assert world.history.index(Effect.RESTORE_WEIGHTS) < world.history.index(Effect.STOP_CANDIDATE)
    assert world.rollout.reason is not None
    assert world.rollout.reason.startswith(
        "here, canary 5 %: gate errors failed: measured 1, allowed at most 0.01 points"
    )


def test_a_bad_golden_set_rolls_back_without_any_traffic() -> None:
    golden = judge_golden(correct=1, agreed=1, samples=10, reference_accuracy=1.0, how="argmax", policy=POLICY)
    world = run(make_world(golden=golden))
    assert world.rollout.state == ROLLED_BACK
    assert Effect.SHIFT_WEIGHTS not in world.history
    assert world.weights == {OLD: 100}


def test_a_bundle_that_cannot_be_had_rolls_back() -> None:
    world = run(make_world(replication_fails=True))
    assert (world.rollout.state, world.rollout.reason) == (ROLLED_BACK, "here, replicating: corrupt")


def test_a_first_release_gets_all_traffic_in_one_step_and_leaves_nothing_when_it_fails() -> None:
    world = run(make_world(live=None, servers={}, weights={}))
    assert [m for m in world.history if m.startswith("canary")] == ["canary 100 %"]
    failed = run(make_world(live=None, servers={}, weights={}), errors=5)
    assert failed.weights == {}
    assert failed.live is not None
    assert (failed.live.release_id, failed.live.reason) == (None, failed.rollout.reason)


def test_a_first_release_here_shares_with_the_region_that_has_it() -> None:
    rollout = replace(make_rollout(), state="golden")
    seen = Observation(candidate=Server.READY, served_elsewhere=True)
    assert finish_golden(rollout, [], seen, 1.0).rollout.plan == POLICY.steps_percent


def test_a_release_that_is_live_already_needs_no_server() -> None:
    live = LiveModel(model="m", release_id=NEW, previous_release_id=OLD, reason=None)
    world = make_world(live=live, servers={NEW: Server.READY}, weights={NEW: 100})
    world.step()
    assert (world.rollout.state, world.rollout.changed, world.rollout.settled) == (LIVE, False, True)
    assert world.servers == {NEW: Server.READY}


def test_a_crash_in_the_canary_rolls_back() -> None:
    world = make_world()
    while world.rollout.state != CANARY or world.rollout.baseline is None:
        world.step()
        if world.servers.get(NEW) is Server.STARTING:
            world.servers[NEW] = Server.READY
    world.servers[NEW] = Server.FAILED
    run(world)
    assert world.rollout.state == ROLLED_BACK
    assert "the candidate's server ended: exited with 1" in (world.rollout.reason or "")


def starved(word: str) -> World:
    """Nobody sends a request until the time of a step of 20 s is long over."""
    policy = replace(POLICY, step_timeout_s=20.0, on_inconclusive=word)
    world = make_world(rollout=make_rollout(policy))
    for _ in range(300):
        world.step()
        if world.servers.get(NEW) is Server.STARTING:
            world.servers[NEW] = Server.READY
        if world.rollout.settled:
            break
    return world


def test_too_few_requests_are_inconclusive_and_the_policy_has_the_word() -> None:
    back = starved("back")
    assert back.rollout.state == ROLLED_BACK
    assert back.rollout.reason == "here, canary 5 %: 0 of 10 requests within 20 s, and the policy says back"
    held = starved("hold")
    assert (held.rollout.state, held.rollout.percent, held.rollout.waiting_for) == (CANARY, 5, "0 of 10 requests")
    assert held.history.count("holding: 0 of 10 requests; more evidence, promote or abort") == 1
    gone = starved("go")
    assert gone.rollout.state == LIVE
    verdicts = [gate for step in gone.rollout.steps for gate in step.gates if gate.gate == "verdict"]
    assert [gate.status for gate in verdicts] == [INCONCLUSIVE] * 4


def test_what_was_held_goes_on_when_the_evidence_comes() -> None:
    world = starved("hold")
    assert run(world).rollout.state == LIVE


def test_a_step_bakes_however_many_requests_there_are() -> None:
    world = run(make_world(rollout=make_rollout(replace(POLICY, bake_s=10.0))))
    canary = [step for step in world.rollout.steps if step.state == CANARY]
    assert all((step.finished_at or 0.0) - step.started_at >= 10.0 for step in canary)
    assert all((step.finished_at or 0.0) - step.started_at <= 11.0 for step in canary)


def test_the_verdict_is_due_before_the_live_version_loses_its_last_traffic() -> None:
    policy = replace(POLICY, required_gates=["errors"], step_timeout_s=30.0, bake_s=0.0, on_inconclusive="back")
    world = run(make_world(rollout=make_rollout(policy)))
    assert world.rollout.state == ROLLED_BACK
    assert world.rollout.reason == "here, canary 50 %: no verdict on errors within 30 s, and the policy says back"
    enough = run(make_world(rollout=make_rollout(replace(policy, error_margin=0.5))))
    assert enough.rollout.state == LIVE


def test_a_plan_without_a_control_is_judged_by_what_was_recorded_before() -> None:
    policy = replace(POLICY, steps_percent=[100], required_gates=["errors"], error_margin=0.5)
    world = make_world(rollout=make_rollout(policy))
    world.step()
    assert world.rollout.opening is not None
    world.stats = replace(world.stats, backends={f"{OLD}@{REGION}": counters(answered=500)})
    run(world)
    assert world.rollout.state == LIVE
    assert world.rollout.recorded is not None
    assert world.rollout.recorded.users.answered == 500


def test_a_gateway_that_was_silent_when_the_rollout_began_costs_neither_control_nor_watch() -> None:
    """Both versions answer within 500 ms: more than a first release may take, but that bound is not theirs."""
    world = make_world(rollout=make_rollout(replace(POLICY, watch_s=60.0)), gateway_up=False)
    world.step()
    world.gateway_up = True
    assert (world.rollout.state, world.rollout.opening) == ("replicating", None)
    slow = counters(answered=1000, latency_ms=500.0)
    world.stats = replace(world.stats, backends={f"{OLD}@{REGION}": slow, f"{NEW}@{REGION}": Counters()})
    for _ in range(200):
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
        if NEW in world.weights and not world.rollout.watching:
            grown = {name: added(world.stats.of(f"{name}@{REGION}"), slow) for name in world.weights}
            world.stats = replace(
                world.stats, backends={**world.stats.backends, **{f"{n}@{REGION}": c for n, c in grown.items()}}
            )
    assert (world.rollout.state, world.rollout.reason) == (LIVE, None)
    assert "watch" in [step.state for step in world.rollout.steps]


def test_a_rollout_of_other_latency_buckets_is_read_and_compared_with_nothing() -> None:
    recorded = replace(counters(answered=5), users=replace(counters(answered=5).users, latencies=(5,)))
    document = replace(make_rollout(), recorded=recorded).to_json()
    assert read_rollout(document).recorded is None


def test_a_paused_rollout_stays_and_a_failing_gate_counts_all_the_same() -> None:
    world = make_world()
    while world.rollout.state != CANARY or world.rollout.baseline is None:
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    world.rollout = replace(world.rollout, paused=True)
    for _ in range(100):
        world.step()
        world.count(5, 0)
    assert (world.rollout.state, world.rollout.percent) == (CANARY, 5)
    failing = replace(world, rollout=world.rollout, servers=dict(world.servers), weights=dict(world.weights))
    assert run(failing, errors=5).rollout.state == ROLLED_BACK
    world.rollout = replace(world.rollout, paused=False)
    assert run(world).rollout.state == LIVE


def test_a_paused_rollout_does_not_begin_its_canary() -> None:
    world = make_world(rollout=replace(make_rollout(), paused=True))
    for _ in range(50):
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    assert (world.rollout.state, world.weights) == ("golden", {OLD: 100})


def test_a_person_promotes_without_more_evidence_but_not_against_a_failing_gate() -> None:
    world = make_world(rollout=replace(make_rollout(replace(POLICY, bake_s=9.0)), promoted_by="operator"))
    for _ in range(60):
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    assert world.rollout.state == LIVE
    bad = make_world(rollout=replace(make_rollout(), promoted_by="operator"))
    while bad.rollout.percent != 5 or bad.rollout.baseline is None:
        bad.step()
        bad.servers = {name: Server.READY for name in bad.servers}
    bad.count(20, 20)
    bad.step()
    assert bad.rollout.ending == ROLLED_BACK


def test_a_pause_that_comes_while_the_golden_set_is_checked_keeps_the_weights() -> None:
    world = make_world()
    while world.rollout.state != "golden":
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    paused = replace(world.rollout, paused=True)
    assert finish_golden(paused, [], world.observe(), world.now).rollout == paused
    assert finish_golden(world.rollout, [], world.observe(), world.now).rollout.state == CANARY


def test_a_request_that_hangs_over_several_steps_counts_once() -> None:
    world = make_world()
    while world.rollout.percent != 50 or world.rollout.baseline is None:
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
        if NEW in world.weights:
            world.count(20, 0)
            hanging = replace(world.stats.of(f"{NEW}@{REGION}"), in_flight=2, overdue=2)
            world.stats = replace(world.stats, backends={**world.stats.backends, f"{NEW}@{REGION}": hanging})
    assert [window.candidate.overdue for window in world.rollout.evidence] == [0, 0]
    assert open_window(world.rollout, world.stats).candidate.overdue == 2


def test_a_pause_that_comes_after_a_persons_word_is_the_last_word() -> None:
    world = make_world(rollout=make_rollout(replace(POLICY, steps_percent=[5, 100])))
    while world.rollout.state != CANARY:
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    world.rollout = replace(world.rollout, promoted_by="operator for ann", paused=True)
    for _ in range(50):
        world.step()
    assert (world.rollout.state, world.rollout.percent) == (CANARY, 5)
    world.rollout = replace(world.rollout, paused=False)
    assert run(world).rollout.state == LIVE


def shadowed(policy: PromotionPolicy) -> World:
    world = make_world(rollout=make_rollout(policy))
    while world.rollout.state != SHADOW or world.rollout.baseline is None:
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
    return world


def test_a_shadow_answers_no_user_and_ends_after_its_time_with_enough_compared() -> None:
    policy = replace(POLICY, shadow_s=20.0, step_timeout_s=60.0)
    world = shadowed(policy)
    assert world.weights == {OLD: 100, NEW: 0}
    began = world.now
    compared = counters(answered=0, compared=100, agreed=100.0)
    world.stats = replace(world.stats, backends={f"{NEW}@{REGION}": compared})
    while world.rollout.state == SHADOW:
        world.step()
    assert 20.0 <= world.now - began <= 22.0
    assert world.rollout.evidence[0].candidate.compared == 100
    assert run(world).rollout.state == LIVE


def test_a_shadow_that_differs_is_rolled_back_before_any_user_met_it() -> None:
    world = shadowed(replace(POLICY, shadow_s=20.0))
    different = counters(answered=0, compared=200, agreed=100.0)
    world.stats = replace(world.stats, backends={f"{NEW}@{REGION}": different})
    run(world)
    assert (world.rollout.state, world.weights) == (ROLLED_BACK, {OLD: 100})
    assert "gate agreement failed" in (world.rollout.reason or "")


def test_a_shadow_that_sees_nobody_is_inconclusive() -> None:
    world = shadowed(replace(POLICY, shadow_s=5.0, step_timeout_s=10.0, on_inconclusive="back"))
    for _ in range(60):
        world.step()
    assert world.rollout.reason == (
        "here, shadow: 0 of 10 requests compared in the shadow within 10 s, and the policy says back"
    )


def watched() -> World:
    world = make_world(rollout=make_rollout(replace(POLICY, watch_s=60.0)))
    for _ in range(400):
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
        if world.rollout.watching:
            return world
        if NEW in world.weights:
            world.count(20, 0)
    raise AssertionError(world.rollout)


def test_a_live_version_is_watched_and_then_settled() -> None:
    world = watched()
    assert (world.rollout.state, world.weights, world.servers[OLD]) == (LIVE, {NEW: 100}, Server.READY)
    began = world.now
    run(world)
    assert 60.0 <= world.now - began <= 63.0
    assert (world.rollout.state, world.rollout.steps[-1].state) == (LIVE, "watch")
    assert {gate.status for gate in world.rollout.steps[-1].gates} <= {PASSED, INCONCLUSIVE}


def test_a_live_version_that_turns_bad_while_it_is_watched_goes_back_by_itself() -> None:
    world = run(watched(), errors=5)
    assert (world.rollout.state, world.weights, world.servers) == (ROLLED_BACK, {OLD: 100}, {OLD: Server.READY})
    assert (world.rollout.reason or "").startswith("here, after it went live: gate errors failed")
    assert Effect.LAUNCH_PREVIOUS not in world.history


def test_another_promotion_ends_the_watch() -> None:
    world = watched()
    seen = replace(world.observe(), superseded=True)
    assert decide(world.rollout, seen, world.now) == Save(
        rollout=close(world.rollout, [], world.now), message="the watch is over"
    )


def test_a_promotion_does_not_begin_while_the_live_version_is_in_trouble() -> None:
    world = make_world()
    world.stats = replace(world.stats, backends={f"{OLD}@{REGION}": counters(answered=150, failed=50)})
    run(world)
    assert (world.rollout.state, world.weights) == (ROLLED_BACK, {OLD: 100})
    assert "gate error budget failed: measured 0.25, allowed at least 0.05 share" not in (world.rollout.reason or "")
    assert "gate error budget failed: measured 0.25, allowed at most 0.05 share" in (world.rollout.reason or "")
    remedy = make_world(rollout=make_rollout(replace(POLICY, error_budget=1.0)), stats=world.stats)
    assert run(remedy).rollout.state == LIVE


def test_a_small_share_asks_for_as_many_more_replayed_requests() -> None:
    checked = replace(make_rollout(), state="golden", previous=OLD)
    begun = finish_golden(checked, [], Observation(candidate=Server.READY), 0.0).rollout
    counted = Snapshot(boot_id="b", bounds_ms=BOUNDS_MS)
    rollout = weights_in_force(begun, counted, 0.0)
    seen = Observation(candidate=Server.READY, stats=counted)
    assert decide(rollout, seen, 0.5) == Do(effect=Effect.WAIT)
    assert decide(rollout, seen, 1.0) == Do(effect=Effect.REPLAY, requests=200)


def test_a_revert_brings_the_old_server_back_before_it_gets_the_weights() -> None:
    world = run(make_world())
    world.rollout = request_revert(world.rollout, world.live, "eu-west failed", world.now)
    run(world)
    assert world.rollout.state == ROLLED_BACK
    assert (world.weights, world.servers) == ({OLD: 100}, {OLD: Server.READY})
    back = world.history[world.history.index(Effect.LAUNCH_PREVIOUS) :]
    assert [h for h in back if h in tuple(Effect) and h != Effect.WAIT] == [
        Effect.LAUNCH_PREVIOUS,
        Effect.RESTORE_WEIGHTS,
        Effect.STOP_CANDIDATE,
    ]
    assert request_revert(world.rollout, world.live, "again", world.now) == world.rollout


def test_a_revert_that_comes_while_the_old_server_is_being_stopped_is_carried_out() -> None:
    world = make_world()
    while Effect.STOP_PREVIOUS not in world.history:
        world.meanwhile = (
            "revert" if world.rollout.weights_at is not None and world.rollout.state == LIVE else "nothing"
        )
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
        if NEW in world.weights:
            world.count(5, 0)
    world.meanwhile = "nothing"
    run(world)
    assert (world.rollout.state, world.weights, world.servers) == (ROLLED_BACK, {OLD: 100}, {OLD: Server.READY})


def test_a_revert_keeps_the_new_version_when_the_old_one_does_not_start() -> None:
    world = run(make_world())
    world.rollout = request_revert(world.rollout, world.live, "eu-west failed", world.now)
    while not world.rollout.settled:
        world.servers[OLD] = Server.FAILED
        world.step()
    assert (world.rollout.state, world.rollout.settled) == (LIVE, True)
    assert Effect.LAUNCH_PREVIOUS in world.history
    assert "did not start again" in (world.rollout.revert_failure or "")
    assert world.weights == {NEW: 100}


disturbances = st.lists(
    st.tuples(
        st.sampled_from(["nothing", "crash", "gateway", "abort", "revert", "reboot", "ready"]),
        st.integers(0, 20),
        st.integers(0, 3),
        st.sampled_from(["nothing", "nothing", "abort", "revert"]),
    ),
    max_size=80,
)


def disturb(world: World, kind: str) -> None:
    rollout = world.rollout
    if kind == "crash" and NEW in world.servers and rollout.state != LIVE:
        world.servers[NEW] = Server.FAILED
    elif kind == "gateway":
        world.gateway_up = not world.gateway_up
    elif kind == "reboot":
        world.stats = Snapshot(boot_id=f"boot-{world.now}", bounds_ms=BOUNDS_MS)
    elif kind == "abort" and not rollout.settled:
        world.rollout = replace(rollout, abort=rollout.abort or "enough")
    elif kind == "revert":
        world.rollout = request_revert(rollout, world.live, "taken back", world.now)
    elif kind == "ready":
        world.servers = {n: Server.READY if s is Server.STARTING else s for n, s in world.servers.items()}


@settings(max_examples=300, deadline=None)
@given(disturbances=disturbances)
def test_whatever_happens_no_routed_server_is_stopped_and_the_rollout_ends(
    disturbances: list[tuple[str, int, int, str]],
) -> None:
    """World._stop asserts both promises at every stop."""
    world = make_world()
    for kind, requests, errors, world.meanwhile in disturbances:
        disturb(world, kind)
        if not world.rollout.settled:
            world.step()
        if NEW in world.weights:
            world.count(requests, min(requests, errors))
    world.gateway_up, world.meanwhile = True, "nothing"
    run(world)
    rollout, live = world.rollout, world.live.release_id if world.live else None
    assert rollout.state in (LIVE, ROLLED_BACK, ABORTED)
    assert world.weights == {live: 100}
    assert live == (NEW if rollout.state == LIVE else OLD)
    failed = any(gate.status == FAILED for step in rollout.steps for gate in step.gates)
    assert not (failed and rollout.state == LIVE)


def test_gates_that_pass_are_kept_in_the_step() -> None:
    world = run(make_world())
    canary = [step for step in world.rollout.steps if step.state == CANARY]
    assert [[gate.gate for gate in step.gates][:3] for step in canary] == [["requests", "errors", "refusals"]] * 4
    assert [step.gates[0].status for step in canary] == [PASSED] * 4
    assert [window.percent for window in world.rollout.evidence] == [5, 25, 50, 100]
    assert all(step.requests >= 10 for step in canary)


def test_the_old_server_stands_by_and_is_back_at_once() -> None:
    world = run(make_world(rollout=make_rollout(replace(POLICY, standby_s=600.0))))
    assert world.servers == {OLD: Server.READY, NEW: Server.READY}
    assert world.weights == {NEW: 100}
    assert Effect.STOP_PREVIOUS not in world.history
    assert world.live is not None
    assert (world.live.standby, world.live.standby_until) == (OLD, world.now + 600.0)
    world.rollout = request_revert(world.rollout, world.live, "eu-west failed", world.now)
    run(world)
    assert (world.rollout.state, world.weights, world.servers) == (ROLLED_BACK, {OLD: 100}, {OLD: Server.READY})
    assert Effect.LAUNCH_PREVIOUS not in world.history
    assert world.live is not None
    assert world.live.standby is None


def test_a_server_that_has_ended_cannot_stand_by() -> None:
    world = make_world(rollout=make_rollout(replace(POLICY, standby_s=600.0)))
    while world.rollout.state != LIVE:
        world.step()
        world.servers = {name: Server.READY for name in world.servers}
        if NEW in world.weights:
            world.count(5, 0)
    world.servers[OLD] = Server.FAILED
    run(world)
    assert world.live is not None
    assert (world.live.standby, world.servers) == (None, {NEW: Server.READY})


def test_a_rollout_ends_the_standby_of_the_one_before() -> None:
    live = LiveModel(model="m", release_id=OLD, previous_release_id="rel-0", reason=None, standby="rel-0")
    world = make_world(live=live)
    world.step()
    assert world.live == replace(live, standby=None)


def test_a_rollout_that_a_rollback_overrules_is_over_at_once() -> None:
    queued = make_rollout()
    for rollout in (queued, replace(queued, state=CANARY, percent=5), replace(queued, state=LIVE, reverting=True)):
        ended = overrule(rollout, "rollback b", 5.0)
        assert (ended.state in (ABORTED, ROLLED_BACK), ended.settled, ended.candidate_percent) == (True, True, None)
        assert request_revert(ended, None, "late", 6.0) == ended
    live = overrule(replace(queued, state=LIVE), "rollback b", 5.0)
    assert (live.state, live.settled) == (LIVE, True)


def test_a_live_rollout_that_was_replaced_has_nothing_to_take_back() -> None:
    live = LiveModel(model="m", release_id="rel-9", previous_release_id=None, reason=None)
    taken = request_revert(replace(make_rollout(), state=LIVE, settled=True), live, "late", 6.0)
    assert (taken.state, taken.settled) == (ROLLED_BACK, True)
