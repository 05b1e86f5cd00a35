"""The errors of policy, one tree.

PolicyError
├── InvalidPolicy    the policy file cannot be read, or a value in it is wrong
├── InvalidWaiver    a waiver names no rule, gives no reason, or lasts too long
└── PolicyBreached   the plan breaks rules: each with its resource, what was got and expected
"""

from serving import errors as base


class PolicyError(base.FlightpathError):
    code = "policy"


class InvalidPolicy(PolicyError, base.InvalidInput):
    code = "policy_file"


class InvalidWaiver(PolicyError, base.InvalidInput):
    code = "policy_waiver"


class PolicyBreached(PolicyError, base.PermanentError):
    code = "policy_breached"
