"""The status page: what an engineer watches during a canary. One page, no external assets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving.counters import ENDINGS, Counters
from serving.gateway.ledger import Ledger
from serving.gateway.routing import unserved_reason
from serving.routes import Backend, Route

PAGE: Final = Path(__file__).with_name("status.html").read_bytes()


def summarize(region: str, routes: Sequence[Route], ledger: Ledger) -> dict[str, Any]:
    """What `GET /v1/status` answers: per model, per backend, cumulative since `boot_id`."""
    return {
        "region": region,
        "boot_id": ledger.boot_id,
        "models": [_summarize_route(route, ledger) for route in routes],
    }


def _summarize_route(route: Route, ledger: Ledger) -> dict[str, Any]:
    snapshot = ledger.snapshot(route.model)
    return {
        "model": route.model,
        "reason": None if route.served else unserved_reason(route),
        "live": None if route.mirror is None else route.mirror.live,
        "backends": [
            _summarize_backend(b, snapshot.of(b.id), ledger.counters(route.model, b.id).ejections)
            for b in route.backends
        ],
    }


def _summarize_backend(backend: Backend, counters: Counters, ejections: int) -> dict[str, Any]:
    return {
        "id": backend.id,
        "release": backend.release,
        "version": backend.version,
        "region": backend.region,
        "remote": backend.remote,
        "weight": backend.weight,
        "requests": counters.requests,
        "synthetic": counters.synthetic.finished,
        **{name: getattr(counters.users, name) for name in ENDINGS},
        "compared": counters.compared,
        "agreed": counters.agreed,
        "labelled": counters.labelled,
        "correct": counters.correct,
        "pairs": counters.pairs,
        "won": counters.won,
        "lost": counters.lost,
        "ejections": ejections,
        "in_flight": counters.in_flight,
        "overdue": counters.overdue,
        "p50_ms": counters.percentile_ms(0.50),
        "p95_ms": counters.percentile_ms(0.95),
    }
