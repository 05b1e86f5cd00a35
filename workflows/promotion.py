"""From a bundle to live, region by region."""

from flytekit import workflow

from tasks.artifacts import BundleRef, ReleasePlan
from tasks.intake.task import take_in_model
from tasks.promotion.outcome import PromotionOutcome
from tasks.promotion.policy import PromotionPolicy
from tasks.promotion.task import promote_release, require_live, retry_promotion


@workflow
def promotion(plan: ReleasePlan, bundle: BundleRef, policy: PromotionPolicy = PromotionPolicy()) -> PromotionOutcome:  # noqa: B008  # Flyte reads defaults from the signature; the policy is frozen
    """Replicate, verify, canary and switch in each region; fails when a gate rolled it back."""
    return require_live(outcome=promote_release(plan=plan, bundle=bundle, policy=policy))


@workflow
def promote(
    source: str,
    model: str,
    golden: str = "",
    make_golden: bool = False,
    base: str = "",
    release_id: str = "",
    regions: list[str] = ["us-east", "eu-west", "asia-pacific"],  # noqa: B006  # Flyte reads defaults from the signature
    policy: PromotionPolicy = PromotionPolicy(),  # noqa: B008  # likewise; the policy is frozen
) -> PromotionOutcome:
    """Take in a model that was never trained here (ONNX file, Hugging Face folder, LoRA adapter) and promote it."""
    taken = take_in_model(
        source=source,
        model=model,
        release_id=release_id,
        regions=regions,
        base=base,
        golden=golden,
        make_golden=make_golden,
    )
    return require_live(outcome=promote_release(plan=taken.plan, bundle=taken.bundle, policy=policy))


@workflow
def retry(promotion_id: str) -> PromotionOutcome:
    """Promote once more what was taken back, with neither a training nor a new release."""
    return require_live(outcome=retry_promotion(promotion_id=promotion_id))
