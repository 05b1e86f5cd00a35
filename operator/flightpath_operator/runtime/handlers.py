"""The Kopf side: it watches the three kinds and hands every event on; nothing is decided here.

Kopf's own state handlers are not used: each would patch a finalizer and an annotation into every object,
which costs a burst of jobs several writes each, where the queue needs none.
"""

from typing import Any

import kopf

from flightpath_operator.runtime.controller import Controller
from flightpath_operator.runtime.resources import PARENTS, Resource
from flightpath_operator.runtime.settings import Settings


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
    made.queueing.idle_timeout = 1.0
    made.networking.error_backoffs = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
    return made
