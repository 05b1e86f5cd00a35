"""How often the gates are wrong, and how many requests they need: simulated promotions of three regions.

    python -m tests.bench.bench_gates [--quick] [--processes N]

The product's own `decide` judges simulated users (gates_promotion.py, gates_traffic.py) under the default policy;
peers judge the same users (gates_peers.py). Writes `build/bench/gates.json` and exits 1 if a bound is not met.
A/A promotions, in which candidate and live version are alike, run 1,000 times (peers: the first 100 of them), the
others 200 times.
"""

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from serving.regions.deciding.evidence import Window
from serving.regions.deciding.evidence_gates import judge as judge_windows
from serving.regions.deciding.policy import PromotionPolicy
from tests.bench.gates_peers import PEERS
from tests.bench.gates_promotion import CAP, INCONCLUSIVE, PASSED, REGIONS, ROLLED_BACK, End, promote
from tests.bench.gates_traffic import Scenario, Traffic, Version, counters
from tests.bench.targets import Target, finish, hardware, judge

OURS: Final = "gates"
_AT_MOST: Final = 1.0
"""% of A/A promotions that may be rolled back: the default of `PromotionPolicy.false_rollbacks`."""
_AT_LEAST: Final = 95.0
"""% of effects that must be caught."""
_CHUNK: Final = 10
_LOOKS: Final = 50
_ERRORS: Final = Version(errors=0.001)
_SLOW: Final = Version(sigma=0.7)
_WRONG: Final = Version(accuracy=0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A scenario, and what is expected of it."""

    scenario: Scenario
    at_most: float | None = None
    """% rolled back."""
    at_least: float | None = None


def alike(name: str, version: Version, *, labelled: bool = False) -> Question:
    scenario = Scenario(name=f"A/A, {name}", live=version, candidate=version, labelled=labelled)
    return Question(scenario=scenario, at_most=_AT_MOST)


def worse(name: str, live: Version, candidate: Version, *, bound: float | None, labelled: bool = False) -> Question:
    return Question(scenario=Scenario(name=name, live=live, candidate=candidate, labelled=labelled), at_least=bound)


QUESTIONS: Final = (
    *(alike(f"live errors {rate:g} %", Version(errors=rate / 100)) for rate in (0, 0.1, 0.5, 1)),
    *(alike(f"lognormal latency, sigma {sigma:g}", Version(sigma=sigma)) for sigma in (0.5, 0.7, 1.0)),
    *(alike(f"accuracy {share:g} %", Version(accuracy=share / 100), labelled=True) for share in (70, 90, 98)),
    worse("errors +2 pp", _ERRORS, replace(_ERRORS, errors=0.021), bound=_AT_LEAST),
    worse("refusals +2 pp", _ERRORS, replace(_ERRORS, refusals=0.02), bound=_AT_LEAST),
    worse("latency +50 %", _SLOW, replace(_SLOW, median_ms=30.0), bound=_AT_LEAST),
    worse("accuracy -4 pp", _WRONG, replace(_WRONG, accuracy=0.86), bound=_AT_LEAST, labelled=True),
    worse("errors +1 pp", _ERRORS, replace(_ERRORS, errors=0.011), bound=None),
    worse("latency +10 %", _SLOW, replace(_SLOW, median_ms=22.0), bound=None),
    worse("accuracy -1 pp", _WRONG, replace(_WRONG, accuracy=0.89), bound=None, labelled=True),
)


def run_chunk(scenario: Scenario, peers: int, seeds: Sequence[int]) -> list[tuple[str, End]]:
    """Promotions of one process; peers judge those whose seed is below `peers`."""
    ends = []
    for seed in seeds:
        traffic = Traffic(scenario=scenario, seed=seed)
        ends.append((OURS, promote(traffic)))
        if seed < peers:
            ends += [(name, decide(traffic)) for name, decide in PEERS.items()]
    return ends


def ask(question: Question, pool: ProcessPoolExecutor, *, promotions: int, peers: int) -> list[Target]:
    chunks = [range(start, min(start + _CHUNK, promotions)) for start in range(0, promotions, _CHUNK)]
    work: Callable[[Sequence[int]], list[tuple[str, End]]] = partial(run_chunk, question.scenario, peers)
    by_judge: dict[str, list[End]] = {name: [] for name in (OURS, *PEERS)}
    for ends in pool.map(work, chunks):
        for name, end in ends:
            by_judge[name].append(end)
    return [_row(question, name, ends) for name, ends in by_judge.items()]


def _row(question: Question, name: str, ends: Sequence[End]) -> Target:
    at_least = question.at_least is not None
    return judge(
        f"{question.scenario.name}: {name}",
        _percent(ends, ROLLED_BACK),
        bound=question.at_least if at_least else question.at_most,
        judged=name == OURS,
        at_least=at_least,
        unit="% back",
        note="; ".join(_figures(ends)),
    )


def _figures(ends: Sequence[End]) -> Iterator[str]:
    """Beside the share that was rolled back: how the others ended, and what it took."""
    yield f"passed {_percent(ends, PASSED):g} %"
    yield f"inconclusive {_percent(ends, INCONCLUSIVE):g} %"
    most = ROLLED_BACK if _percent(ends, ROLLED_BACK) >= 50 else PASSED
    needed = [end.requests for end in ends if end.outcome == most]
    if needed:
        yield f"{statistics.median(needed):.0f} of the candidate's requests until {most} (median)"
    reasons = Counter(end.why for end in ends if end.outcome == ROLLED_BACK and end.why)
    if reasons:
        yield "by " + ", ".join(f"{why} {count}" for why, count in reasons.most_common())
    yield f"{len(ends)} promotions"


def look_cost() -> Target:
    """CPU time of one look at a promotion of nine finished windows and an open one that has grown since the last."""
    traffic = Traffic(scenario=Scenario(name="", live=_SLOW, candidate=_SLOW, labelled=True), seed=0)
    windows = [_window(traffic, region, percent, 400) for region in range(REGIONS) for percent in (5, 25, 50)]
    opened = [_window(traffic, REGIONS, 25, 300 + look) for look in range(_LOOKS)]
    spent_ms = []
    for last in opened:
        started = time.process_time()
        judge_windows([*windows, last], last.region, PromotionPolicy(), regions=REGIONS + 1)
        spent_ms.append(1000 * (time.process_time() - started))
    note = f"median of {_LOOKS}; 3,000 answers of the candidate in the open window, 9,000 of the live version"
    return judge("CPU of a look at ten windows", statistics.median(spent_ms), bound=5.0, unit="ms", note=note)


def _window(traffic: Traffic, region: int, percent: int, ticks: int) -> Window:
    step = traffic.step(region, percent)
    return Window(
        region=f"region-{region}",
        percent=percent,
        candidate=counters(step.candidate.between(0, ticks), labelled=True),
        live=counters(step.live(0, ticks), labelled=True),
    )


def _percent(ends: Sequence[End], outcome: str) -> float:
    return round(100 * sum(end.outcome == outcome for end in ends) / len(ends), 2)


def main() -> int:
    machine = hardware()
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_gates", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="100 promotions of each kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="one for each core unless told otherwise")
    given = parser.parse_args()
    print(f"inconclusive: no verdict after {CAP} of the candidate's requests in one step", flush=True)
    targets = [look_cost()]
    started = time.monotonic()
    with ProcessPoolExecutor(max_workers=given.processes) as pool:
        for question in QUESTIONS:
            promotions, peers = (
                (100, 100) if given.quick else (1000, 100) if question.at_most is not None else (200, 200)
            )
            rows = ask(question, pool, promotions=promotions, peers=peers)
            targets += rows
            elapsed_s = time.monotonic() - started
            print(f"{elapsed_s:5.0f} s  {rows[0].name}: {rows[0].measured:g} % rolled back, {rows[0].note}", flush=True)
    return finish("gates", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
