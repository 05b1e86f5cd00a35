"""Judges a plan from a pipeline that runs no Flyte: `terraform show -json plan.tfplan | python -m infra.policy`.

Exit status 0: no breach. 1: breaches, one a line on stderr. 2: a file that is wrong.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from infra.cost.prices import load_prices
from infra.planned import InvalidPlan
from infra.policy import Verdict, check, load_policy, load_waivers, rule_names
from serving.errors import FlightpathError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.policy", description="judges a plan of Terraform")
    parser.add_argument("--plan", type=Path, help="JSON of `terraform show -json`; stdin by default")
    parser.add_argument("--policy", type=Path, required=True, help="what was granted: policy.yaml")
    parser.add_argument("--prices", type=Path, required=True, help="price file")
    parser.add_argument("--waivers", type=Path, help="waivers.yaml")
    parser.add_argument("--region", help="where AWS's provider works, if the plan does not tell")
    try:
        verdict = _judge(parser.parse_args(arguments))
    except FlightpathError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    return _tell(verdict)


def _judge(given: argparse.Namespace) -> Verdict:
    text = given.plan.read_text() if given.plan else sys.stdin.read()
    try:
        document = json.loads(text)
    except ValueError as broken:
        raise InvalidPlan("the plan is no JSON", got=broken, expected="terraform show -json of a plan") from broken
    if not isinstance(document, dict):
        raise InvalidPlan("this is no plan of Terraform", got=document, expected="an object")
    waivers = load_waivers(given.waivers, rule_names()) if given.waivers else ()
    policy, prices = load_policy(given.policy), load_prices(given.prices)
    return check(document, policy, prices, waivers, today=datetime.now(UTC).date(), region=given.region)


def _tell(verdict: Verdict) -> int:
    for breach, waiver in verdict.waived:
        print(f"waived until {waiver.expires}: {breach}")
    for waiver in verdict.unused:
        print(f"covers nothing: the waiver of {waiver.rule} for {waiver.resource}")
    for breach in verdict.breaches:
        print(breach, file=sys.stderr)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
