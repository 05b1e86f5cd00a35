"""Flyte shell of the intake."""

from pathlib import Path
from typing import NamedTuple

from flytekit import task

from serving.credentials import SigningKey
from serving.regions.places.topology import load_topology
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, ReleasePlan
from tasks.boundary import at_boundary
from tasks.intake.stage import IntakeOrder, take_in
from tasks.release.plan import check_regions


class Taken(NamedTuple):
    plan: ReleasePlan
    bundle: BundleRef


@task
@at_boundary
def take_in_model(
    source: str, model: str, release_id: str, regions: list[str], base: str, golden: str, make_golden: bool
) -> Taken:
    """Seal an ONNX file, a Hugging Face folder or a LoRA adapter as a bundle of its own."""
    settings = Settings()
    check_regions(regions, load_topology(settings))
    order = IntakeOrder(
        source=Path(source),
        model=model,
        release_id=release_id,
        regions=regions,
        base=Path(base) if base else None,
        golden=Path(golden) if golden else None,
        make_golden=make_golden,
    )
    plan, bundle = take_in(order, ArtifactStore(settings.store_uri), SigningKey.ensure(settings.root / "keys"))
    return Taken(plan, bundle)
