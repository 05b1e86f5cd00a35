"""What every gate reports, to the word, and the edges at which it turns."""

from dataclasses import replace
from typing import Any

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
    golden_not_judged,
    golden_unusable,
    judge_equal_ids,
    judge_first_choices,
    judge_golden,
    judge_perplexity,
    missing,
    server_failed,
)
from serving.regions.deciding.policy import PromotionPolicy
from tests.fakes.counted import BOUNDS_MS, counters, outcomes

POLICY = PromotionPolicy()
ALONE = "no live version to compare with"
NOBODY = counters()
ASKED = counters(answered=5)


def window(candidate: Counters, live: Counters | None, **changes: Any) -> Window:
    return Window(candidate=candidate, live=live, **{"region": "here", "percent": 50, **changes})


def recorded(candidate: Counters, live: Counters) -> Window:
    return window(candidate, live, percent=100, recorded=True)


def judged(*windows: Window, policy: PromotionPolicy = POLICY, regions: int = 1) -> dict[str, GateResult]:
    return {result.gate: result for result in judge(windows, "here", policy, regions=regions)}


def result(gate: str, status: str, measured: float | None, allowed: float | None, unit: str, note: str) -> GateResult:
    return GateResult(gate=gate, measured=measured, allowed=allowed, unit=unit, status=status, note=note)


def test_the_three_ends_of_a_gate_are_named_as_the_api_has_them() -> None:
    assert (PASSED, FAILED, INCONCLUSIVE) == ("passed", "failed", "inconclusive")
    assert GateResult(gate="g", measured=1.0, allowed=2.0, unit="u", status=PASSED).to_json() == {
        "gate": "g",
        "measured": 1.0,
        "allowed": 2.0,
        "unit": "u",
        "status": "passed",
        "note": "",
    }


# Sentences


@pytest.mark.parametrize("gate", ["errors", "refusals", "latency", "accuracy", "error budget"])
def test_what_must_stay_low_is_allowed_at_most(gate: str) -> None:
    said = result(gate, FAILED, 0.25, 0.1, "points", "").sentence()
    assert said == f"gate {gate} failed: measured 0.25, allowed at most 0.1 points"


@pytest.mark.parametrize("gate", ["agreement", "score", "golden", "tokenizer"])
def test_what_must_stay_high_is_allowed_at_least(gate: str) -> None:
    said = result(gate, FAILED, 0.25, 0.5, "share", "1 of 4").sentence()
    assert said == f"gate {gate} failed: measured 0.25, allowed at least 0.5 share (1 of 4)"


@pytest.mark.parametrize(("measured", "allowed"), [(None, None), (1.0, None), (None, 1.0)])
def test_a_gate_without_figures_says_its_note(measured: float | None, allowed: float | None) -> None:
    assert result("server", FAILED, measured, allowed, "", "it ended").sentence() == "gate server failed: it ended"


def test_failures_and_what_is_missing_are_told_apart() -> None:
    ends = [result("errors", status, None, None, "", "") for status in (PASSED, FAILED, INCONCLUSIVE)]
    assert failures(ends) == [ends[1]]
    latency = [result("latency", INCONCLUSIVE, None, None, "", ""), result("score", INCONCLUSIVE, None, None, "", "")]
    assert missing(latency, POLICY) == "latency"
    assert missing([replace(latency[0], status=PASSED)], POLICY) == ""


def test_each_test_gets_its_part_of_the_false_rollbacks() -> None:
    assert Budget(false_rollbacks=0.27, regions=1).alpha == 0.27 / 27
    assert Budget(false_rollbacks=0.63, regions=3).alpha == 0.63 / 63


# Beside a live version


def test_nothing_counted_is_reported_with_what_would_be_allowed() -> None:
    assert list(judged(window(NOBODY, NOBODY)).values()) == [
        result("errors", INCONCLUSIVE, None, 0.01, "points", "0 of 0, live version 0 of 0"),
        result("refusals", INCONCLUSIVE, None, 0.01, "points", "0 of 0, live version 0 of 0"),
        result("latency", INCONCLUSIVE, None, 1.25, "x p95", "no answers of both versions were timed"),
        result("agreement", INCONCLUSIVE, None, 0.9, "share", "no request was compared"),
        result("accuracy", INCONCLUSIVE, None, 0.02, "points", "0 of 0, live version 0 of 0"),
        result("score", INCONCLUSIVE, None, 0.5, "share", "no request was scored"),
    ]


def test_a_share_is_reported_with_both_versions_counts() -> None:
    candidate = counters(answered=7, refused=1, failed=1, in_flight=1, overdue=1)
    both = judged(window(candidate, counters(answered=18, refused=2)))
    assert both["errors"].note == "2 of 10, live version 0 of 20"
    assert both["refusals"].note == "1 of 10, live version 2 of 20"
    assert both["errors"].measured == pytest.approx(0.2)
    assert both["refusals"].measured == pytest.approx(0.0)


