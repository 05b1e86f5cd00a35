"""Gates: each one passes, fails or stays inconclusive on figures alone."""

from dataclasses import replace

import pytest

from serving.counters import Counters
from serving.regions.deciding.evidence import Scores, Window
from serving.regions.deciding.evidence_gates import Budget, judge, judge_error_budget, judge_requests
from serving.regions.deciding.gates import (
    FAILED,
    INCONCLUSIVE,
    PASSED,
    GateResult,
    failures,
    judge_equal_ids,
    judge_first_choices,
    judge_golden,
    judge_perplexity,
    missing,
    verdict,
)
from serving.regions.deciding.policy import EVIDENCE_GATES, PromotionPolicy
from tests.fakes.counted import counters, outcomes

POLICY = PromotionPolicy()


def window(candidate: Counters, live: Counters | None, *, region: str = "here", percent: int = 50) -> Window:
    return Window(region=region, percent=percent, candidate=candidate, live=live)


def judged(*windows: Window, policy: PromotionPolicy = POLICY, regions: int = 1) -> dict[str, GateResult]:
    return {gate.gate: gate for gate in judge(windows, "here", policy, regions=regions)}


def status(gate: str, candidate: Counters, live: Counters | None, policy: PromotionPolicy = POLICY) -> str:
    return judged(window(candidate, live), policy=policy)[gate].status


def test_every_gate_is_reported_once() -> None:
    assert tuple(judged(window(counters(answered=10), counters(answered=10)))) == EVIDENCE_GATES
    assert tuple(judged(window(counters(answered=10), None))) == EVIDENCE_GATES


def test_nothing_counted_is_inconclusive_everywhere() -> None:
    for live in (counters(), None):
        results = judged(window(counters(), live))
        assert {gate.status for gate in results.values()} == {INCONCLUSIVE}
        assert verdict(list(results.values()), POLICY) == INCONCLUSIVE


# Errors and refusals


@pytest.mark.parametrize("ending", ["failed", "overloaded", "late", "abandoned", "unknown"])
def test_every_fault_speaks_against_the_version_and_an_answer_does_not(ending: str) -> None:
    faulty, sound = counters(answered=80, **{ending: 20}), counters(answered=100)
    failed = judged(window(faulty, sound))["errors"]
    assert (failed.status, failed.measured, failed.allowed) == (FAILED, pytest.approx(0.2), 0.01)
    assert failed.sentence() == (
        "gate errors failed: measured 0.2, allowed at most 0.01 points (20 of 100, live version 0 of 100)"
    )
    assert status("errors", sound, faulty) == PASSED


def test_what_both_versions_fail_says_nothing_about_the_candidate() -> None:
    assert status("errors", counters(answered=990, failed=10), counters(answered=990, failed=10)) == INCONCLUSIVE
    assert status("errors", counters(answered=9900, failed=100), counters(answered=9900, failed=100)) == PASSED


def test_a_live_version_beyond_its_error_budget_is_no_control() -> None:
    crashed = counters(answered=100, failed=200)
    bad = judged(window(counters(answered=100, failed=200), crashed))["errors"]
    assert (bad.status, bad.measured, bad.allowed) == (FAILED, pytest.approx(2 / 3), POLICY.error_budget)
    assert bad.note == "200 of 300, live version 200 of 300: no control, so error_budget 0.05 is the bound"
    assert status("errors", counters(answered=300), crashed) == PASSED
    assert status("errors", counters(answered=39, failed=1), crashed) == INCONCLUSIVE
    assert status("errors", counters(), crashed) == INCONCLUSIVE
    worse = judged(window(counters(failed=3000), counters(answered=1000, failed=2000)))["errors"]
    assert (worse.status, worse.allowed) == (FAILED, POLICY.error_margin)
    remedy = replace(POLICY, error_budget=1.0)
    alike = counters(answered=100_000, failed=200_000)
    assert status("errors", alike, alike, remedy) == PASSED


