"""The main job: a model from data to production in every region."""

from flytekit import workflow

from tasks.promotion.policy import PromotionPolicy
from tasks.promotion.task import promote_release, require_live
from tasks.release.report import ReleaseReport
from tasks.release.task import plan_release, report_release
from workflows.compression import bundle, compression
from workflows.training import data, evaluation, training


@workflow
def release(
    recipe: str = "resnet-digits",
    overrides: str = "",
    launcher: str = "ray",
    release_id: str = "",
    regions: list[str] = ["us-east", "eu-west", "asia-pacific"],  # noqa: B006  # Flyte reads defaults from the signature
    policy: PromotionPolicy = PromotionPolicy(),  # noqa: B008  # likewise; the policy is frozen
    seed: int = 1,
) -> ReleaseReport:
    """Data, training, evaluation, compression, bundle, promotion; the same release id again changes nothing."""
    plan = plan_release(
        recipe=recipe,
        overrides=overrides,
        launcher=launcher,
        release_id=release_id,
        seed=seed,
        regions=regions,
        policy=policy,
    )
    dataset = data(plan=plan)
    checkpoint = training(plan=plan, dataset=dataset, launcher=launcher)
    evaluated = evaluation(plan=plan, dataset=dataset, checkpoint=checkpoint)
    compressed = compression(plan=plan, dataset=dataset, checkpoint=checkpoint, evaluation=evaluated)
    sealed = bundle(plan=plan, dataset=dataset, checkpoint=checkpoint, evaluation=evaluated, compressed=compressed)
    outcome = promote_release(plan=plan, bundle=sealed, policy=policy)
    report = report_release(
        plan=plan,
        dataset=dataset,
        checkpoint=checkpoint,
        evaluation=evaluated,
        compressed=compressed,
        bundle=sealed,
        outcome=outcome,
    )
    concluded = require_live(outcome=outcome)
    report >> concluded
    return report
