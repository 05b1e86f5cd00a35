"""Writes a Pod's status whenever it changed, the newest only, and never to another Pod of the same name."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.fakes.kubernetes.client import TRANSIENT, Client, Refused

Object = dict[str, Any]

_RETRIED = (429, 500, 503, 504)


def is_another(error: Exception) -> bool:
    """Whether the Pod is gone, or its name is another's by now: the watch will tell."""
    return isinstance(error, Refused) and (error.status in (404, 409) or "metadata.uid" in str(error))


class StatusWriter:
    """`run` beside the Pod; it ends only by a refusal that no retry mends."""

    def __init__(self, client: Client, path: str, uid: str, status: Callable[[list[Object]], Object]) -> None:
        """`status` makes the document, given the conditions that were written last."""
        self._client = client
        self._path = path
        self._uid = uid
        self._status = status
        self._written: Object = {}
        self._dirty = asyncio.Event()

    def touch(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        self.touch()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.write()

    async def write(self) -> None:
        status = self._status(self._written.get("conditions") or [])
        if status == self._written:
            return
        try:
            body = {"metadata": {"uid": self._uid}, "status": status}
            await self._client.merge(f"{self._path}/status", body)
            self._written = status
        except (Refused, *TRANSIENT) as error:
            if is_another(error):
                return
            if isinstance(error, Refused) and error.status not in _RETRIED:
                raise
            await asyncio.sleep(0.1)
            self.touch()