def test_a_candidate_that_fails_beside_a_live_version_that_nobody_asks_is_not_let_through() -> None:
    alone = judged(window(counters(failed=88), counters()))["errors"]
    assert (alone.status, alone.measured) == (FAILED, pytest.approx(1.0))
    assert alone.note == "88 of 88, live version 0 of 0: no control, so error_budget 0.05 is the bound"
    assert status("errors", counters(answered=88), counters()) == INCONCLUSIVE
    assert status("errors", counters(failed=1), counters()) == INCONCLUSIVE
    assert status("errors", counters(failed=88), counters(), replace(POLICY, error_budget=1.0)) == INCONCLUSIVE


def test_a_live_version_within_its_error_budget_is_a_control_however_much_was_counted() -> None:
    at_budget = counters(answered=95_000, failed=5_000)
    assert status("errors", at_budget, at_budget) == PASSED
    assert status("errors", at_budget, at_budget, replace(POLICY, error_budget=0.04)) == FAILED


def test_a_region_whose_live_version_crashed_is_no_control_though_all_regions_together_are() -> None:
    sound, crashed = counters(answered=100_000), counters(answered=100, failed=200)
    elsewhere = window(sound, sound, region="elsewhere")
    together = judged(elsewhere, window(counters(answered=120, failed=180), crashed), regions=2)["errors"]
    assert (together.status, together.allowed) == (FAILED, POLICY.error_budget)
    assert judged(elsewhere, window(counters(answered=20), crashed), regions=2)["errors"].status == INCONCLUSIVE
    assert judged(elsewhere, window(counters(answered=300), crashed), regions=2)["errors"].status == PASSED


def test_requests_that_hang_beyond_their_bound_are_errors_before_they_end() -> None:
    hanging = counters(answered=0, in_flight=30, overdue=30)
    result = judged(window(hanging, counters(answered=100)))["errors"]
    assert (result.status, result.measured) == (FAILED, pytest.approx(1.0))
    assert status("errors", counters(in_flight=30), counters(answered=100)) == INCONCLUSIVE


def test_a_version_that_refuses_what_the_live_one_answers_fails_by_its_refusals() -> None:
    refusing = judged(window(counters(refused=12), counters(answered=60)))
    assert refusing["refusals"].status == FAILED
    assert refusing["errors"].status != FAILED
    alike = judged(window(counters(answered=900, refused=100), counters(answered=900, refused=100)))
    assert alike["refusals"].status == INCONCLUSIVE


def test_one_error_more_in_a_few_requests_is_no_verdict() -> None:
    assert status("errors", counters(answered=49, failed=1), counters(answered=950)) == INCONCLUSIVE


def test_a_difference_within_the_margin_passes_though_it_is_real() -> None:
    candidate, live = counters(answered=99_000, failed=1_000), counters(answered=100_000)
    wide = replace(POLICY, error_margin=0.05)
    assert status("errors", candidate, live, wide) == PASSED
    assert status("errors", candidate, live) == FAILED


def test_only_users_are_evidence_unless_the_policy_takes_replays() -> None:
    failing = outcomes(failed=30)
    only_replays = counters(synthetic=failing)
    assert status("errors", only_replays, counters(answered=100)) == INCONCLUSIVE
    counted = Window(region="here", percent=50, candidate=only_replays, live=counters(answered=100), replays_count=True)
    assert judged(counted)["errors"].status == FAILED


# Latency


def test_a_wide_margin_is_kept_however_evident_a_small_difference_is() -> None:
    live, slower = counters(answered=60, latency_ms=0.7), counters(answered=60, latency_ms=1.0)
    assert status("latency", slower, live) == FAILED
    assert status("latency", slower, live, replace(POLICY, latency_margin=1000.0)) == INCONCLUSIVE
    far = counters(answered=60, latency_ms=1000.0)
    assert status("latency", far, live, replace(POLICY, latency_margin=1000.0)) == FAILED


