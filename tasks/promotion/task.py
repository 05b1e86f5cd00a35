"""Flyte shells of promotion."""

import asyncio
import time

from flytekit import current_context, task

from serving.credentials import SentToken, TokenFolder
from serving.errors import PermanentError
from serving.regions.places.client import AgentClient
from serving.regions.places.home_client import HomeClient
from serving.regions.places.topology import Topology, load_topology
from serving.releases import check_name
from serving.settings import Settings
from tasks.actor import present_actor
from tasks.boundary import at_boundary
from tasks.promotion.connector import PromotionTask
from tasks.promotion.outcome import PromotionOutcome
from tasks.promotion.retry import follow_retry
from tasks.promotion.rollback import RollbackOutcome, make_rollback_order, roll_back

_ROLLBACK_S = 300.0
"""A version whose server is no longer warm must start first; language models take a minute or two."""

promote_release = PromotionTask(name="tasks.promotion.task.promote_release")


@task
@at_boundary
def require_live(outcome: PromotionOutcome) -> PromotionOutcome:
    """Let the execution fail when the promotion did not go live; its report is already kept."""
    if outcome.state != "live":
        raise PermanentError(
            f"release {outcome.release_id} is not live", got=f"{outcome.state}: {outcome.reason}", expected="live"
        )
    return outcome


@task(retries=2)
@at_boundary
def roll_back_model(model: str, to_version: int, regions: list[str], reason: str, rollback_id: str) -> RollbackOutcome:
    """Order the rollback and wait for it; the same id again finds the same rollback."""
    check_name("model name", model)
    topology = load_topology(Settings())
    order = make_rollback_order(model=model, to_version=to_version, regions=regions, reason=reason)
    identifier = rollback_id or _rollback_id(model)
    check_name("rollback id", identifier)
    agents = [_home(topology)]
    if len(regions) == 1:
        # Home may be away, and a region's own agent takes a rollback for its region.
        own = topology.region(regions[0]).agent_url
        agents.append(AgentClient(own, _token(topology), on_behalf_of=present_actor()))
    return asyncio.run(roll_back(agents, identifier, order, timeout_s=_ROLLBACK_S))


@task(retries=2)
@at_boundary
def retry_promotion(promotion_id: str) -> PromotionOutcome:
    """Order a promotion that failed once more, under an id of its own, and follow it: no training, no new release."""
    check_name("promotion id", promotion_id)
    return asyncio.run(follow_retry(_home(load_topology(Settings())), promotion_id))


def _home(topology: Topology) -> AgentClient:
    return HomeClient(topology, _token(topology), on_behalf_of=present_actor())


def _token(topology: Topology) -> SentToken:
    return SentToken(TokenFolder(folder=topology.token_folder), "promoter")


def _rollback_id(model: str) -> str:
    """The execution's name on a cluster, so that a retry of the task finds its rollback; the time elsewhere."""
    execution = current_context().execution_id
    name = execution.name if execution and execution.name != "local" else f"{int(time.time() * 1000):x}"
    return f"rollback-{model}-{name}".lower()
