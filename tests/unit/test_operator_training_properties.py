"""What holds whatever happens: random worlds, an executor killed at any moment, strangers under the job's names."""

import copy
from datetime import timedelta

import pytest
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.plan import Object, Plan, is_owned
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from tests.fakes.training_world import PATIENT, SETTINGS, World

COMMON = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
SPECS: list[Object] = [
    {"workers": 1},
    {"workers": 3},
    {"workers": {"min": 2, "max": 4}},
    {"workers": 2, "gpusPerWorker": 4, "restart": {"maxRestarts": 1}},
    {"workers": 2, "restart": {"maxRestarts": 50, "onStall": True}, "activeDeadlineSeconds": 5000},
    {"workers": 3, "restart": {"exitCodes": [{"codes": [7], "action": "Ignore"}]}, "success": {"target": 0.5}},
    {"workers": 2, "restart": {"policy": "Never"}},
]
MOST = 4
EVENTS = (
    "look",
    "look",
    "train",
    "train",
    "train",
    "train",
    "killed",
    "killed",
    "schedule",
    "run",
    "run",
    "exit",
    "evict",
    "delete pod",
    "end deleted",
    "end deleted",
    "pass time",
    "report",
    "silence node",
    "heal nodes",
    "break gpu",
    "stranger",
    "resize",
    "suspend",
    "resume",
    "quota",
    "no quota",
    "edit pod",
    "admit",
    "forget status",
)
CAPABILITIES = [Capabilities(), Capabilities(pod_group=True), Capabilities(kueue=True)]


