"""The order that the home region's agent gets for a release."""

from typing import Any

from serving.regions.deciding.policy import PromotionPolicy
from serving.releases import Release, RuntimeSpec
from tasks.artifacts import BundleRef, ReleasePlan
from tasks.promotion.policy import effective_policy


def make_order(plan: ReleasePlan, bundle: BundleRef, policy: PromotionPolicy) -> dict[str, Any]:
    """Body of `PUT /v1/promotions/{id}` (docs/api.md)."""
    release = Release(
        id=plan.release_id,
        model=bundle.model,
        bundle_digest=bundle.digest,
        store_uri=bundle.store_uri,
        runtime=RuntimeSpec(engine=bundle.engine, variant=bundle.variant, arguments=list(bundle.arguments)),
    )
    return {
        "schema_version": 1,
        "release": release.to_json(),
        "policy": effective_policy(policy, bundle.engine).to_json(),
        "regions": list(plan.regions),
    }
