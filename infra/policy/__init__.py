"""What no plan may do, judged from its JSON before anything is applied. All of it pure.

verdict = check(plan.document, load_policy(path), prices, load_waivers(waivers), today=date.today())
verdict.holds, verdict.breaches
"""

from infra.policy.check import Verdict, check, rule_names
from infra.policy.errors import InvalidPolicy, InvalidWaiver, PolicyBreached
from infra.policy.findings import Breach
from infra.policy.settings import Policy, load_policy
from infra.policy.waivers import Waiver, load_waivers

__all__ = [
    "Breach",
    "InvalidPolicy",
    "InvalidWaiver",
    "Policy",
    "PolicyBreached",
    "Verdict",
    "Waiver",
    "check",
    "load_policy",
    "load_waivers",
    "rule_names",
]