class Fate:
    """Draws what happens next, and checks after each plan what must always hold."""

    def __init__(self, data: DataObject, spec: Object) -> None:
        self.data = data
        self.world = World(data.draw(st.sampled_from([SETTINGS, PATIENT])), **spec, queue="team-queue")
        self.world.capabilities = data.draw(st.sampled_from(CAPABILITIES))
        if self.world.capabilities.kueue:
            self.world.gates = [{"name": "kueue.x-k8s.io/admission"}]
        self.strangers: dict[tuple[str, str], Object] = {}
        self.highest = 0
        self.step = 0

    def happen(self, event: str) -> None:
        world = self.world
        pods = list(world.pods)
        if event == "look":
            self.carry_out(world.plan(), None)
        elif event == "killed":
            self.carry_out(world.plan(), self.data.draw(st.lists(st.booleans(), min_size=12, max_size=12)))
        elif event == "admit":
            self.admit()
        elif event == "forget status":
            world.parent["status"] = {} if world.parent is not None else None
            self.highest = 0
        elif event == "train":
            self.train()
        elif event == "end deleted":
            world.end_deleted()
        elif event == "pass time":
            world.pass_time(self.data.draw(st.sampled_from([0.2, 6.0, 70.0, 700.0])))
        elif event == "silence node":
            world.silence_node("node-a")
        elif event == "break gpu":
            world.break_gpu("node-b")
        elif event == "heal nodes":
            for name in list(world.nodes):
                world.add_node(name)
        elif event == "stranger":
            self.add_stranger()
        elif event == "resize":
            workers = st.one_of(st.integers(1, MOST), st.just({"min": 1, "max": MOST}), st.just({"min": 2, "max": 3}))
            world.edit(workers=None)
            world.edit(workers=self.data.draw(workers))
        elif event in ("suspend", "resume"):
            world.edit(suspend=event == "suspend")
        elif event in ("quota", "no quota"):
            words = "exceeded quota: pods" if event == "quota" else None
            world.refuses = lambda child: words if child["kind"] == "Pod" else None
        elif event == "report":
            self.step += self.data.draw(st.integers(0, 50))
            resumed = self.data.draw(st.none() | st.integers(0, self.step))
            world.report(self.step, checkpoint_step=self.step // 10 * 10, resumed_from_step=resumed, loss=1.0)
        elif pods:
            self.happen_to_pod(event, self.data.draw(st.sampled_from(pods)))

    def admit(self) -> None:
        for pod in self.world.pods.values():
            pod["spec"].pop("schedulingGates", None)

    def train(self) -> None:
        """So far as the world lets it, the job comes to run."""
        plan = self.looks()
        self.admit()
        if plan.again_in is not None and plan.again_in < timedelta(seconds=120):
            self.world.pass_time(plan.again_in.total_seconds())
            self.looks()
        for name in self.world.pods:
            self.happen_to_pod("run", name)
        self.looks()

    def happen_to_pod(self, event: str, name: str) -> None:
        world = self.world
        pod = world.pods[name]
        attempt, rank = (int(part[1:]) for part in name.split("-")[1:])
        if attempt != world.status.get("attempt") and event != "delete pod":
            return
        phase = pod["status"]["phase"]
        if "schedulingGates" in pod["spec"] and event in ("schedule", "run"):
            return
        if event == "schedule" and phase == "Pending":
            world.schedule(rank)
        elif event == "run" and "deletionTimestamp" not in pod["metadata"]:
            world.run(rank)
        elif event == "exit" and phase == "Running":
            world.exit(rank, self.data.draw(st.sampled_from([0, 0, 0, 1, 1, 2, 7, 137])))
        elif event == "evict" and phase != "Succeeded":
            world.evict(rank)
        elif event == "delete pod":
            world.delete_child(("Pod", name))
        elif event == "edit pod":
            pod["metadata"]["annotations"] = {}

    def add_stranger(self) -> None:
        attempt = self.world.status.get("attempt", 0)
        names = st.sampled_from(
            [("Pod", f"digits-a{attempt + 1}-w0"), ("Pod", f"digits-a{attempt}-w1"), ("Service", "digits")]
        )
        kind, name = self.data.draw(names)
        if (kind, name) not in self.world.children:
            owner = self.data.draw(st.sampled_from([None, "uid-of-another"]))
            self.world.add_stranger(kind, name, owner, labelled=self.data.draw(st.booleans()))
            self.strangers[kind, name] = copy.deepcopy(self.world.children[kind, name])

    def carry_out(self, plan: Plan, survivors: list[bool] | None) -> None:
        world = self.world
        assert world.parent is not None
        attempt = world.status.get("attempt", 0)
        touched = [*(patch.target for patch in plan.patches), *(delete.target for delete in plan.deletes)]
        assert all(is_owned(target, world.parent) for target in touched)
        raised = plan.status is not None and plan.status["attempt"] > attempt
        made = [child for child in plan.creates if child["kind"] == "Pod"]
        if made:
            environment = world.children["ConfigMap", "digits-env"]
            assert environment.get("data", {}) == world.status.get("environment", {})
            assert is_owned(world.children["Service", "digits"], world.parent)
            assert all(child["metadata"]["name"].startswith(f"digits-a{attempt}-") for child in made)
        if raised:
            assert not made, "pods before the fence is saved"
            assert "Pod" not in [delete.target["kind"] for delete in plan.deletes], (
                "nothing of the old attempt is touched before the new one is saved"
            )
        if survivors is None:
            world.apply(plan)
        else:
            world.apply(plan, lambda index: survivors[index % 11], status=survivors[11])
        self.check()

    def check(self) -> None:
        world = self.world
        if world.parent is None:
            return
        attempts = {name.split("-")[1] for name in world.pods}
        assert len(attempts) <= 1, f"pods of several attempts at once: {sorted(world.pods)}"
        assert len(world.pods) <= MOST
        assert world.status.get("attempt", 0) >= self.highest
        self.highest = world.status.get("attempt", 0)
        for key, stranger in self.strangers.items():
            assert world.children[key] == stranger

    def quiet(self) -> None:
        """Nothing goes wrong any more."""
        world = self.world
        world.refuses = lambda child: None
        for key in self.strangers:
            del world.children[key]
        self.strangers.clear()
        for name in list(world.nodes):
            world.add_node(name)
        if world.parent is not None and world.parent["spec"].get("suspend"):
            world.edit(suspend=False)

    def looks(self, limit: int = 40) -> Plan:
        """Looks until nothing changes any more."""
        for _ in range(limit):
            before = copy.deepcopy((self.world.parent, self.world.children, self.world.problems))
            plan = self.world.plan()
            self.carry_out(plan, None)
            if (self.world.parent, self.world.children, self.world.problems) == before:
                return plan
        raise AssertionError(f"not settled: {plan}")


def live_on(fate: Fate, *, finish: bool) -> None:
    """A benign world from here on: pods run, what is deleted ends, time passes; until the job trains or is over."""
    world = fate.world
    for _ in range(60):
        plan = fate.looks()
        if world.parent is None or world.phase in ("Succeeded", "Failed"):
            return
        trains = world.phase == "Running" and (world.condition("Running") or ("",))[0] == "True"
        if trains and not plan.creates and not finish:
            return
        world.end_deleted()
        fate.admit()
        for name, pod in world.pods.items():
            if pod["status"]["phase"] in ("Pending", "Running") and name.startswith(
                f"digits-a{world.status['attempt']}-"
            ):
                rank = int(name.rpartition("w")[2])
                world.run(rank)
                if finish and world.phase == "Running":
                    world.exit(rank)
        if fate.world.plan() == plan and plan.again_in is not None:
            world.pass_time(plan.again_in.total_seconds() + 0.001)
    raise AssertionError(f"neither running nor over: {world.status}")


@given(data=st.data(), spec=st.sampled_from(SPECS), events=st.lists(st.sampled_from(EVENTS), max_size=60))
@COMMON
def test_whatever_happens_the_invariants_hold_and_the_job_ends_in_a_quiet_world(
    data: DataObject, spec: Object, events: list[str]
) -> None:
    fate = Fate(data, spec)
    for event in events:
        fate.happen(event)
        fate.check()
    fate.quiet()
    live_on(fate, finish=True)
    assert fate.world.phase in ("Succeeded", "Failed")


@given(data=st.data(), spec=st.sampled_from(SPECS), events=st.lists(st.sampled_from(EVENTS), max_size=40))
@COMMON
def test_a_look_at_its_own_result_changes_nothing(data: DataObject, spec: Object, events: list[str]) -> None:
    fate = Fate(data, spec)
    for event in events:
        fate.happen(event)
    fate.looks()
    again = fate.world.plan()
    assert again == fate.world.plan(), "the same look twice, two answers"
    assert (again.creates, again.patches, again.deletes) == ((), (), ())
    assert again.status == fate.world.status
    assert again.notes == ()
    assert again.metrics == ()
    assert again.again_in is None or again.again_in > timedelta(0)


@given(data=st.data(), events=st.lists(st.sampled_from(EVENTS), max_size=40))
@COMMON
def test_a_deleted_job_leaves_nothing_but_strangers(data: DataObject, events: list[str]) -> None:
    fate = Fate(data, {"workers": 3})
    for event in events:
        fate.happen(event)
    fate.world.delete_job()
    for _ in range(20):
        if fate.world.parent is None:
            break
        fate.carry_out(fate.world.plan(), None)
        fate.world.end_deleted()
    assert fate.world.parent is None
    assert fate.world.children == fate.strangers


@given(
    kills=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=40),
    data=st.data(),
)
@COMMON
def test_an_executor_killed_between_any_two_writes_does_no_harm(kills: list[list[bool]], data: DataObject) -> None:
    fate = Fate(data, {"workers": 3})
    fate.looks()
    fate.admit()
    fate.world.run()
    fate.looks()
    fate.world.exit(1, 1)
    for survivors in kills:
        fate.carry_out(fate.world.plan(), survivors)
        fate.world.end_deleted()
        fate.world.pass_time(1)
    live_on(fate, finish=False)
    assert fate.world.phase == "Running"
    assert fate.world.status["attempt"] == 2, "one failure, one new attempt, however often the operator died"
    assert fate.world.status["failures"] == 1
    assert len(fate.world.status["restarts"]) == 1


