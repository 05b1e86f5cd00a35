"""Who asks and what they may: bearer tokens, an authorizer given by the test, and what `can-i` is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.fakes.kubernetes.errors import forbidden, unauthorized
from tests.fakes.kubernetes.faults import Call
from tests.fakes.kubernetes.kinds import Resource

Object = dict[str, Any]
Authorize = Callable[[str, Call], bool]

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(slots=True)
class Access:
    tokens: Mapping[str, str] | None
    """Users by bearer token; None: nobody is asked who they are."""
    authorize: Authorize | None
    """Whether a user may make a call; None: everybody may everything."""

    def user(self, authorization: str) -> str:
        """From the request's header; 401 without a known token."""
        if self.tokens is None:
            return "system:admin"
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or token not in self.tokens:
            raise unauthorized()
        return self.tokens[token]

    def _may(self, user: str, call: Call) -> bool:
        return self.authorize is None or self.authorize(user, call)

    def check(self, user: str, resource: Resource, call: Call) -> None:
        """403 in the words of RBAC."""
        if self._may(user, call):
            return
        place = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
        what = f'resource "{resource.plural}" in API group "{resource.group}"'
        why = f'User "{user}" cannot {call.verb} {what}{place}'
        raise forbidden(resource.group, resource.plural, call.name, why)

    def review(self, user: str, review: Object) -> Object:
        """A SelfSubjectAccessReview with its answer."""
        asked = review["spec"].get("resourceAttributes") or {}
        call = Call(
            verb=asked.get("verb", ""),
            plural=asked.get("resource", ""),
            subresource=asked.get("subresource", ""),
            namespace=asked.get("namespace", ""),
            name=asked.get("name", ""),
        )
        return {**review, "status": {"allowed": self._may(user, call)}}