def test_slower_answers_fail_and_equal_ones_pass() -> None:
    live = counters(answered=2000, latency_ms=20.0)
    assert status("latency", counters(answered=2000, latency_ms=20.0), live) == PASSED
    slow = judged(window(counters(answered=400, latency_ms=30.0), live))["latency"]
    assert slow.status == FAILED
    assert slow.measured == pytest.approx(1.5, rel=0.05)
    assert (slow.allowed, slow.unit) == (1.25, "x p95")
    assert "400 and 2000 answers" in slow.note


def test_a_version_that_is_slow_for_one_user_in_eight_fails_by_its_tail() -> None:
    live = counters(answered=1600, latency_ms=20.0)
    users = outcomes(answered=350, latency_ms=20.0)
    late = outcomes(answered=50, latency_ms=200.0)
    both = tuple(a + b for a, b in zip(users.latencies, late.latencies, strict=True))
    candidate = replace(counters(answered=400), users=replace(users, answered=400, latencies=both))
    assert status("latency", candidate, live) == FAILED


def test_answers_that_nobody_timed_are_inconclusive() -> None:
    result = judged(window(counters(failed=5), counters(answered=50)))["latency"]
    assert (result.status, result.note) == (INCONCLUSIVE, "no answers of both versions were timed")


# Accuracy and agreement


def test_accuracy_falls_with_wrong_labels_and_rows_of_one_request_are_one_sample() -> None:
    live = counters(answered=0, labelled=2000, correct=1900.0)
    assert status("accuracy", counters(labelled=400, correct=300.0), live) == FAILED
    assert status("accuracy", counters(labelled=3000, correct=2850.0), live) == PASSED
    assert status("accuracy", counters(labelled=40, correct=38.5), live) == INCONCLUSIVE
    assert status("accuracy", counters(), live) == INCONCLUSIVE


def test_pairs_decide_where_both_answered_the_same_request() -> None:
    live = counters(labelled=10, correct=9.0)
    lost = judged(window(counters(pairs=300, lost=30.0, won=2.0), live))["accuracy"]
    assert (lost.status, lost.measured) == (FAILED, pytest.approx(28 / 300))
    assert lost.note.startswith("300 pairs: 30 lost, 2 won")
    assert status("accuracy", counters(pairs=3000, lost=20.0, won=20.0), live) == PASSED
    assert status("accuracy", counters(pairs=30, lost=1.0, won=1.0), live) == INCONCLUSIVE


def test_agreement_is_held_against_its_bound() -> None:
    live = counters(answered=100)
    assert status("agreement", counters(compared=100, agreed=100.0), live) == PASSED
    assert status("agreement", counters(compared=100, agreed=50.0), live) == FAILED
    assert status("agreement", counters(compared=50, agreed=44.0), live) == INCONCLUSIVE
    result = judged(window(counters(compared=40, agreed=39.5), live))["agreement"]
    assert result.note == "39.5 of 40 compared"


def test_scores_of_completions_are_held_against_their_bound() -> None:
    def scored(count: int, total: float) -> GateResult:
        scores = Scores(count=count, total=total)
        return judged(replace(window(counters(), counters(answered=5)), scores=scores))["score"]

    assert scored(200, 180.0).status == PASSED
    assert scored(200, 30.0).status == FAILED
    assert scored(5, 3.0).status == INCONCLUSIVE
    assert Scores().plus([0.5, 1.0]) == Scores(count=2, total=1.5)


# Over steps and regions


def test_evidence_adds_up_over_steps_and_regions() -> None:
    one = window(counters(answered=250), counters(answered=250))
    elsewhere = [replace(one, region=name) for name in ("there", "yonder")]
    assert judged(one, regions=3)["errors"].status == INCONCLUSIVE
    assert judged(*elsewhere, *elsewhere, *elsewhere, one, regions=3)["errors"].status == PASSED


def test_a_region_where_the_version_is_bad_does_not_hide_behind_the_others() -> None:
    good = [window(counters(answered=9000), counters(answered=9000, failed=400), region=n) for n in ("a", "b")]
    bad = window(counters(answered=80, failed=20), counters(answered=300), percent=25)
    results = judge([*good, bad], "here", POLICY, regions=3)
    assert {gate.gate for gate in failures(results)} == {"errors"}
    assert judged(*good, regions=3)["errors"].status == PASSED