@given(
    losses=st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 100), st.sampled_from([1, 20, 300]), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
@COMMON
def test_lost_steps_and_seconds_add_up(losses: list[tuple[int, int, int, bool]]) -> None:
    world = World(workers=2, restart={"maxRestarts": 50}).started()
    step, steps, waited, failed_at = 0, 0, 0.0, None
    for trained, back, seconds, silent in losses:
        world.pass_time(seconds)
        if not (silent and failed_at is not None):
            resumed = max(0, step - back)
            if failed_at is not None:
                steps, waited = steps + step - resumed, waited + world.now - failed_at
            step = (resumed if failed_at is not None else step) + trained
            world.report(step, resumed_from_step=resumed, checkpoint_step=resumed)
            world.settle()
            failed_at = None
        world.pass_time(2)
        world.exit(1, 1)
        failed_at = failed_at or world.now
        world.next_attempt()
    settled = [restart for restart in world.status["restarts"] if "lostSeconds" in restart]
    assert sum(restart["lostSteps"] for restart in settled) == steps
    assert sum(restart["lostSeconds"] for restart in settled) == pytest.approx(waited, abs=0.01)
    assert world.counted("flightpath_operator_lost_steps_total") == steps
    assert world.counted("flightpath_operator_lost_seconds_total") == pytest.approx(waited, abs=0.01)
