"""The main job on embedded defaults: release the next version to three local regions under real traffic.

A release is `pyflyte run workflows/release.py release`, as any user would start it; this module adds
users who send requests meanwhile, a view of the progress and a summary.
"""

import json
import time
from dataclasses import dataclass, field

from rich.console import Console

from flightpath.local import regions, traffic
from flightpath.local.demo_policy import demo_policy
from flightpath.local.questions import example
from flightpath.local.release_process import ReleaseOrder, ReleaseProcess
from flightpath.local.state import StateRoot, running_code
from flightpath.local.summary import DemoResult, show
from flightpath.local.view import Screen
from serving.errors import InvalidInput, PermanentError
from serving.files import write_atomically
from serving.regions.places.topology import load_topology
from serving.releases import check_name
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.dataset import fetch_dataset
from tasks.ledger import Ledger
from tasks.promotion.readiness import check_ports
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.release.plan import check_regions
from tasks.release.report import report_from_json

_TICK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    recipes: list[str] = field(default_factory=lambda: ["resnet-digits", "llama-stdlib"])
    release_id: str = ""
    """By default `<recipe>-<n>`, the next number each time; only with one recipe."""
    seed: int | None = None
    """By default the release's number."""
    regions: list[str] = field(default_factory=lambda: ["us-east", "eu-west", "asia-pacific"])
    rate_per_s: float = 0.0
    """Requests per second that the users of each region send; 0: 40 for images, 0.5 for text."""
    policy: str = ""
    """PromotionPolicy as JSON, or a path to it; empty: the demo's own (demo_policy.py)."""


def run_demo(settings: Settings, options: DemoOptions, console: Console) -> None:
    """Run the releases to their end and print what came of them; raises FlightpathError when one did not go live."""
    topology = load_topology(settings)
    check_regions(options.regions, topology)
    check_ports(topology, settings)
    root, store = StateRoot.of(settings), ArtifactStore(settings.store_uri)
    orders = [_order(recipe, options, settings, store) for recipe in options.recipes]
    for order in orders:
        check_regions(order.regions, topology)
    _replace_older_code(settings, root, console)
    began = time.time()
    releases = [ReleaseProcess(order, root) for order in orders]
    _run(releases, console)
    for release in releases:
        if release.failure is not None:
            raise release.failure
    failed = 0
    for order in orders:
        result = _result(order, settings, root, store, seconds=time.time() - began)
        show(console, result)
        failed += result.requests_failed
    if failed:
        raise PermanentError("requests failed during the release", got=failed, expected="0")


def _order(recipe_name: str, options: DemoOptions, settings: Settings, store: ArtifactStore) -> ReleaseOrder:
    recipe = get_recipe(recipe_name)
    if options.release_id:
        check_name("release id", options.release_id)
        if len(options.recipes) > 1:
            raise InvalidInput("a release id stands for one recipe", got=options.recipes, expected="one --recipe")
    number = _next_number(store, recipe.name)
    return ReleaseOrder(
        recipe=recipe_name,
        model=recipe.name,
        release_id=options.release_id or f"{recipe.name}-{number}",
        seed=number if options.seed is None else options.seed,
        regions=_regions(recipe, options, settings),
        policy=options.policy or json.dumps(demo_policy(recipe.engine).to_json()),
        rate_per_s=options.rate_per_s,
    )


def _regions(recipe: Recipe, options: DemoOptions, settings: Settings) -> list[str]:
    chosen = [name.strip() for name in settings.llm_regions.split(",") if name.strip()]
    return chosen if recipe.engine == "vllm" and chosen else options.regions


def _next_number(store: ArtifactStore, model: str) -> int:
    """The first number whose release has no report: an interrupted one is taken up again."""
    number = 1
    while Ledger(store, f"{model}-{number}").raw("report") is not None:
        number += 1
    return number


def _replace_older_code(settings: Settings, root: StateRoot, console: Console) -> None:
    supervisor = root.record("supervisor")
    if supervisor is not None and supervisor.detail.get("code") != running_code():
        regions.up(settings, lambda line: console.print(line, highlight=False))


def _run(releases: list[ReleaseProcess], console: Console) -> None:
    """Begin each release as soon as the one before leaves room, and follow all of them."""
    try:
        for release in releases:
            release.begin_users()
        with Screen(console, [release.view for release in releases]) as screen:
            while _advance(releases):
                _look(releases, screen)
                time.sleep(_TICK_S)
            _look(releases, screen)
    except BaseException:
        for release in releases:
            release.abort()
        raise
    finally:
        for release in releases:
            release.end_users()


def _advance(releases: list[ReleaseProcess]) -> bool:
    """Begin what may begin; False once nothing runs any more. After a failure nothing new begins."""
    for index, release in enumerate(releases):
        failed = any(before.ended and before.failure is not None for before in releases[:index])
        if not failed and all(before.leaves_room for before in releases[:index]):
            release.begin()
        if release.ended:
            # The cores are for the next one.
            release.end_users()
    return any(release.running for release in releases)


def _look(releases: list[ReleaseProcess], screen: Screen) -> None:
    for release in releases:
        for news in release.progress.news():
            screen.take(release.view, news)
        release.count_users()


def _result(
    order: ReleaseOrder, settings: Settings, root: StateRoot, store: ArtifactStore, *, seconds: float
) -> DemoResult:
    raw = Ledger(store, order.release_id).raw("report")
    if raw is None:
        raise PermanentError("the release left no report", got=order.release_id, expected="releases/<id>/report.json")
    report = report_from_json(raw)
    sent, failed, seen = traffic.totals(order.traffic_report(root))
    return DemoResult(
        report=report,
        example=_write_example(order, root, store, report.bundle_digest),
        topology=load_topology(settings),
        settings=settings,
        seconds=seconds,
        requests_sent=sent,
        requests_failed=failed,
        traffic=seen,
    )


def _write_example(order: ReleaseOrder, root: StateRoot, store: ArtifactStore, digest: str) -> str:
    """Leave one held-out question in `example.json`, the body of a command to try; returns where it goes."""
    dataset = Ledger(store, order.release_id).read("data", Dataset)
    if dataset is None:
        raise PermanentError("the release left no data", got=order.release_id, expected="releases/<id>/data.json")
    folder = fetch_dataset(dataset.uri, order.scratch(root) / "data", sha256=dataset.sha256)
    question = example(folder, order.model, store.read_manifest(digest).inputs)
    write_atomically(order.scratch(root) / "example.json", json.dumps(question.body).encode())
    return question.path
