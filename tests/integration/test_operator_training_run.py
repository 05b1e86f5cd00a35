"""TrainingJobs that really train: operator, torchrun, gloo and checkpoints as processes on the test API server."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.checkpointing import MANIFEST, MODEL
from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.images import Image
from tests.fakes.kubernetes.kubelet import ProcessKubelet
from tests.fakes.operator import PROJECT, OperatorProcess, install_crds, training_job
from tests.fakes.runs import look
from tests.fakes.short_recipe import REFERENCE, STEPS

Object = dict[str, Any]
EVERY = 10
"""Steps between checkpoints."""
LONG = "resnet-digits"
TORCHRUN = ["python", "-m", "torch.distributed.run"]
AGENT = ["python", "-m", "tasks.training.launch.agent"]
IMAGE = Image(
    path=(Path(sys.executable).parent,),
    # All pods have one address, and gloo and torchrun would ask the machine's name for another.
    environment={
        "PYTHONPATH": str(PROJECT),
        "GLOO_SOCKET_IFNAME": "lo",
        "PET_LOCAL_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    server: ApiServer
    kubelet: ProcessKubelet
    operator: OperatorProcess
    run: Path
    """Where the job's checkpoints go."""

    def status(self) -> Object:
        status: Object = self.server.get("trainingjobs", "digits").get("status") or {}
        return status

    def phase(self) -> str:
        return str(self.status().get("phase"))

    def pods(self) -> dict[str, str]:
        """Uids by name."""
        found = self.server.objects("pods", labels={"flightpath.dev/owner": "tj.digits"})
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}

    async def until(self, condition: Callable[[], Any], unwanted: str = "Failed", timeout_s: float = 200.0) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := condition()):
                    assert self.phase() != unwanted, self.story()
                    await asyncio.sleep(0.02)
        except TimeoutError as late:
            raise AssertionError(self.story()) from late
        return found

    def story(self) -> str:
        """What a person would look at."""
        logs = [f"--- {name}\n{self.kubelet.log(name)[-3000:]}" for name in self.pods()]
        return "\n".join([json.dumps(self.status(), indent=1), *logs, self.operator.log[-3000:]])

    def reports(self) -> list[Object]:
        """What rank 0 told, in order."""
        path = self.run / "progress.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def step(self) -> int:
        reports = self.reports()
        return int(reports[-1]["step"]) if reports else 0

    def newest_world(self) -> int:
        """Number of workers that saved the newest checkpoint; 0 before the first."""
        found = look(self.run).newest
        return found.world_size if found else 0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer())
        install_crds(server)
        config = server.kubeconfig(tmp_path / "kubeconfig")
        kubelet = await stack.enter_async_context(ProcessKubelet(config, {"trainer:1": IMAGE}, time_scale=0.1))
        operator = await stack.enter_async_context(OperatorProcess(config, tmp_path / "operator.log"))
        yield Cluster(server=server, kubelet=kubelet, operator=operator, run=tmp_path / "run")
        assert "Traceback" not in operator.log, operator.log


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = ArtifactStore((tmp_path_factory.mktemp("data") / "store").as_uri())
    return prepare(get_recipe(REFERENCE), 1, store).uri


def job(
    cluster: Cluster,
    dataset: str,
    command: list[str],
    *,
    recipe: str = REFERENCE,
    checkpoint: Object | None = None,
    **spec: Any,
) -> Object:
    module = ["-m", "tasks.training.launch.torchrun", "--recipe", recipe, "--dataset", dataset, "--seed", "1"]
    kept = {"uri": cluster.run.as_uri(), "intervalSteps": EVERY, "keep": 3, **(checkpoint or {})}
    return training_job(command=command, args=module, checkpoint=kept, terminationGracePeriodSeconds=5, **spec)


async def test_a_killed_worker_restarts_the_group_which_resumes_and_succeeds(cluster: Cluster, dataset: str) -> None:
    cluster.server.create(job(cluster, dataset, TORCHRUN, workers=2, restart={"backoffSeconds": 0}))
    first = await cluster.until(lambda: (cluster.status().get("progress") or {}).get("step"))
    await cluster.until(lambda: cluster.step() > 2 * EVERY)
    killed_at = time.monotonic()
    cluster.kubelet.kill("digits-a1-w1")
    await cluster.until(lambda: cluster.phase() == "Succeeded")
    since_the_kill = time.monotonic() - killed_at
    status, reports = cluster.status(), cluster.reports()
    before = [report["step"] for report in reports if report["resumed_from_step"] is None]
    resumed_from = reports[-1]["resumed_from_step"]
    (restart,) = status["restarts"]
    assert (restart["cause"], restart["resumedFromStep"]) == ("WorkerFailed", resumed_from)
    assert 2 * EVERY <= resumed_from <= max(before) < STEPS
    assert restart["lostSteps"] == max(before) - resumed_from
    # Kubernetes tells the ends of containers to the second.
    assert 0 < restart["lostSeconds"] < since_the_kill + 1
    assert status["lastFailure"]["worker"].startswith("digits-a1-w")
    assert first < status["progress"]["step"] == status["checkpoint"]["step"] == STEPS
    assert (status["attempt"], status["checkpoint"].get("skipped", [])) == (2, [])
    newest = look(cluster.run).newest
    assert newest is not None
    assert (newest.step, newest.world_size) == (STEPS, 2)


