"""What came of a release: each stage's figures, each region's final state, where the time went."""

from dataclasses import dataclass, field
from typing import Any

from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, Figure, ReleasePlan
from tasks.promotion.outcome import PromotionOutcome, RegionOutcome, region_from_json


@dataclass(kw_only=True)
class StageReport:
    stage: str
    seconds: float
    figures: list[Figure] = field(default_factory=list)


@dataclass(kw_only=True)
class ReleaseReport:
    release_id: str
    model: str
    version: int
    state: str
    """live | rolled_back | aborted"""
    reason: str
    bundle_digest: str
    stages: list[StageReport]
    regions: list[RegionOutcome]
    actor: str = ""
    """Who ordered the promotion."""
    notes: list[str] = field(default_factory=list)
    """What a stage could not make, and why; the release went on without it."""
    evidence: str = ""
    """What its gates took for evidence, and their margins."""

    def figure(self, stage: str, name: str) -> float | None:
        """One figure by stage and name, or None if the stage did not report it."""
        for report in self.stages:
            for figure in report.figures:
                if (report.stage, figure.name) == (stage, name):
                    return figure.value
        return None


def make_report(
    plan: ReleasePlan,
    dataset: Dataset,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    compressed: CompressedModel,
    bundle: BundleRef,
    outcome: PromotionOutcome,
) -> ReleaseReport:
    samples = [
        Figure(name=f"{split}_samples", value=float(count), unit="samples")
        for split, count in sorted(dataset.samples.items())
    ]
    return ReleaseReport(
        release_id=plan.release_id,
        model=bundle.model,
        version=outcome.version,
        state=outcome.state,
        reason=outcome.reason,
        bundle_digest=bundle.digest,
        stages=[
            StageReport(stage="data", seconds=dataset.seconds, figures=samples),
            StageReport(stage="training", seconds=checkpoint.seconds, figures=checkpoint.figures),
            StageReport(
                stage="evaluation",
                seconds=evaluation.seconds,
                figures=evaluation.figures,
            ),
            StageReport(stage="compression", seconds=compressed.seconds, figures=compressed.figures),
            StageReport(stage="bundle", seconds=bundle.seconds, figures=bundle.figures),
            StageReport(stage="promotion", seconds=outcome.seconds, figures=[]),
        ],
        regions=outcome.regions,
        actor=outcome.actor,
        notes=compressed.notes,
        evidence=outcome.evidence,
    )


def report_from_json(raw: dict[str, Any]) -> ReleaseReport:
    """Read `releases/<id>/report.json`."""
    stages = [
        StageReport(**{**stage, "figures": [Figure(**figure) for figure in stage["figures"]]})
        for stage in raw["stages"]
    ]
    return ReleaseReport(
        **{**raw, "stages": stages, "regions": [region_from_json(region) for region in raw["regions"]]}
    )
