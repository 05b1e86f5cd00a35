"""The Kopf side: it watches the three kinds and hands every event on; nothing is decided here.

Kopf's own state handlers are not used: each would patch a finalizer and an annotation into every object,
which costs a burst of jobs several writes each, where the queue needs none. Nor is anything compared with what
was handled before, or looked for in annotations, which is half of what Kopf does about an event.
"""

from typing import Any, cast

import kopf

from flightpath_operator.runtime.controller import Controller
from flightpath_operator.runtime.resources import PARENTS, Resource
from flightpath_operator.runtime.settings import Settings


class _NothingHandled(kopf.DiffBaseStorage):
    """No object has an earlier state: the queue asks for none."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept."""


class _NoProgress(kopf.ProgressStorage):
    """No handler is ever half done."""

    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""

    def purge(self, **_: Any) -> None:
        """Nothing was kept."""

    def touch(self, **_: Any) -> None:
        """Nothing is to be woken."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def make_registry(controller: Controller) -> kopf.OperatorRegistry:
    """Handlers of one controller; nothing is registered globally."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_log_in)
    for resource in PARENTS:
        group, version = resource.api_version.split("/")
        kopf.on.event(group, version, resource.plural, id=resource.plural, registry=registry)(
            _forward(controller, resource)
        )
    return registry


async def _log_in(**known: Any) -> kopf.ConnectionInfo | None:
    """By the pod's service account, else by KUBECONFIG, as our own client does."""
    return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)


def _forward(controller: Controller, resource: Resource) -> Any:
    async def take(event: Any, **_: Any) -> None:
        obj = dict(event["object"])
        obj["metadata"] = dict(obj["metadata"])
        controller.take(resource, event["type"], obj)

    return take


def make_settings(settings: Settings) -> kopf.OperatorSettings:
    """Watches end in time, nothing is posted or scanned, and no key waits for a slot."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True
    made.peering.standalone = True
    made.watching.server_timeout = max(1, int(settings.server_timeout_s))  # real servers refuse "300.0"
    made.watching.client_timeout = settings.server_timeout_s + 30
    made.watching.connect_timeout = 30
    made.watching.inactivity_timeout = settings.server_timeout_s + 30
    made.persistence.diffbase_storage = _NothingHandled()
    made.persistence.progress_storage = _NoProgress()
    made.queueing.idle_timeout = 1.0
    made.networking.error_backoffs = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
    return made