def test_wrong_labels_are_reported_and_stay_within_their_count() -> None:
    candidate = counters(labelled=10, correct=7.5)
    assert judged(window(candidate, counters(labelled=4, correct=4.0)))["accuracy"] == result(
        "accuracy", INCONCLUSIVE, 0.25, 0.02, "points", "2.5 of 10, live version 0 of 4"
    )
    odd = judged(window(counters(labelled=10, correct=10.1), counters(labelled=10, correct=-0.1)))["accuracy"]
    assert odd.note == "0 of 10, live version 10 of 10"


def test_latency_is_reported_by_its_percentiles() -> None:
    candidate, live = counters(answered=20, latency_ms=30.0, spread=0.0), counters(answered=40, spread=0.0)
    said = judged(window(candidate, live))["latency"]
    assert said.note == "p50 30.39 and 10.11 ms, p95 30.39 and 10.11 ms, 20 and 40 answers"
    assert (said.measured, said.allowed, said.unit) == (pytest.approx(3.0, rel=0.02), 1.25, "x p95")


def test_latency_counts_only_windows_in_which_both_were_timed() -> None:
    slow, quick, untimed = counters(answered=400, latency_ms=30.0), counters(answered=400), counters(failed=1)
    for pair in (window(slow, untimed), window(untimed, quick)):
        assert judged(pair)["latency"].status == INCONCLUSIVE
        assert judged(pair, window(slow, quick))["latency"].status == FAILED
    bare = window(Counters(), Counters())
    assert judged(bare, window(slow, quick))["latency"].status == FAILED
    assert judged(bare)["latency"].status == INCONCLUSIVE


def test_a_real_but_allowed_slowness_passes() -> None:
    candidate, live = counters(answered=9000, latency_ms=21.0), counters(answered=9000, latency_ms=20.0)
    wide = replace(POLICY, latency_margin=1.0)
    assert judged(window(candidate, live), policy=wide)["latency"].status == PASSED


LABELS = {"labelled": 5000, "correct": 4900.0}


@pytest.mark.parametrize(
    ("labels", "pairs", "status"),
    [
        (LABELS, {"pairs": 30, "lost": 1.0, "won": 1.0}, PASSED),
        (LABELS, {"pairs": 300, "lost": 60.0, "won": 2.0}, FAILED),
        ({"labelled": 10, "correct": 9.0}, {"pairs": 3000, "lost": 20.0, "won": 20.0}, PASSED),
        ({"labelled": 10, "correct": 9.0}, {"pairs": 30, "lost": 1.0, "won": 1.0}, INCONCLUSIVE),
        ({"labelled": 5000, "correct": 3000.0}, {"pairs": 3000, "lost": 20.0, "won": 20.0}, FAILED),
    ],
)
def test_accuracy_passes_by_pairs_or_labels_and_fails_by_either(
    labels: dict[str, Any], pairs: dict[str, Any], status: str
) -> None:
    said = judged(window(counters(**labels, **pairs), counters(**LABELS)))["accuracy"]
    assert said.status == status
    if status != FAILED:
        assert said.measured == pytest.approx((pairs["lost"] - pairs["won"]) / pairs["pairs"])


def test_accuracy_by_pairs_is_reported_with_the_labels() -> None:
    ours, live = counters(pairs=30, lost=2.5, won=1.0, labelled=10, correct=9.0), counters(labelled=20, correct=20.0)
    note = "30 pairs: 2.5 lost, 1 won; 1 of 10, live version 0 of 20"
    expected = result("accuracy", INCONCLUSIVE, 0.05, 0.02, "points", note)
    assert judged(window(ours, live))["accuracy"] == expected
    there = window(NOBODY, ASKED, region="there")
    assert judged(there, window(ours, live), regions=2)["accuracy"] == expected


def test_agreement_and_score_are_reported_as_shares() -> None:
    agreed = judged(window(counters(compared=40, agreed=39.5), ASKED))["agreement"]
    assert agreed == result("agreement", agreed.status, 0.9875, 0.9, "share", "39.5 of 40 compared")
    scored = judged(window(NOBODY, ASKED, scores=Scores(count=4, total=3.0)))["score"]
    assert scored == result("score", INCONCLUSIVE, 0.75, 0.5, "share", "3 of 4 scored")


def test_sums_that_exceed_their_count_by_rounding_are_all_of_it() -> None:
    assert judged(window(counters(compared=200, agreed=200.0000001), ASKED))["agreement"].status == PASSED
    scores = Scores(count=200, total=200.0000001)
    assert judged(window(NOBODY, ASKED, scores=scores))["score"].status == PASSED


