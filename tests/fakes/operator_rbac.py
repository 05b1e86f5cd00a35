"""The operator's roles as an authorizer of the test API server: what its manifests do not allow is a 403 there too."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fakes.kubernetes.faults import Call

MANIFESTS: Final = Path(__file__).parents[2] / "operator" / "manifests"
NAMESPACE: Final = "flightpath-system"
ACCOUNT: Final = "flightpath-operator"
ADMIN: Final = "admin"

Rule = dict[str, list[str]]


def documents(kind: str) -> list[dict[str, Any]]:
    """Objects of one kind in the base manifests."""
    found = (
        each for path in sorted((MANIFESTS / "base").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
    )
    return [each for each in found if each["kind"] == kind]


@cache
def rules(kind: str) -> tuple[Rule, ...]:
    """Those of the operator's own ClusterRole, or of its Role."""
    (role,) = (each for each in documents(kind) if each["metadata"]["name"] == ACCOUNT)
    return tuple(role["rules"])


def authorize(user: str, call: Call) -> bool:
    """For `ApiServer(authorize=...)`: the administrator may do all, the operator what its roles say."""
    if user == ADMIN:
        return True
    own = rules("Role") if call.namespace == NAMESPACE else ()
    return any(_allows(rule, call) for rule in (*rules("ClusterRole"), *own))


def _allows(rule: Rule, call: Call) -> bool:
    resource = f"{call.plural}/{call.subresource}" if call.subresource else call.plural
    named = rule.get("resourceNames")
    return call.verb in rule["verbs"] and resource in rule["resources"] and (not named or call.name in named)
