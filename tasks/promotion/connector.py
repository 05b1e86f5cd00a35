"""The promotion as a Flyte connector: no pod idles through a bake time, and an abort rolls the canary back.

`create` orders it from the home region's agent, `get` follows, `delete` aborts. `pyflyte run` runs the
same connector in its own process.
"""

import asyncio
import signal
import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

from flyteidl.core.execution_pb2 import TaskExecution
from flytekit import FlyteContextManager
from flytekit.core.base_task import PythonTask
from flytekit.core.interface import Interface
from flytekit.core.type_engine import TypeEngine
from flytekit.extend.backend.base_connector import (
    AsyncConnectorBase,
    AsyncConnectorExecutorMixin,
    ConnectorRegistry,
    Resource,
    ResourceMeta,
)
from flytekit.models.literals import LiteralMap
from flytekit.models.task import TaskTemplate

from serving.credentials import TokenFolder
from serving.errors import FlightpathError, RetryableError
from serving.regions.places.home_client import HomeClient
from serving.regions.places.topology import Topology, load_topology
from serving.settings import Settings
from tasks.actor import actor_of
from tasks.artifacts import BundleRef, ReleasePlan
from tasks.boundary import translated
from tasks.promotion.order import make_order
from tasks.promotion.outcome import FINAL_STATES, PromotionOutcome, outcome_from_json
from tasks.promotion.policy import PromotionPolicy
from tasks.promotion.readiness import ensure_regions, stop_regions
from tasks.promotion.watch import PromotionWatch

TASK_TYPE = "flightpath_promotion"
_INPUTS: dict[str, type] = {"plan": ReleasePlan, "bundle": BundleRef, "policy": PromotionPolicy}


@dataclass
class PromotionMeta(ResourceMeta):
    """What `get` and `delete` need to find the promotion again."""

    promotion_id: str
    started_regions: bool
    actor: str = ""


class PromotionConnector(AsyncConnectorBase):
    """Follows one promotion at the home region's agent."""

    name = "Flightpath promotion connector"

    def __init__(self) -> None:
        super().__init__(task_type_name=TASK_TYPE, metadata_type=PromotionMeta)
        self._watch = PromotionWatch()

    @cached_property
    def _topology(self) -> Topology:
        return load_topology(Settings())

    def _agent(self, actor: str) -> HomeClient:
        tokens = TokenFolder(folder=self._topology.token_folder)
        return HomeClient(self._topology, tokens.read("promoter"), on_behalf_of=actor)

    async def create(
        self, task_template: TaskTemplate, inputs: LiteralMap | None = None, **kwargs: Any
    ) -> PromotionMeta:
        values = TypeEngine.literal_map_to_kwargs(FlyteContextManager.current_context(), inputs, _INPUTS)
        plan: ReleasePlan = values["plan"]
        try:
            started = await asyncio.to_thread(ensure_regions, self._topology)
        except FlightpathError as error:
            raise translated(error) from error
        actor = actor_of(kwargs.get("task_execution_metadata"))
        order = make_order(plan, values["bundle"], values["policy"])
        try:
            await self._agent(actor).put_promotion(plan.release_id, order)
        except FlightpathError as error:
            if started:
                await asyncio.to_thread(stop_regions)
            raise translated(error) from error
        return PromotionMeta(promotion_id=plan.release_id, started_regions=started, actor=actor)

    async def get(self, resource_meta: PromotionMeta, **kwargs: Any) -> Resource:
        try:
            promotion = await self._agent(resource_meta.actor).get_promotion(resource_meta.promotion_id)
        except RetryableError as away:
            # The agent may be starting again; it owns the promotion and goes on from its registry.
            return Resource(phase=TaskExecution.RUNNING, message=str(away))
        except FlightpathError as error:
            raise translated(error) from error
        self._watch.show(promotion)
        if promotion["state"] not in FINAL_STATES:
            return Resource(phase=TaskExecution.RUNNING, message=self._watch.line(promotion))
        outcome = outcome_from_json(promotion)
        if outcome.state != "live" and resource_meta.started_regions:
            await asyncio.to_thread(stop_regions)
        return Resource(phase=TaskExecution.SUCCEEDED, outputs={"outcome": outcome})

    async def delete(self, resource_meta: PromotionMeta, **kwargs: Any) -> None:
        await self._agent(resource_meta.actor).abort_promotion(resource_meta.promotion_id)


class PromotionTask(AsyncConnectorExecutorMixin, PythonTask[None]):
    """Inputs plan, bundle, policy; output outcome."""

    def __init__(self, name: str) -> None:
        super().__init__(
            task_type=TASK_TYPE,
            name=name,
            task_config=None,
            interface=Interface(inputs=_INPUTS, outputs={"outcome": PromotionOutcome}),
        )

    def execute(self, **kwargs: Any) -> LiteralMap:
        """flytekit aborts on SIGINT alone, and whoever runs `pyflyte run` for a user ends it with SIGTERM."""
        if threading.current_thread() is not threading.main_thread():
            return super().execute(**kwargs)
        before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            return super().execute(**kwargs)
        finally:
            signal.signal(signal.SIGTERM, before)

    def connector_signal_handler(self, resource_meta: PromotionMeta, signum: int, frame: FrameType | None) -> None:
        """Abort from a thread of its own: the signal lands inside a running event loop, where the mixin's
        own `asyncio.run` raises and nothing would be rolled back."""
        name, promotion = signal.Signals(signum).name, resource_meta.promotion_id
        print(f"flightpath: aborted, got {name}: promotion {promotion} is taken back", file=sys.stderr, flush=True)
        abort = threading.Thread(target=lambda: asyncio.run(self._connector.delete(resource_meta=resource_meta)))
        abort.start()
        abort.join(timeout=30)
        self._clean_up_task = True


ConnectorRegistry.register(PromotionConnector())
