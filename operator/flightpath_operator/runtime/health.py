"""/healthz, /readyz and /metrics of the operator."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Health:
    """`unhealthy` says why a restart is wanted, `unready` why not yet; empty texts mean all is well."""

    def __init__(self) -> None:
        self.unhealthy: Callable[[], str] = lambda: ""
        self.unready: Callable[[], str] = lambda: "starting"
        self.registry: CollectorRegistry | None = None

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:
        return _answer(self.unhealthy())

    async def _readyz(self, request: web.Request) -> web.Response:
        return _answer(self.unready())

    async def _metrics(self, request: web.Request) -> web.Response:
        body = b"" if self.registry is None else generate_latest(self.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(trouble: str) -> web.Response:
    return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ok'}\n")
