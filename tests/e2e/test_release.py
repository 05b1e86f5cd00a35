"""The main job from data to three regions, again over the running version, and once more with the same id."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import FirstRelease, World, users

pytestmark = pytest.mark.timeout(900)


def _curl_commands(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("curl ")]


@pytest.mark.smoke
def test_the_demo_takes_a_model_from_data_to_three_regions(world: World, first_release: FirstRelease) -> None:
    report = world.read(first_release.release_id, "report")
    assert report["state"] == "live"
    assert [(region["region"], region["state"], region["version"]) for region in report["regions"]] == [
        ("us-east", "live", 1),
        ("eu-west", "live", 1),
        ("asia-pacific", "live", 1),
    ]
    accuracy = {
        figure["name"]: figure["value"]
        for stage in report["stages"]
        for figure in stage["figures"]
        if stage["stage"] == "compression"
    }
    assert accuracy["fp32_accuracy"] >= 0.96
    assert accuracy["int8_accuracy"] >= 0.99 * accuracy["fp32_accuracy"]
    assert " 0 failed" in first_release.output


@pytest.mark.smoke
def test_the_printed_curl_commands_answer(first_release: FirstRelease) -> None:
    commands = _curl_commands(first_release.output)
    assert len(commands) >= 4
    for command in commands:
        done = subprocess.run([*shlex.split(command), "--fail"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, command
        assert "error" not in json.loads(done.stdout), command


@pytest.mark.smoke
def test_every_deck_was_written_and_is_named(world: World, first_release: FirstRelease) -> None:
    decks = {path.stem: path for path in (world.root / "decks" / first_release.release_id).glob("*.html")}
    assert set(decks) == {"training", "evaluation", "compression", "promotion"}
    for path in decks.values():
        assert str(path) in first_release.output
        assert "<svg" in path.read_text()
        assert "http://" not in path.read_text().replace("http://www.w3.org", "").replace(
            "http://purl.org", ""
        ).replace("http://creativecommons.org", ""), "a Deck opens offline"


def test_the_same_release_id_again_changes_nothing(world: World, first_release: FirstRelease) -> None:
    before, servers = _state(world, first_release.release_id), _servers(world)
    assert before["servers"]
    done = world.flightpath(
        "demo", "--recipe", "resnet-digits", "--release-id", first_release.release_id, "--seed", "1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _state(world, first_release.release_id) == before
    assert _servers(world) <= servers, "nothing was started"
    assert " 0 failed" in done.stdout


def _servers(world: World) -> set[tuple[str, int, int, float]]:
    """Name, port, pid and start of each model server."""
    records = [json.loads(path.read_bytes()) for path in world.root.glob("regions/*/servers/*.json")]
    return {(each["name"], each["detail"]["port"], each["pid"], each["started_at"]) for each in records}


def _state(world: World, release: str) -> dict[str, object]:
    """Everything that must not move: model servers in use, routes, the report, what is in the stores."""
    routes = sorted(path.read_text() for path in world.root.glob("regions/*/routes.json"))
    # A replaced server stands by for a while and then ends by itself: only those that serve must stay.
    servers = {server for server in _servers(world) if any(f':{server[1]}"' in text for text in routes)}
    bundles = sorted(str(path) for path in world.root.glob("**/bundles/sha256/*"))
    return {"servers": servers, "routes": routes, "bundles": bundles, "report": world.read(release, "report")}


@pytest.mark.smoke
def test_the_next_version_goes_over_the_running_one_without_a_failed_request(world: World, second_release: str) -> None:
    report = world.read(second_release, "report")
    assert {region["state"] for region in report["regions"]} == {"live"}
    seen = json.loads((world.root / "demo" / second_release / "traffic.json").read_bytes())
    assert sum(region["failed"] for region in seen.values()) == 0
    for region in report["regions"]:
        assert 0 < region["previous_version"] < region["version"] == report["version"]
        both = {str(region["previous_version"]), str(region["version"])}
        assert both <= set(seen[region["region"]]["by_version"])


def test_each_sub_workflow_runs_alone(world: World, first_release: FirstRelease, tmp_path: Path) -> None:
    release = first_release.release_id
    inputs = {stage: str(world.record(release, stage)) for stage in ("plan", "data", "training", "evaluation")}
    compressed, sealed = str(world.record(release, "compression")), str(world.record(release, "bundle"))
    upto_evaluation = ["--plan", inputs["plan"], "--dataset", inputs["data"], "--checkpoint", inputs["training"]]
    runs = [
        ("workflows/training.py", "data", ["--plan", inputs["plan"]]),
        ("workflows/training.py", "training", ["--plan", inputs["plan"], "--dataset", inputs["data"]]),
        ("workflows/training.py", "evaluation", upto_evaluation),
        ("workflows/compression.py", "compression", [*upto_evaluation, "--evaluation", inputs["evaluation"]]),
        (
            "workflows/compression.py",
            "bundle",
            [*upto_evaluation, "--evaluation", inputs["evaluation"], "--compressed", compressed],
        ),
        ("workflows/promotion.py", "promotion", ["--plan", inputs["plan"], "--bundle", sealed]),
    ]
    for file, name, arguments in runs:
        done = world.pyflyte("run", file, name, *arguments)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def test_a_rollback_puts_the_version_before_back_in_seconds_while_serving(
    world: World, second_release: str, tmp_path: Path
) -> None:
    before = world.served("resnet-digits")
    with users(world, "resnet-digits", second_release, tmp_path / "traffic.json"):
        done = world.pyflyte(
            "run", "workflows/rollback.py", "rollback", "--model", "resnet-digits", "--reason", "wrong labels"
        )
    assert done.returncode == 0, done.stdout + done.stderr
    after = world.served("resnet-digits")
    assert len(set(after)) == 1
    assert all(now < then for now, then in zip(after, before, strict=True))
    seen = json.loads((tmp_path / "traffic.json").read_bytes())
    assert {region["failed"] for region in seen.values()} == {0}
