"""The status page: what an engineer watches during a canary. One page, no external assets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving.gateway.ledger import BackendCounters, Ledger
from serving.gateway.routing import Backend, Route, unserved_reason

PAGE: Final = Path(__file__).with_name("status.html").read_bytes()


def summarize(region: str, routes: Sequence[Route], ledger: Ledger) -> dict[str, Any]:
    """What `GET /v1/status` answers: per model, per backend, cumulative since `boot_id`."""
    return {
        "region": region,
        "boot_id": ledger.boot_id,
        "models": [
            {
                "model": route.model,
                "reason": None if route.served else unserved_reason(route),
                "mirror_to": route.mirror_to,
                "backends": [_summarize_backend(b, ledger.counters(route.model, b.id)) for b in route.backends],
            }
            for route in routes
        ],
    }


def _summarize_backend(backend: Backend, counters: BackendCounters) -> dict[str, Any]:
    return {
        "id": backend.id,
        "release": backend.release,
        "version": backend.version,
        "region": backend.region,
        "remote": backend.remote,
        "weight": backend.weight,
        "requests": counters.requests,
        "synthetic": counters.synthetic,
        "errors": counters.errors,
        "compared": counters.compared,
        "agreed": counters.agreed,
        "labelled": counters.labelled,
        "correct": counters.correct,
        "ejections": counters.ejections,
        "in_flight": counters.in_flight,
        "p50_ms": counters.percentile_ms(0.50),
        "p95_ms": counters.percentile_ms(0.95),
    }
