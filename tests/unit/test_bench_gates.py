"""The simulated promotions: their users are counted as a gateway counts, and each judge decides what it should."""

from itertools import pairwise

import numpy as np
import pytest

from serving.counters import percentile_ms
from tests.bench.gates_peers import PEERS, _metrics, argo_in_steps, before, is_high, kayenta
from tests.bench.gates_promotion import CAP, PASSED, ROLLED_BACK, next_look, promote
from tests.bench.gates_traffic import (
    BOUNDS_MS,
    FAILED,
    FIRST_BUCKET,
    REFUSED,
    TICK,
    Scenario,
    Stream,
    Traffic,
    Version,
    counters,
    requests,
)

SOUND = Version(errors=0.001)


def traffic(live: Version, candidate: Version, *, labelled: bool = False, seed: int = 1) -> Traffic:
    return Traffic(scenario=Scenario(name="", live=live, candidate=candidate, labelled=labelled), seed=seed)


def test_users_meet_the_version_that_is_described() -> None:
    version = Version(errors=0.1, refusals=0.2, median_ms=30.0, sigma=0.5, accuracy=0.9)
    counts = Stream(version, 100, np.random.default_rng(0)).between(0, 200)
    counted = counters(counts, labelled=True)
    assert requests(counts) == counted.users.finished == 20_000
    assert counts[FAILED] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts[REFUSED] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert counted.correct / counted.labelled == pytest.approx(0.9, abs=0.01)
    assert sum(counted.users.latencies) == counted.users.answered == counted.labelled
    assert counted.percentile_ms(0.5) == pytest.approx(30.0, rel=0.05)
    assert percentile_ms(BOUNDS_MS, counts[FIRST_BUCKET:].tolist(), 0.95) == pytest.approx(version.p95_ms, rel=0.06)
    assert counters(counts, labelled=False).labelled == 0


def test_every_judge_sees_the_same_users() -> None:
    one, other = traffic(SOUND, SOUND).step(1, 25), traffic(SOUND, SOUND).step(1, 25)
    one.candidate.rows(0, 500)
    assert (one.candidate.rows(0, 10) == other.candidate.rows(0, 10)).all()
    assert requests(one.candidate.between(0, 10)) == 10 * TICK
    assert requests(one.live(0, 10)) == 10 * TICK * 3
    assert requests(traffic(SOUND, SOUND).step(0, 100).live(0, 10)) == 0


def test_looks_are_dense_at_first_and_never_stop() -> None:
    looks = [0]
    while looks[-1] < CAP:
        looks.append(next_look(looks[-1], before=0))
    assert looks[:11] == list(range(11))
    assert all(later <= 1.1 * earlier + 1 for earlier, later in pairwise(looks))
    assert [next_look(tick, before=100) for tick in (0, 5, 16)] == [5, 16, 28]


def test_promotions_end_as_they_should() -> None:
    good = promote(traffic(SOUND, SOUND))
    assert (good.outcome, good.why) == (PASSED, "")
    assert good.requests >= 3 * 4 * 50
    bad = promote(traffic(SOUND, Version(errors=0.2)))
    assert (bad.outcome, bad.why) == (ROLLED_BACK, "errors")
    assert bad.requests < good.requests


@pytest.mark.parametrize("judge", PEERS.values())
def test_peers_catch_what_is_plain_and_pass_what_is_alike(judge) -> None:  # type: ignore[no-untyped-def]
    assert judge(traffic(Version(), Version())).outcome == PASSED
    assert judge(traffic(Version(), Version(errors=0.2))).outcome == ROLLED_BACK


def test_peers_read_the_p95_that_the_product_reads() -> None:
    points = Stream(Version(sigma=1.0), 100, np.random.default_rng(3)).rows(0, 20)
    read = [percentile_ms(BOUNDS_MS, point[FIRST_BUCKET:].tolist(), 0.95) for point in points]
    assert _metrics(points)[2] == pytest.approx(read)


def test_thresholds_know_nothing_of_the_live_version() -> None:
    assert argo_in_steps(traffic(Version(errors=0.02), Version(errors=0.02))).outcome == ROLLED_BACK
    assert kayenta(traffic(Version(errors=0.02), Version(errors=0.02))).outcome == PASSED
    assert before(traffic(Version(), Version(refusals=0.5))).outcome == PASSED


def test_a_shift_is_high_beyond_a_quarter_of_its_estimate() -> None:
    rng = np.random.default_rng(0)
    baseline = rng.normal(20.0, 1.0, 50)
    assert not is_high(rng.normal(20.0, 1.0, 50), baseline)
    assert is_high(baseline + 3.0, baseline)
    assert not is_high(baseline - 3.0, baseline)