def test_a_region_that_answers_otherwise_does_not_hide_behind_the_others() -> None:
    there = window(counters(compared=20_000, agreed=20_000.0), ASKED, region="there")
    here = window(counters(compared=100, agreed=50.0), ASKED)
    assert judged(there, here, regions=2)["agreement"].status == FAILED
    assert judged(there, window(NOBODY, ASKED), regions=2)["agreement"].status == PASSED


# Against what was recorded


def test_what_was_recorded_fails_from_the_margin_on() -> None:
    half = replace(POLICY, error_margin=0.5)
    at = judged(recorded(counters(answered=100, failed=100), counters(answered=200)), policy=half)["errors"]
    assert at == result("errors", FAILED, 0.5, 0.5, "points", "100 of 200, live version 0 of 200, as recorded before")
    below = judged(recorded(counters(answered=101, failed=99), counters(answered=200)), policy=half)["errors"]
    assert below.status != FAILED
    assert below.note == "99 of 200, live version 0 of 200"


def test_a_difference_without_evidence_is_no_failure_of_what_was_recorded() -> None:
    assert judged(recorded(counters(answered=9, failed=1), counters(answered=10)))["errors"].status == INCONCLUSIVE


def test_side_by_side_is_shown_unless_what_was_recorded_fails() -> None:
    side = window(counters(answered=900), counters(answered=900))
    sound = judged(side, recorded(counters(answered=50), counters(answered=90)))
    assert (sound["errors"].status, sound["errors"].note) == (PASSED, "0 of 900, live version 0 of 900")
    assert sound["latency"].note.endswith("900 and 900 answers")
    bad = judged(side, recorded(counters(answered=50, failed=50), counters(answered=90)))
    assert bad["errors"].note == "50 of 100, live version 0 of 90, as recorded before"
    slow = judged(side, recorded(counters(answered=300, latency_ms=40.0), counters(answered=90)))["latency"]
    assert (slow.status, slow.note.endswith("300 and 90 answers")) == (FAILED, True)
    assert (slow.measured or 0.0) > 3.5


def test_a_recorded_latency_fails_beyond_the_margin_alone() -> None:
    live = counters(answered=5000, latency_ms=20.0)
    within = recorded(counters(answered=5000, latency_ms=23.0), live)
    assert judged(within)["latency"].status != FAILED
    assert judged(recorded(counters(answered=5000, latency_ms=30.0), live))["latency"].status == FAILED


def test_only_the_open_window_is_held_against_what_was_recorded() -> None:
    earlier = recorded(counters(failed=500), counters(answered=500))
    assert judged(earlier, recorded(counters(answered=500), counters(answered=500)))["errors"].status != FAILED


# Without a live version


def test_without_a_live_version_every_gate_reports_its_own_bound() -> None:
    candidate = counters(answered=37, refused=2, failed=1, latency_ms=20.0, spread=0.0)
    said = judged(window(candidate, None))
    assert list(said.values()) == [
        result("errors", INCONCLUSIVE, 0.025, 0.01, "share", f"1 of 40 requests; {ALONE}"),
        result("refusals", said["refusals"].status, 0.05, 0.5, "share", f"2 of 40 requests; {ALONE}"),
        result("latency", INCONCLUSIVE, said["latency"].measured, 250.0, "ms p95", f"0 of 37 answers slower; {ALONE}"),
        result("agreement", INCONCLUSIVE, None, 0.9, "share", ALONE),
        result("accuracy", INCONCLUSIVE, None, 0.02, "points", ALONE),
        result("score", INCONCLUSIVE, None, 0.5, "share", ALONE),
    ]
    assert said["latency"].measured == pytest.approx(20.0, rel=0.05)


def test_nobody_alone_is_inconclusive_by_name() -> None:
    said = judged(window(NOBODY, None))
    assert [(said[gate].unit, said[gate].note) for gate in ("errors", "refusals", "latency")] == [
        ("share", "no request has an outcome"),
        ("share", "no request has an outcome"),
        ("ms p95", "no answer was timed"),
    ]
    assert [said[gate].allowed for gate in ("errors", "refusals", "latency")] == [0.01, 0.5, 250.0]


def test_an_answer_is_slow_from_the_bound_on() -> None:
    bound = BOUNDS_MS[100]
    policy = replace(POLICY, max_p95_ms=bound)
    just_over = counters(answered=300, latency_ms=bound * 1.001, spread=0.0)
    assert judged(window(just_over, None), policy=policy)["latency"].note == f"300 of 300 answers slower; {ALONE}"
    just_under = counters(answered=300, latency_ms=bound * 0.999, spread=0.0)
    assert judged(window(just_under, None), policy=policy)["latency"].note == f"0 of 300 answers slower; {ALONE}"


