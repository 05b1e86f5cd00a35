"""Decide and check what a release will do before anything is computed.

Everything a user can get wrong is refused here, in under a second or two: nothing is half-written
afterwards, since nothing was written.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving.errors import InvalidInput
from serving.files import hash_sources
from serving.regions.places.topology import Topology
from serving.releases import check_name
from serving.store import ArtifactStore
from tasks.artifacts import ReleasePlan
from tasks.ledger import Ledger, fingerprint
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.training.launch import RAY, check_launcher

_TASKS = Path(__file__).resolve().parent.parent
_CONTENT_FOLDERS = ("recipes", "shipped", "families", "data", "training", "evaluation", "compression")


def code_version() -> str:
    """SHA-256 over the sources that decide what a model becomes."""
    return hash_sources(*(_TASKS / folder for folder in _CONTENT_FOLDERS))


def make_plan(
    *,
    recipe: str,
    overrides: str,
    launcher: str,
    release_id: str,
    seed: int,
    regions: list[str],
    topology: Topology,
    store: ArtifactStore,
) -> ReleasePlan:
    """The plan of this release, recorded under its id; the same id with other content is a Conflict."""
    chosen = get_recipe(recipe, overrides)
    _check_seed(seed)
    check_regions(regions, topology)
    check_launcher(launcher)
    if launcher == RAY:
        _check_ray()
    content = chosen.data().fingerprint()
    code = code_version()
    plan = ReleasePlan(
        release_id=release_id or _derived_id(chosen, seed, content, code),
        recipe=recipe,
        overrides=chosen.overrides,
        recipe_sources=chosen.sources,
        seed=seed,
        store_uri=store.uri,
        regions=list(regions),
        code_version=code,
        data_hash=content,
    )
    return Ledger(store, plan.release_id).claim(plan)


def _derived_id(recipe: Recipe, seed: int, content: str, code: str) -> str:
    name = recipe.reference.rpartition(":")[2].replace("_", "-")
    decisive = [recipe.reference, recipe.overrides, recipe.sources, seed, content, code]
    identifier = f"{name}-s{seed}-{fingerprint(decisive)[:10]}"
    check_name("release id", identifier)
    return identifier


def check_regions(regions: list[str], topology: Topology) -> None:
    if not regions:
        known = ", ".join(region.name for region in topology.regions)
        raise InvalidInput("a release needs a region", got="[]", expected=f"one or more of {known}")
    if len(set(regions)) != len(regions):
        raise InvalidInput("a region is named twice", got=regions, expected="distinct regions")
    for region in regions:
        topology.region(region)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise InvalidInput("seed is out of range", got=seed, expected="0 to 2147483647")


def _check_ray() -> None:
    """By metadata: to ask the import system would load flytekit's lazy `ray`, and its settings with it."""
    try:
        version("ray")
    except PackageNotFoundError as missing:
        raise InvalidInput(
            "Ray is missing", got="no package `ray`", expected="`make demo` or `pip install ray[train]`"
        ) from missing