async def test_torn_checkpoints_are_skipped_and_named(cluster: Cluster, dataset: str) -> None:
    """One worker: a byte of its newest checkpoint rots, and a newer one was never finished."""
    cluster.server.create(job(cluster, dataset, AGENT, workers=1, restart={"backoffSeconds": 2}))
    await cluster.until(lambda: cluster.step() > 3 * EVERY)
    cluster.kubelet.kill("digits-a1-w0")
    await cluster.until(lambda: cluster.status().get("attempt") == 2)
    whole = look(cluster.run).newest
    assert whole is not None
    unfinished = whole.folder.with_name(f"step-{whole.step + 5}-a1")
    shutil.copytree(whole.folder, unfinished, ignore=shutil.ignore_patterns(MANIFEST))
    weights = bytearray((whole.folder / MODEL).read_bytes())
    weights[len(weights) // 2] ^= 1
    (whole.folder / MODEL).write_bytes(weights)
    await cluster.until(lambda: cluster.status().get("restarts", [{}])[0].get("resumedFromStep") is not None)
    skipped = {entry["name"]: entry["reason"] for entry in cluster.status()["checkpoint"]["skipped"]}
    assert list(skipped) == [unfinished.name, whole.folder.name]
    assert "no manifest" in skipped[unfinished.name]
    assert f"{MODEL} has a wrong SHA-256" in skipped[whole.folder.name]
    (restart,) = cluster.status()["restarts"]
    assert restart["resumedFromStep"] == whole.step - EVERY
    # More than that where it had gone on from its newest checkpoint.
    assert restart["lostSteps"] >= EVERY
    assert cluster.status()["lastFailure"]["exitCode"] == 137
    await cluster.until(lambda: cluster.phase() == "Succeeded")
    assert len(cluster.status()["checkpoint"]["skipped"]) == 2


async def test_an_elastic_group_shrinks_and_grows_at_checkpoints_while_its_first_worker_stays(
    cluster: Cluster, dataset: str
) -> None:
    # By default torchrun takes 45 s to believe that a member has left.
    quick = "$(PET_RDZV_CONF),last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=6"
    command = [*TORCHRUN, f"--rdzv-conf={quick}"]
    cluster.server.create(job(cluster, dataset, command, recipe=LONG, workers={"min": 1, "max": 2}))
    await cluster.until(lambda: cluster.newest_world() == 2)
    (stays, _) = sorted(cluster.pods().items())
    cluster.server.patch("trainingjobs", "digits", {"spec": {"workers": {"min": 1, "max": 1}}})
    await cluster.until(lambda: list(cluster.pods().items()) == [stays])
    await cluster.until(lambda: cluster.newest_world() == 1)
    cluster.server.patch("trainingjobs", "digits", {"spec": {"workers": {"min": 1, "max": 2}}})
    await cluster.until(lambda: cluster.newest_world() == 2)
    await cluster.until(lambda: cluster.phase() == "Succeeded")
    assert stays in cluster.pods().items()
    status = cluster.status()
    assert (status["attempt"], status.get("failures", 0)) == (1, 0)
    assert {restart["cause"] for restart in status.get("restarts", [])} <= {"WorkersReformed"}
    asked = [event["message"] for event in cluster.server.objects("events") if event["reason"] == "ResizeRequested"]
    assert sorted(asked) == [
        "from 1 to 2 workers once the next checkpoint is saved",
        "from 2 to 1 workers once the next checkpoint is saved",
    ]


async def test_a_step_that_is_not_there_fails_the_job_in_words(cluster: Cluster, dataset: str) -> None:
    cluster.server.create(job(cluster, dataset, AGENT, workers=2, checkpoint={"resume": 999}))
    status = await cluster.until(lambda: cluster.phase() in ("Failed", "Succeeded") and cluster.status(), unwanted="")
    assert status["phase"] == "Failed"
    assert (status["attempt"], status["lastFailure"]["exitCode"]) == (1, 2)
    failed = next(condition for condition in status["conditions"] if condition["type"] == "Failed")
    assert failed["reason"] == "WrongInput"
    assert "NotFound: no whole checkpoint in" in failed["message"]
    assert "expected one of step 999" in failed["message"]


async def test_a_cause_that_is_told_after_its_consequence_fails_the_job(cluster: Cluster) -> None:
    """The second worker ends for want of the first, and is told of while that one is still on its way down."""
    cluster.run.mkdir()
    goes = cluster.run / "goes"
    code = f"""
import os, pathlib, sys, time
if os.environ["NODE_RANK"] == "1":
    sys.exit("Connection closed by peer")
while not pathlib.Path({str(goes)!r}).exists():
    time.sleep(0.01)
print("InvalidInput: the cause")
sys.exit(2)
"""
    cluster.server.create(training_job(command=["python", "-c", code], workers=2))
    await cluster.until(lambda: cluster.status().get("bookkeeping", {}).get("group", {}).get("failingSince"))
    goes.touch()
    await cluster.until(lambda: cluster.phase() == "Failed", unwanted="Restarting")
    status = cluster.status()
    assert (status["attempt"], status["lastFailure"]["exitCode"]) == (1, 2)
    failed = next(condition for condition in status["conditions"] if condition["type"] == "Failed")
    assert failed["reason"] == "WrongInput"
    assert "InvalidInput: the cause" in failed["message"]
