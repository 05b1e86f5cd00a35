"""Scores of mirrored completions: as shipped, and by a user's function in a process of its own."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Snapshot
from serving.errors import BadUpstream, TimedOut
from serving.regions.acting.scoring import Scoring
from serving.regions.deciding.completion_score import greedy_agreement
from serving.regions.servers.scorer import ScorerProcess
from serving.regions.traffic.gateway_traffic import Pairs
from serving.releases import Release, RuntimeSpec
from serving.routes import Route


def pair(candidate: str, live: str = "live", seq: int = 1) -> dict[str, Any]:
    return {"seq": seq, "request": {"prompt": "say"}, "candidate": candidate, "live": live}


@pytest.mark.parametrize(
    ("candidate", "live", "score"),
    [
        ("", "", 1.0),
        ("a b c", "a b c", 1.0),
        ("a b c d", "a b", 0.5),
        ("a b", "a b c d", 0.5),
        ("x b c d", "a b c d", 0.0),
        ("a b x d", "a b c d", 0.5),
        ("", "a", 0.0),
    ],
)
def test_greedy_agreement_is_the_common_beginning(candidate: str, live: str, score: float) -> None:
    assert greedy_agreement(candidate, live) == score


async def score(reference: str, *pairs: dict[str, Any], timeout_s: float = 30.0) -> list[float | str]:
    """Each pair's score, or the name of the error."""
    process, scores = ScorerProcess(f"tests.fakes.scorers:{reference}", timeout_s=timeout_s), []
    try:
        for one in pairs:
            try:
                scores.append(await process.score(one))
            except (TimedOut, BadUpstream) as failed:
                scores.append(type(failed).__name__)
    finally:
        await process.close()
    return scores


async def test_a_users_function_scores_and_what_it_prints_is_no_answer() -> None:
    assert await score("length_ratio", pair("li", "live"), pair("live", "live")) == [0.5, 1.0]


async def test_a_scorer_that_hangs_is_ended_and_started_anew() -> None:
    assert await score("hangs", pair("hang"), pair("fine"), timeout_s=5.0) == ["TimedOut", 1.0]


async def test_a_scorer_whose_process_ends_costs_one_pair() -> None:
    assert await score("dies", pair("die"), pair("fine")) == ["BadUpstream", 1.0]


@pytest.mark.parametrize("lie", ["1.5", "-0.1", "nan"])
async def test_a_figure_that_is_no_score_is_none(lie: str) -> None:
    assert await score("lies", pair(lie), pair("0.25")) == ["BadUpstream", 0.25]


async def test_a_function_that_raises_is_asked_again() -> None:
    assert await score("raises", pair("a"), pair("b")) == ["BadUpstream", "BadUpstream"]


async def test_a_function_that_is_not_there_is_an_error() -> None:
    assert await score("not_there", pair("a")) == ["BadUpstream"]


RELEASE = Release(
    id="rel-2",
    model="m",
    bundle_digest="sha256:" + "0" * 64,
    store_uri="memory://s",
    runtime=RuntimeSpec(engine="vllm", variant="vllm"),
)


class Gateways:
    """Answers pairs as a gateway does: those after a number, of one boot."""

    def __init__(self) -> None:
        self.boot_id = "a"
        self.kept = [pair("same", "same", 1), pair("other", "live", 2)]
        self.asked: list[int] = []

    async def set_route(self, route: Route) -> None:
        raise AssertionError("not asked here")

    async def stats(self, model: str) -> Snapshot:
        raise AssertionError("not asked here")

    async def pairs(self, model: str, *, after: int) -> Pairs:
        self.asked.append(after)
        return Pairs(boot_id=self.boot_id, pairs=[one for one in self.kept if one["seq"] > after])


async def test_each_pair_is_scored_once_and_a_new_gateway_counts_anew() -> None:
    gateway = Gateways()
    scoring = Scoring(gateway, timeout_s=5.0)
    assert await scoring.scores(replace(RELEASE, id="rel-1"), "") == []
    gateway.kept.append(pair("same", "same", 3))
    assert await scoring.scores(RELEASE, "") == [], "left by another candidate"
    gateway.kept += [pair("same", "same", 4), pair("other", "live", 5)]
    assert await scoring.scores(RELEASE, "") == [1.0, 0.0]
    assert await scoring.scores(RELEASE, "") == []
    gateway.boot_id, gateway.kept = "b", [pair("same", "same", 1)]
    assert await scoring.scores(RELEASE, "") == [1.0]
    assert await scoring.scores(RELEASE, "") == []
    assert gateway.asked == [0, 2, 3, 5, 5, 0, 1]


async def test_a_pair_that_cannot_be_scored_says_nothing() -> None:
    gateway = Gateways()
    gateway.kept = [pair("0.5", seq=1), pair("7", seq=2), pair("0.25", seq=3)]
    scoring = Scoring(gateway, timeout_s=30.0)
    kept, gateway.kept = gateway.kept, []
    assert await scoring.scores(RELEASE, "") == []
    gateway.kept = kept
    assert await scoring.scores(RELEASE, "tests.fakes.scorers:lies") == [0.5, 0.25]
    await scoring.close()
