"""What is ordered from the agents for a bundle."""

from tasks.artifacts import BundleRef, ReleasePlan
from tasks.promotion.order import make_order
from tasks.promotion.policy import LANGUAGE_MODELS, PromotionPolicy

_PLAN = ReleasePlan(
    release_id="rel-1",
    recipe="r",
    seed=1,
    store_uri="file:///store",
    regions=["eu-west", "us-east"],
    code_version="c",
    data_hash="d",
)


def _bundle(engine: str) -> BundleRef:
    return BundleRef(
        model="m",
        digest=f"sha256:{'0' * 64}",
        store_uri="file:///store",
        variant="v",
        engine=engine,
        seconds=1.0,
        arguments=["--flag"],
    )


def test_the_order_names_release_runtime_and_regions_in_their_order() -> None:
    order = make_order(_PLAN, _bundle("onnxruntime"), PromotionPolicy())
    assert order["regions"] == ["eu-west", "us-east"]
    assert order["release"]["id"] == "rel-1"
    assert order["release"]["runtime"]["arguments"] == ["--flag"]
    assert order["policy"] == PromotionPolicy().to_json()


def test_a_language_model_gets_bounds_that_suit_it_unless_others_are_given() -> None:
    assert make_order(_PLAN, _bundle("vllm"), PromotionPolicy())["policy"] == LANGUAGE_MODELS.to_json()
    given = PromotionPolicy(min_requests=3)
    assert make_order(_PLAN, _bundle("vllm"), given)["policy"] == given.to_json()
