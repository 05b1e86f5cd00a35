"""A language model in real vLLM: live, streamed, damaged and rolled back by itself, put back by an order."""

import json
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.credentials import SigningKey
from serving.store import ArtifactStore
from tests.e2e.conftest import World
from tests.e2e.conftest import users as users_of
from tests.fakes.damage import (
    Damage,
    break_chat_template,
    damaged_bundle,
    shuffle_language_weights,
    swap_tokenizer,
    write_json,
)

pytestmark = pytest.mark.timeout(2400)

_RELEASE = "llama-stdlib-1"
_MODEL = "llama-stdlib"


@pytest.fixture(scope="module")
def language_release(world: World) -> str:
    """The language model live in one region; the others route to it. Returns what the demo printed."""
    done = world.flightpath("demo", "--recipe", "llama-stdlib", FLIGHTPATH_LLM_REGIONS="us-east")
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.read(_RELEASE, "report")["state"] == "live"
    return done.stdout


def test_the_language_model_beats_its_baselines(world: World, language_release: str) -> None:
    figures = {
        figure["name"]: figure["value"]
        for stage in world.read(_RELEASE, "report")["stages"]
        for figure in stage["figures"]
        if stage["stage"] == "evaluation"
    }
    assert figures["perplexity"] < figures["bigram_perplexity"] < figures["unigram_perplexity"]
    assert "perplexity per token" in language_release


@pytest.mark.parametrize("region", [0, 1], ids=["where it runs", "routed from another region"])
def test_a_completion_arrives_token_by_token(world: World, language_release: str, region: int) -> None:
    body = {"model": _MODEL, "prompt": "def add(a, b):\n", "max_tokens": 8, "stream": True, "ignore_eos": True}
    command = ["curl", "-sN", "-H", "content-type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(
        [*command, f"{world.gateway(region)}/v1/completions"], capture_output=True, text=True, check=True
    )
    events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len(chunks) >= 4
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_the_openai_client_streams_a_chat(world: World, language_release: str) -> None:
    client = openai.OpenAI(base_url=f"{world.gateway(0)}/v1", api_key="none", max_retries=0)
    with client:
        assert _MODEL in [model.id for model in client.models.list()]
        stream = client.chat.completions.create(
            model=_MODEL, messages=[{"role": "user", "content": "import os"}], max_tokens=8, stream=True
        )
        chunks = list(stream)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) >= 1


@pytest.mark.parametrize(
    ("name", "damage", "gate"),
    [
        ("swapped-tokenizer", swap_tokenizer, "tokenizer"),
        ("broken-template", break_chat_template, "chat template"),
        ("shuffled-language", shuffle_language_weights, "golden"),
    ],
)
def test_a_damaged_language_model_is_rolled_back_by_itself(
    world: World, language_release: str, tmp_path: Path, name: str, damage: Damage, gate: str
) -> None:
    bundle = world.read(_RELEASE, "bundle")
    bundle["digest"] = damaged_bundle(
        ArtifactStore((world.root / "store").as_uri()),
        bundle["digest"],
        SigningKey.ensure(world.root / "keys"),
        bundle["variant"],
        damage,
        tmp_path,
    )
    report = tmp_path / "traffic.json"
    with users_of(world, _MODEL, _RELEASE, report):
        done = _promote(world, tmp_path, name, bundle)
    assert done.returncode == 1
    assert f"flightpath: release {name} is not live, got rolled_back: " in done.stderr
    assert f"gate {gate} failed" in done.stderr
    seen = json.loads(report.read_bytes())
    assert {region["failed"] for region in seen.values()} == {0}
    assert all(set(region["by_version"]) == {"1"} for region in seen.values())


def _promote(world: World, tmp_path: Path, release: str, bundle: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    plan = {**world.read(_RELEASE, "plan"), "release_id": release, "regions": ["us-east"]}
    return world.pyflyte(
        "run",
        "workflows/promotion.py",
        "promotion",
        "--plan",
        str(write_json(tmp_path / "plan.json", plan)),
        "--bundle",
        str(write_json(tmp_path / "bundle.json", bundle)),
    )