def test_the_budget_is_divided_over_tests_and_scopes() -> None:
    assert Budget(false_rollbacks=0.01, regions=1).alpha == pytest.approx(0.01 / (9 * 3))
    assert Budget(false_rollbacks=0.01, regions=3).alpha == pytest.approx(0.01 / (9 * 7))


def test_what_was_recorded_before_counts_only_beyond_the_margin() -> None:
    live = counters(answered=20_000, failed=20)
    slightly = counters(answered=9_940, failed=60)
    recorded = replace(window(slightly, live, percent=100), recorded=True)
    assert judged(recorded)["errors"].status == PASSED
    badly = replace(window(counters(answered=980, failed=20), live, percent=100), recorded=True)
    failed = judged(badly)["errors"]
    assert failed.status == FAILED
    assert failed.note.endswith("as recorded before")
    slow = replace(window(counters(answered=500, latency_ms=40.0), live, percent=100), recorded=True)
    assert judged(slow)["latency"].status == FAILED


# Without a live version


def test_without_a_live_version_the_absolute_bounds_hold() -> None:
    sound = judged(window(counters(answered=1000, latency_ms=20.0), None))
    assert [sound[name].status for name in ("errors", "refusals", "latency")] == [PASSED] * 3
    assert sound["latency"].unit == "ms p95"
    assert {sound[name].status for name in ("agreement", "accuracy", "score")} == {INCONCLUSIVE}
    assert status("errors", counters(answered=80, failed=20), None) == FAILED
    assert status("latency", counters(answered=200, latency_ms=600.0), None) == FAILED
    assert status("errors", counters(answered=20), None) == INCONCLUSIVE


def test_a_first_release_that_refuses_most_users_fails() -> None:
    assert status("refusals", counters(refused=40), None) == FAILED
    assert status("refusals", counters(answered=80, refused=20), None) == PASSED


# The verdict


def results(**statuses: str) -> list[GateResult]:
    return [
        GateResult(gate=gate, measured=None, allowed=None, unit="", status=known) for gate, known in statuses.items()
    ]


def test_the_verdict_needs_every_required_gate_and_no_failure() -> None:
    assert verdict(results(errors=PASSED, refusals=PASSED, latency=PASSED), POLICY) == PASSED
    assert verdict(results(errors=PASSED, refusals=PASSED, latency=PASSED, accuracy=INCONCLUSIVE), POLICY) == PASSED
    assert verdict(results(errors=PASSED, refusals=PASSED, latency=INCONCLUSIVE), POLICY) == INCONCLUSIVE
    assert verdict(results(errors=PASSED, refusals=PASSED), POLICY) == INCONCLUSIVE
    assert verdict(results(errors=PASSED, refusals=PASSED, latency=PASSED, accuracy=FAILED), POLICY) == FAILED
    assert missing(results(errors=INCONCLUSIVE, refusals=PASSED, latency=INCONCLUSIVE), POLICY) == "errors, latency"


def test_what_needs_a_live_version_is_not_required_of_a_first_release() -> None:
    policy = replace(POLICY, required_gates=["errors", "accuracy", "agreement"])
    found = results(errors=PASSED, accuracy=INCONCLUSIVE, agreement=INCONCLUSIVE)
    assert verdict(found, policy, alone=True) == PASSED
    assert verdict(found, policy) == INCONCLUSIVE
    assert missing(found, policy, alone=True) == ""
    assert missing(results(errors=INCONCLUSIVE), policy, alone=True) == "errors"


def test_requests_are_counted_with_those_that_hang() -> None:
    policy = replace(POLICY, min_requests=10)
    enough = judge_requests(window(counters(answered=7, failed=1, in_flight=9, overdue=2), None), policy)
    assert (enough.status, enough.measured, enough.allowed, enough.note) == (PASSED, 10.0, 10.0, "")
    few = judge_requests(window(counters(answered=9, synthetic=outcomes(answered=5)), None), policy)
    assert (few.status, few.note) == (INCONCLUSIVE, "5 more replayed")
    counted = replace(window(counters(answered=9, synthetic=outcomes(answered=5)), None), replays_count=True)
    assert judge_requests(counted, policy).note == "5 of them replayed"
    assert judge_requests(counted, policy).measured == 14.0


