"""Failures on order: what a busy or broken API server does to its clients."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from tests.fakes.kubernetes.errors import STALE, ApiError, conflict, too_many_requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request, as faults and counters see it."""

    verb: str
    plural: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens to matching requests; an empty filter matches everything."""

    verb: str = ""
    plural: str = ""
    subresource: str | None = None
    name: str = ""
    times: int | None = 1
    """How many requests meet it; None: all until `Faults.clear`."""
    delay: timedelta = timedelta(0)
    status: int | None = None
    """429, 409, or any 4xx or 5xx; None answers as usual, after the delay."""
    retry_after_s: int = 1
    lost: bool = False
    """The request is carried out and its connection breaks before the answer."""

    def hits(self, call: Call) -> bool:
        return (
            self.verb in ("", call.verb)
            and self.plural in ("", call.plural)
            and self.subresource in (None, call.subresource)
            and self.name in ("", call.name)
        )

    def error(self, call: Call) -> ApiError | None:
        if self.status is None:
            return None
        if self.status == 429:
            return too_many_requests(self.retry_after_s)
        if self.status == 409:
            return conflict("", call.plural, call.name, STALE)
        reasons = {500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout", 403: "Forbidden"}
        return ApiError(self.status, reasons.get(self.status, "InternalError"), f"fault on order: {self.status}")


@dataclass(slots=True)
class Faults:
    _active: list[tuple[Fault, list[int | None]]] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self._active.append((fault, [fault.times]))

    def clear(self) -> None:
        self._active.clear()

    def _take(self, call: Call) -> Fault | None:
        for entry in self._active:
            fault, left = entry
            if fault.hits(call):
                if left[0] is not None:
                    left[0] -= 1
                    if left[0] <= 0:
                        self._active.remove(entry)
                return fault
        return None

    async def strike(self, call: Call) -> bool:
        """Waits and raises as ordered; True when the answer is to be lost."""
        fault = self._take(call)
        if fault is None:
            return False
        if fault.delay:
            await asyncio.sleep(fault.delay.total_seconds())
        if (error := fault.error(call)) is not None:
            raise error
        return fault.lost
