"""What each backend did since this process started: the figures that a canary's gates are judged by.

Counters only grow; a reader takes differences of two readings (`serving.counters`).
"""

import bisect
import secrets
from collections.abc import Collection
from typing import Any, Final, Protocol

from serving.counters import ENDINGS, Counters, Outcomes, Snapshot, latency_bounds_ms

_KEPT_BACKENDS: Final = 64
_BOUNDS_MS: Final = latency_bounds_ms()


class InFlight(Protocol):
    """An attempt that has no ending yet."""

    def is_overdue(self) -> bool:
        """Whether it takes longer than the bound allows."""
        ...


class Tally:
    """Endings and latencies of attempts."""

    __slots__ = ("endings", "latencies")

    def __init__(self) -> None:
        self.endings = dict.fromkeys(ENDINGS, 0)
        self.latencies = [0] * (len(_BOUNDS_MS) + 1)

    def ended(self, outcome: str) -> None:
        self.endings[outcome] += 1

    def timed(self, latency_ms: float) -> None:
        """Of an answer; nothing else has a latency, so that fast failures cannot look like speed."""
        self.latencies[bisect.bisect_left(_BOUNDS_MS, latency_ms)] += 1

    def read(self) -> Outcomes:
        return Outcomes(**self.endings, latencies=tuple(self.latencies))


class BackendCounters:
    """Cumulative counters of one backend."""

    __slots__ = ("_compared", "_labelled", "_pairs", "ejections", "in_flight", "synthetic", "users")

    def __init__(self) -> None:
        self.users = Tally()
        self.synthetic = Tally()
        self.in_flight: set[InFlight] = set()
        """Users' attempts."""
        self.ejections = 0
        """How often it was passed over for a while, see ejection.py."""
        self._compared: tuple[int, float] = (0, 0.0)
        self._labelled: tuple[int, float] = (0, 0.0)
        self._pairs: tuple[int, float, float] = (0, 0.0, 0.0)

    def compared(self, share: float) -> None:
        """A request that both sides of the mirror answered: the share of its rows on which they agree."""
        self._compared = (self._compared[0] + 1, self._compared[1] + share)

    def labelled(self, share: float) -> None:
        """A request whose truth came in: the share of its rows that was right."""
        self._labelled = (self._labelled[0] + 1, self._labelled[1] + share)

    def paired(self, share: float, live_share: float) -> None:
        """A labelled request that the live version answered too."""
        pairs, won, lost = self._pairs
        self._pairs = (pairs + 1, won + max(0.0, share - live_share), lost + max(0.0, live_share - share))

    def read(self) -> Counters:
        return Counters(
            users=self.users.read(),
            synthetic=self.synthetic.read(),
            in_flight=len(self.in_flight),
            overdue=sum(attempt.is_overdue() for attempt in self.in_flight),
            compared=self._compared[0],
            agreed=self._compared[1],
            labelled=self._labelled[0],
            correct=self._labelled[1],
            pairs=self._pairs[0],
            won=self._pairs[1],
            lost=self._pairs[2],
            bounds_ms=_BOUNDS_MS,
        )


class Ledger:
    """Counters by model and backend id."""

    def __init__(self) -> None:
        self.boot_id = secrets.token_hex(8)
        self._models: dict[str, dict[str, BackendCounters]] = {}

    def counters(self, model: str, backend_id: str) -> BackendCounters:
        """The backend's counters, made on first use."""
        backends = self._models.get(model)
        if backends is None:
            backends = self._models[model] = {}
        counters = backends.get(backend_id)
        if counters is None:
            counters = backends[backend_id] = BackendCounters()
        return counters

    def retain(self, model: str, routed: Collection[str]) -> None:
        """Bound the memory: forget the oldest backends that are neither routed nor busy."""
        backends = self._models.get(model, {})
        idle = [key for key, counters in backends.items() if key not in routed and not counters.in_flight]
        for key in idle[: max(0, len(backends) - _KEPT_BACKENDS)]:
            del backends[key]

    def forget(self, model: str) -> None:
        self._models.pop(model, None)

    def snapshot(self, model: str, *, routed: Collection[str] = ()) -> Snapshot:
        """Every backend that was used, and each of `routed` even if it was not."""
        for backend_id in routed:
            self.counters(model, backend_id)
        backends = {backend_id: counters.read() for backend_id, counters in self._models.get(model, {}).items()}
        return Snapshot(boot_id=self.boot_id, bounds_ms=_BOUNDS_MS, backends=backends)

    def to_json(self, model: str, *, routed: Collection[str] = ()) -> dict[str, Any]:
        """The snapshot, with how often each backend was ejected."""
        document = {**self.snapshot(model, routed=routed).to_json(), "model": model}
        for backend_id, counters in document["backends"].items():
            counters["ejections"] = self.counters(model, backend_id).ejections
        return document

    def endings(self) -> dict[tuple[str, str], dict[str, int]]:
        """How often each backend's attempts ended in each way, users' and agents' together, by (model, id)."""
        return {
            (model, backend_id): {
                name: counters.users.endings[name] + counters.synthetic.endings[name] for name in ENDINGS
            }
            for model, backends in self._models.items()
            for backend_id, counters in backends.items()
        }
