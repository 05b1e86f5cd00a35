"""Flyte shells of promotion."""

from flytekit import task

from serving.errors import PermanentError
from tasks.boundary import at_boundary
from tasks.promotion.connector import PromotionTask
from tasks.promotion.outcome import PromotionOutcome

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