def test_the_error_budget_is_spent_beyond_chance_alone() -> None:
    assert judge_error_budget(counters(), POLICY).status == INCONCLUSIVE
    assert judge_error_budget(counters(answered=94, failed=6), POLICY).status == PASSED
    spent = judge_error_budget(counters(answered=800, failed=200), POLICY)
    assert (spent.status, spent.measured, spent.allowed) == (FAILED, 0.2, 0.05)
    assert judge_error_budget(counters(failed=200), replace(POLICY, error_budget=1.0)).status == PASSED


# The golden set


def test_golden_set_has_no_allowance_for_chance() -> None:
    def statuses(correct: int, agreed: int) -> list[str]:
        found = judge_golden(
            correct=correct, agreed=agreed, samples=100, reference_accuracy=0.98, how="argmax", policy=POLICY
        )
        return [result.status for result in found]

    assert statuses(96, 90) == [PASSED, PASSED]
    assert statuses(95, 90) == [FAILED, PASSED]
    assert statuses(96, 89) == [PASSED, FAILED]


def test_token_ids_and_first_choices_must_all_be_equal() -> None:
    assert judge_equal_ids("tokenizer", []).status == INCONCLUSIVE
    assert judge_equal_ids("tokenizer", [True, True]).status == PASSED
    other = judge_equal_ids("tokenizer", [True, False, True])
    assert (other.status, other.note) == (FAILED, "2 of 3 with equal token ids, the first other one is number 2")
    assert judge_first_choices(0, 0, 0.5).status == INCONCLUSIVE
    assert judge_first_choices(9, 9, 0.5).status == PASSED
    assert judge_first_choices(8, 9, 0.5).status == FAILED


def test_perplexity_may_reach_its_bound() -> None:
    assert judge_perplexity(11.0, 10.0, 1.1, bits_per_byte=(1.0, 1.0)).status == PASSED
    over = judge_perplexity(11.1, 10.0, 1.1, bits_per_byte=(1.0, 1.0))
    assert over.status == FAILED
    assert over.sentence().startswith("gate golden failed: measured 11.1, allowed at most 11 perplexity")


def test_a_gate_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    gate = results(errors=PASSED)[0]
    assert GateResult.from_json({**gate.to_json(), "seen_by": "tomorrow"}) == gate


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_margins_at_their_ends_are_judged_and_hide_no_other_gate(margin: float) -> None:
    policy = PromotionPolicy(max_accuracy_drop=margin, error_margin=margin or 0.01, refusal_margin=margin or 0.01)
    right = counters(answered=200, labelled=200, correct=190.0, pairs=200, won=2.0, lost=2.0)
    assert status("accuracy", right, counters(answered=200, labelled=200, correct=190.0), policy) == (
        PASSED if margin else INCONCLUSIVE
    )
    wrong = counters(answered=200, failed=50, labelled=200, correct=20.0, pairs=200, lost=170.0)
    results = judged(window(wrong, counters(answered=250, labelled=200, correct=190.0)), policy=policy)
    assert {results["errors"].status, results["accuracy"].status} == ({PASSED} if margin else {FAILED})


def test_rounded_sums_of_pairs_are_judged() -> None:
    """A candidate that is right wherever the live version is wrong: thirds of rows that add up to a little more."""
    ours = counters(answered=100, pairs=10, lost=22 / 3, won=8 / 3 + 1e-14)
    assert ours.lost + ours.won > ours.pairs
    assert status("accuracy", ours, counters(answered=100)) == INCONCLUSIVE
    all_lost = counters(answered=100, pairs=40, lost=40.0 + 1e-13)
    assert status("accuracy", all_lost, counters(answered=100)) == FAILED
