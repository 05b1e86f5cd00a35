"""Gates: each one passes and fails on figures alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadUpstream
from serving.regions.deciding.gates import (
    FAILED,
    NOT_JUDGED,
    PASSED,
    chance_of_at_most,
    errors_cannot_pass,
    judge_accuracy,
    judge_agreement,
    judge_errors,
    judge_golden,
    judge_latency,
    judge_step,
)
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.windows import Counters, Snapshot, parse_snapshot

POLICY = PromotionPolicy(
    min_requests=100, max_error_rate=0.02, p95_floor_ms=10.0, max_p95_ms=200.0, max_p95_ratio=2.0, min_labelled=30
)


def timed(*counts: int) -> Counters:
    """Answers in the buckets up to 5, 50 and 100 ms, and above."""
    return Counters(requests=sum(counts), bounds_ms=(5.0, 50.0, 100.0), counts=counts)


def test_errors_within_the_bound_pass_and_one_more_fails() -> None:
    assert judge_errors(Counters(requests=100, errors=2), POLICY).status == PASSED
    failed = judge_errors(Counters(requests=100, errors=3), POLICY)
    assert failed.status == FAILED
    assert failed.sentence() == ("gate errors failed: measured 0.03, allowed at most 0.02 share (3 of 100 requests)")


def test_a_step_fails_early_once_its_errors_are_too_many_for_all_of_its_requests() -> None:
    assert not errors_cannot_pass(Counters(requests=3, errors=2), POLICY)
    assert errors_cannot_pass(Counters(requests=3, errors=3), POLICY)


def test_requests_in_flight_are_no_evidence() -> None:
    assert Counters(requests=120, in_flight=100).finished == 20


def test_latency_is_held_against_the_absolute_bound_without_a_live_version() -> None:
    assert judge_latency(timed(0, 0, 100, 0), None, POLICY).status == PASSED
    strict = PromotionPolicy(max_p95_ms=60.0)
    failed = judge_latency(timed(0, 0, 100, 0), None, strict)
    assert (failed.status, failed.measured, failed.allowed) == (FAILED, 100.0, 60.0)


def test_latency_is_held_against_twice_the_live_versions() -> None:
    live = timed(0, 100, 0, 0)
    assert judge_latency(timed(0, 0, 100, 0), live, POLICY).status == PASSED
    failed = judge_latency(timed(0, 0, 100, 0), timed(100, 0, 0, 0), POLICY)
    assert (failed.status, failed.allowed) == (FAILED, 10.0)
    assert "p95 floor" in failed.note


def test_a_few_answers_of_the_live_version_are_no_measure() -> None:
    assert judge_latency(timed(0, 0, 100, 0), timed(19, 0, 0, 0), POLICY).status == PASSED


def test_latency_beyond_the_last_bucket_fails_with_a_finite_figure() -> None:
    failed = judge_latency(timed(0, 0, 50, 50), None, POLICY)
    assert (failed.status, failed.measured) == (FAILED, 100.0)


def test_agreement_fails_only_beyond_chance() -> None:
    live = Counters()
    assert judge_agreement(Counters(compared=50, agreed=45), live, POLICY).status == PASSED
    unlucky = judge_agreement(Counters(compared=50, agreed=43), live, POLICY)
    assert unlucky.status == PASSED
    assert "by chance" in unlucky.note
    assert judge_agreement(Counters(compared=50, agreed=38), live, POLICY).status == FAILED
    assert judge_agreement(Counters(compared=5000, agreed=4300), live, POLICY).status == FAILED


def test_agreement_needs_a_live_version() -> None:
    assert judge_agreement(Counters(compared=0), None, POLICY).status == NOT_JUDGED
    assert judge_agreement(Counters(compared=0), Counters(), POLICY).status == NOT_JUDGED


def test_accuracy_is_judged_on_enough_feedback_against_the_live_version() -> None:
    live = Counters(labelled=200, correct=194)
    assert judge_accuracy(Counters(labelled=29), live, live, POLICY).status == NOT_JUDGED
    assert judge_accuracy(Counters(labelled=40, correct=39), live, live, POLICY).status == PASSED
    failed = judge_accuracy(Counters(labelled=40, correct=30), live, live, POLICY)
    assert failed.status == FAILED
    assert failed.allowed == pytest.approx(0.95)


def test_accuracy_falls_back_to_the_live_versions_feedback_since_boot() -> None:
    candidate, boot = Counters(labelled=40, correct=20), Counters(labelled=200, correct=194)
    assert judge_accuracy(candidate, Counters(labelled=2), boot, POLICY).status == FAILED
    assert judge_accuracy(candidate, Counters(), Counters(), POLICY).status == NOT_JUDGED


def test_golden_set_has_no_allowance_for_chance() -> None:
    def statuses(correct: int, agreed: int) -> list[str]:
        results = judge_golden(correct=correct, agreed=agreed, samples=100, reference_accuracy=0.98, policy=POLICY)
        return [result.status for result in results]

    assert statuses(96, 90) == [PASSED, PASSED]
    assert statuses(95, 90) == [FAILED, PASSED]
    assert statuses(96, 89) == [PASSED, FAILED]


def test_every_canary_gate_is_reported() -> None:
    results = judge_step(timed(100, 0, 0, 0), None, None, POLICY)
    assert [(r.gate, r.status) for r in results] == [
        ("errors", PASSED),
        ("latency", PASSED),
        ("agreement", NOT_JUDGED),
        ("accuracy", NOT_JUDGED),
    ]


@given(total=st.integers(1, 300), good=st.integers(0, 300), share=st.floats(0.01, 0.99))
def test_chance_is_a_probability_that_grows_with_the_count(total: int, good: int, share: float) -> None:
    good = min(good, total)
    chance = chance_of_at_most(good, total, share)
    assert 0.0 <= chance <= 1.0
    assert good == 0 or chance_of_at_most(good - 1, total, share) <= chance


def test_chance_matches_a_hand_computed_binomial() -> None:
    # 3 fair coins: P(X <= 1) = (1 + 3) / 8.
    assert chance_of_at_most(1, 3, 0.5) == pytest.approx(0.5)


def test_a_window_is_the_difference_within_one_boot_and_everything_after_another() -> None:
    start = Snapshot(boot_id="a", backends={"x": Counters(requests=10, errors=1)})
    same = Snapshot(boot_id="a", backends={"x": Counters(requests=15, errors=3), "y": Counters(requests=2)})
    other = Snapshot(boot_id="b", backends={"x": Counters(requests=4)})
    assert (same.since(start).of("x").requests, same.since(start).of("x").errors) == (5, 2)
    assert same.since(start).of("y").requests == 2
    assert other.since(start).of("x").requests == 4
    assert same.since(None) == same


def test_a_snapshot_survives_json_and_refuses_rubbish() -> None:
    snapshot = Snapshot(boot_id="a", backends={"x": timed(1, 2, 3, 4)})
    assert parse_snapshot(snapshot.to_json()) == snapshot
    for rubbish in ({}, {"boot_id": "a", "backends": []}, {"boot_id": "a", "backends": {"x": {"requests": 1}}}):
        with pytest.raises(BadUpstream):
            parse_snapshot(rubbish)
