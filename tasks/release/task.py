"""Flyte shells of the first and the last stage."""

from flytekit import task

from serving.regions.places.topology import load_topology
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.boundary import at_boundary, publish_deck
from tasks.ledger import Ledger
from tasks.progress import announce
from tasks.promotion.outcome import PromotionOutcome
from tasks.promotion.policy import PromotionPolicy
from tasks.promotion.readiness import check_ports
from tasks.release.plan import make_plan
from tasks.release.plots import timeline
from tasks.release.report import ReleaseReport, make_report


@task
@at_boundary
def plan_release(
    recipe: str, overrides: str, launcher: str, release_id: str, seed: int, regions: list[str], policy: PromotionPolicy
) -> ReleasePlan:
    """Refuse bad input before anything is computed, and name the release."""
    settings = Settings()
    topology = load_topology(settings)
    check_ports(topology, settings)
    plan = make_plan(
        recipe=recipe,
        overrides=overrides,
        launcher=launcher,
        release_id=release_id,
        seed=seed,
        regions=regions,
        topology=topology,
        store=ArtifactStore(settings.store_uri),
    )
    steps = " / ".join(str(step) for step in policy.steps_percent)
    announce("plan", f"release {plan.release_id} to {', '.join(regions)} in steps of {steps} %")
    return plan


@task
@at_boundary
def plan_training(recipe: str, overrides: str, launcher: str, release_id: str, seed: int) -> ReleasePlan:
    """The plan of a run that stops before any region."""
    settings = Settings()
    topology = load_topology(settings)
    return make_plan(
        recipe=recipe,
        overrides=overrides,
        launcher=launcher,
        release_id=release_id,
        seed=seed,
        regions=[region.name for region in topology.regions],
        topology=topology,
        store=ArtifactStore(settings.store_uri),
    )


@task(enable_deck=True, deck_fields=())
@at_boundary
def report_release(
    plan: ReleasePlan,
    dataset: Dataset,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    compressed: CompressedModel,
    bundle: BundleRef,
    outcome: PromotionOutcome,
) -> ReleaseReport:
    """Gather every stage's figures and each region's final state, and keep them beside the release."""
    report = make_report(plan, dataset, checkpoint, evaluation, compressed, bundle, outcome)
    publish_deck(plan.release_id, "promotion", "Rollout timeline", timeline(outcome))
    Ledger(ArtifactStore(plan.store_uri), plan.release_id).write("report", report)
    announce("report", f"{report.model} version {report.version} is {report.state}", **_final_states(report))
    return report


def _final_states(report: ReleaseReport) -> dict[str, str]:
    return {region.region: region.state for region in report.regions}