def test_regions_without_a_live_version_are_judged_together_and_each_alone() -> None:
    there, here = window(counters(answered=9000), None, region="there"), window(counters(answered=30, failed=30), None)
    elsewhere = window(counters(failed=500), counters(answered=500), region="yonder")
    both = judged(elsewhere, there, here, regions=3)
    assert (both["errors"].status, both["errors"].note) == (FAILED, f"30 of 9060 requests; {ALONE}")
    sound = judged(elsewhere, there, window(NOBODY, None), regions=3)
    assert (sound["errors"].status, sound["latency"].status) == (PASSED, PASSED)
    bare = judged(there, window(Counters(), None), regions=2)
    assert bare["latency"].note == f"0 of 9000 answers slower; {ALONE}"


# The golden set and what no figure decides


def test_the_golden_set_is_reported_with_its_reference() -> None:
    said = judge_golden(correct=80, agreed=95, samples=100, reference_accuracy=0.82, how="argmax", policy=POLICY)
    assert said == [
        result("golden", PASSED, 0.8, pytest.approx(0.8), "accuracy", "100 samples, FP32 reference 0.82"),
        result("golden agreement", PASSED, 0.95, 0.9, "share", "argmax, 100 samples"),
    ]
    hopeless = judge_golden(correct=0, agreed=100, samples=100, reference_accuracy=0.01, how="argmax", policy=POLICY)
    assert (hopeless[0].allowed, hopeless[0].status) == (0.0, PASSED)


def test_equal_token_ids_are_reported_as_a_share() -> None:
    assert judge_equal_ids("tokenizer", []) == result(
        "tokenizer", INCONCLUSIVE, None, 1.0, "share", "the golden set has none"
    )
    assert judge_equal_ids("tokenizer", [True] * 4) == result(
        "tokenizer", PASSED, 1.0, 1.0, "share", "4 of 4 with equal token ids"
    )
    other = "1 of 4 with equal token ids, the first other one is number 1"
    assert judge_equal_ids("chat template", [False, False, True, False]) == result(
        "chat template", FAILED, 0.25, 1.0, "share", other
    )


def test_perplexity_is_reported_with_bits_per_byte() -> None:
    note = "FP32 reference 10; bits per byte 1.5, reference 1.25"
    assert judge_perplexity(15.0, 10.0, 1.5, bits_per_byte=(1.5, 1.25)) == result(
        "golden", PASSED, 15.0, 15.0, "perplexity", note
    )
    assert judge_perplexity(15.1, 10.0, 1.5, bits_per_byte=(1.5, 1.25)).status == FAILED


def test_first_choices_are_reported_with_their_lead() -> None:
    gate, note = "golden agreement", "3 of 4 first choices that lead by 0.5 nats or more"
    assert judge_first_choices(3, 4, 0.5) == result(gate, FAILED, 0.75, 1.0, "share", note)
    assert judge_first_choices(1, 1, 0.5).status == PASSED
    nowhere = "the reference leads nowhere by 0.5 nats"
    assert judge_first_choices(0, 0, 0.5) == result(gate, INCONCLUSIVE, None, 1.0, "share", nowhere)


def test_a_golden_set_that_is_missing_is_no_failure_and_one_that_is_broken_is() -> None:
    assert golden_not_judged("none") == result("golden", INCONCLUSIVE, None, None, "accuracy", "none")
    assert golden_unusable("broken") == result("golden", FAILED, None, None, "", "broken")
    assert server_failed("it ended") == result("server", FAILED, None, None, "", "it ended")


def test_requests_are_reported_with_the_replayed() -> None:
    policy = replace(POLICY, min_requests=3)
    replayed = counters(answered=1, synthetic=outcomes(answered=2))
    assert judge_requests(window(replayed, None), policy) == result(
        "requests", INCONCLUSIVE, 1.0, 3.0, "requests", "2 more replayed"
    )
    assert judge_requests(window(replayed, None, replays_count=True), policy) == result(
        "requests", PASSED, 3.0, 3.0, "requests", "2 of them replayed"
    )
    assert judge_requests(window(counters(answered=2), None), policy).status == INCONCLUSIVE


def test_the_error_budget_is_reported_and_may_be_switched_off() -> None:
    nobody = "the live version has answered nobody yet"
    assert judge_error_budget(NOBODY, POLICY) == result("error budget", INCONCLUSIVE, None, 0.05, "share", nobody)
    note = "50 of 200 requests of the live version; error_budget 1 lets a remedy through"
    bad = counters(answered=150, failed=50)
    assert judge_error_budget(bad, POLICY) == result("error budget", FAILED, 0.25, 0.05, "share", note)
    assert judge_error_budget(bad, replace(POLICY, error_budget=0.0)).status == FAILED
    remedy = judge_error_budget(bad, replace(POLICY, error_budget=1.0))
    assert (remedy.status, remedy.measured, remedy.allowed) == (PASSED, 0.25, 1.0)
