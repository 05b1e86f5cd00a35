"""Back to the version before, or to a named one, in one region or all, while serving."""

from flytekit import workflow

from tasks.promotion.rollback import RollbackOutcome
from tasks.promotion.task import roll_back_model


@workflow
def rollback(
    model: str,
    to_version: int = 0,
    regions: list[str] = [],  # noqa: B006  # Flyte reads defaults from the signature
    reason: str = "",
    rollback_id: str = "",
) -> RollbackOutcome:
    """All regions go back at once; `to_version` 0 is the version before, no region means all that serve the model."""
    return roll_back_model(model=model, to_version=to_version, regions=regions, reason=reason, rollback_id=rollback_id)
