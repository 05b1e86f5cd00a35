"""From a bundle to live, region by region."""

from flytekit import workflow

from tasks.artifacts import BundleRef, ReleasePlan
from tasks.promotion.outcome import PromotionOutcome
from tasks.promotion.policy import PromotionPolicy
from tasks.promotion.task import promote_release, require_live


@workflow
def promotion(plan: ReleasePlan, bundle: BundleRef, policy: PromotionPolicy = PromotionPolicy()) -> PromotionOutcome:  # noqa: B008  # Flyte reads defaults from the signature; the policy is frozen
    """Replicate, verify, canary and switch in each region; fails when a gate rolled it back."""
    return require_live(outcome=promote_release(plan=plan, bundle=bundle, policy=policy))
