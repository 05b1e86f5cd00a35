"""The admin API: the region's agent sets routes, reads counters and takes pairs. Bearer token of role `gateway`."""

from typing import Any
from urllib.parse import parse_qs

from serving.asgi import Receive, Scope, Send, header, parse_json_object, read_body, respond_json
from serving.credentials import TokenFolder, bearer
from serving.errors import InvalidInput, NotFound, RetryableError, Unauthorized
from serving.gateway.attempts import Books
from serving.gateway.completion_mirror import PairStore
from serving.gateway.predict import ModelSignatures
from serving.gateway.route_table import RouteTable
from serving.routes import Route, parse_route

PREFIX = "/admin/v1/"
_MAX_BODY_BYTES = 1024 * 1024
_BODY_TIMEOUT_S = 10.0


class Admin:
    """`/admin/v1/…`."""

    def __init__(
        self,
        table: RouteTable,
        books: Books,
        pairs: PairStore,
        signatures: ModelSignatures,
        tokens: TokenFolder,
    ) -> None:
        self._table = table
        self._books = books
        self._pairs = pairs
        self._signatures = signatures
        self._tokens = tokens
        self._frozen = False

    def freeze(self, frozen: bool) -> None:
        """While frozen, routes cannot change: a successor is about to read the saved ones."""
        self._frozen = frozen
        self._table.freeze(frozen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._authorize(scope)
        kind, _, model = scope["path"].removeprefix(PREFIX).partition("/")
        call = (scope["method"], kind, bool(model))
        if call == ("GET", "routes", False):
            await respond_json(send, 200, {"routes": [route.to_json() for route in self._table.all()]})
        elif call == ("PUT", "routes", True):
            await self._put(model, scope, receive, send)
        elif call == ("DELETE", "routes", True):
            await self._delete(model, send)
        elif call == ("GET", "stats", True):
            await respond_json(send, 200, self._stats(self._table.find(model).route))
        elif call == ("GET", "pairs", True):
            self._table.find(model)
            read = self._pairs.read(model, after=_read_after(scope))
            await respond_json(send, 200, {"boot_id": self._books.ledger.boot_id, **read})
        else:
            raise NotFound("no such admin call", got=f"{scope['method']} {scope['path']}", expected="see docs/api.md")

    def _authorize(self, scope: Scope) -> None:
        # Read at each call, so that a token which was replaced on disk is in force at once.
        if not self._tokens.opens("gateway", bearer(header(scope, b"authorization"))):
            raise Unauthorized("admin calls need the gateway token", expected="Authorization: Bearer <gateway token>")

    def _refuse_while_frozen(self) -> None:
        if self._frozen:
            raise RetryableError("this gateway is being replaced", expected="the same call to its successor")

    def _stats(self, route: Route) -> dict[str, Any]:
        document = self._books.ledger.to_json(route.model, routed=[backend.id for backend in route.backends])
        ejected = self._books.ejection.avoided(route.model, route.backends)
        for backend_id, counters in document["backends"].items():
            counters["ejected"] = backend_id in ejected
        return document

    async def _put(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, limit_bytes=_MAX_BODY_BYTES, timeout_s=_BODY_TIMEOUT_S)
        route = parse_route(parse_json_object(body), model=model)
        self._refuse_while_frozen()
        await self._table.put(route)
        self._signatures.retain(model, route.backends)
        self._books.ejection.retain(model, route.backends)
        self._books.ledger.retain(model, {backend.id for backend in route.backends})
        await respond_json(send, 200, route.to_json())

    async def _delete(self, model: str, send: Send) -> None:
        self._refuse_while_frozen()
        await self._table.delete(model)
        self._signatures.retain(model, [])
        self._pairs.forget(model)
        self._books.forget(model)
        await respond_json(send, 200, {"model": model, "deleted": True})


def _read_after(scope: Scope) -> int:
    """`?after=N`, 0 without it."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("after", ["0"])[-1]
    if not (given.isascii() and given.isdigit() and len(given) <= 15):
        raise InvalidInput("after is malformed", got=given, expected="the seq of a pair")
    return int(given)
