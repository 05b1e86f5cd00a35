"""Kubernetes Events, for what a person should see in `kubectl describe`: transitions, never every look."""

import asyncio
import hashlib
import logging
from datetime import UTC, datetime

from flightpath_operator.plan import MANAGER, Note, Object
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import ApiError
from flightpath_operator.runtime.permits import Urgency
from flightpath_operator.runtime.resources import EVENT

logger = logging.getLogger(__name__)
_MAX_MESSAGE = 1024
_MAX_PENDING = 200
"""Beyond this Events are dropped: they must never hold up what they tell of."""


class EventRecorder:
    """Posts in the background; a lost Event is logged and no more."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._posting: set[asyncio.Task[None]] = set()

    def record(self, parent: Object, note: Note) -> None:
        if len(self._posting) >= _MAX_PENDING:
            logger.warning("event dropped: %s %s: %s", parent["metadata"]["name"], note.reason, note.message)
            return
        task = asyncio.create_task(self._post(make_event(parent, note, datetime.now(UTC))))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post(self, event: Object) -> None:
        try:
            await self._client.create(EVENT, event, urgency=Urgency.RECORD)
        except ApiError as failure:
            logger.info("event %s was not recorded: %s", event["metadata"]["name"], failure)

    async def close(self) -> None:
        await asyncio.gather(*self._posting, return_exceptions=True)


def make_event(parent: Object, note: Note, now: datetime) -> Object:
    """A core/v1 Event. Its name tells two notes apart and one note posted twice not."""
    metadata, at = parent["metadata"], now.strftime("%Y-%m-%dT%H:%M:%SZ")
    content = f"{metadata['uid']}{note.reason}{note.message}{at}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": parent["apiVersion"],
            "kind": parent["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": note.reason,
        "message": note.message[:_MAX_MESSAGE],
        "type": "Warning" if note.warning else "Normal",
        "source": {"component": MANAGER},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
