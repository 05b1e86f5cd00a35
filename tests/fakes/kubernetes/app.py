"""A Kubernetes API server in memory, faithful enough for kubectl, Kopf and the `kubernetes` package.

What it is not: it has no CEL, no webhooks, no aggregation and no field ownership of updates; nothing schedules or
runs Pods (`kubelet.py` and `controllers.py` do, as clients). `tests/integration/test_fake_api_server_parity.py`
holds it against a real control plane.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.fakes.kubernetes.access import REVIEWS, Access, Authorize
from tests.fakes.kubernetes.addressing import Asked, read_body, read_object, read_request
from tests.fakes.kubernetes.certificates import Certificate, make_certificate, server_context
from tests.fakes.kubernetes.deletion import answer, delete, read_options
from tests.fakes.kubernetes.direct import Direct
from tests.fakes.kubernetes.documents import about_server
from tests.fakes.kubernetes.emptying import Emptier
from tests.fakes.kubernetes.errors import (
    ApiError,
    bad_request,
    method_not_allowed,
    unknown_path,
)
from tests.fakes.kubernetes.faults import Call, Faults
from tests.fakes.kubernetes.garbage import GarbageCollector
from tests.fakes.kubernetes.kinds import Catalog
from tests.fakes.kubernetes.kubeconfig import write_kubeconfig
from tests.fakes.kubernetes.operations import Operations
from tests.fakes.kubernetes.rendering import accepted_form
from tests.fakes.kubernetes.storage import Entry, Object, Store, encode
from tests.fakes.kubernetes.subresources import bind, evict, scale_of, write_scale
from tests.fakes.kubernetes.watch import Watches, WatchOptions

Refuse = Callable[[Call, Object], ApiError | None]

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer(Direct):
    """`async with ApiServer() as server:` serves on `server.url`; the inherited methods act without HTTP."""

    def __init__(
        self,
        *,
        port: int = 0,
        minor: int = 32,
        tokens: Mapping[str, str] | None = None,
        tls: bool = False,
        history: int = 10_000,
        bookmark_interval_s: float = 60.0,
        authorize: Authorize | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        """`tokens` maps bearer tokens to users (None: no authentication); `authorize(user, call)` False is a 403;
        `refuse(call, object)` may turn a create, update or patch down as an admission webhook does."""
        store = Store(history)
        super().__init__(Operations(store, Catalog(minor)))
        self.watches = Watches(store, bookmark_interval_s)
        self.faults = Faults()
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """Answered requests by verb, kind (with subresource) and status."""
        self.access = Access(tokens, authorize)
        self.refuse = refuse
        self.minor = minor
        self.port = port
        self._certificate: Certificate | None = make_certificate() if tls else None
        self._stack = AsyncExitStack()
        GarbageCollector(self.operations)
        Emptier(self.operations)

    async def __aenter__(self) -> Self:
        for name in _NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=1
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.callback(self.watches.drop)
        tls = server_context(self._certificate) if self._certificate else None
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls)
        await site.start()
        self.port = int(runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> Path:
        """Writes a kubeconfig; the first token is taken where none is named."""
        if token is None and self.access.tokens:
            token = next(iter(self.access.tokens))
        authority = self._certificate.chain_pem if self._certificate else None
        return write_kubeconfig(path, self.url, token=token, authority_pem=authority, namespace=namespace)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(verb=request.method.lower())
        try:
            user = self.access.user(request.headers.get("Authorization", ""))
            if request.path.startswith(("/healthz", "/livez", "/readyz")):
                return web.Response(text="ok")
            if (about := about_server(self.operations.catalog, self.minor, request.path)) is not None:
                return _json(200, encode(about))
            if request.path == REVIEWS:
                return _json(201, encode(self.access.review(user, await read_object(request))))
            asked = read_request(self.operations.catalog, request)
            call = asked.call
            self.access.check(user, asked.address.resource, call)
            lost = await self.faults.strike(call)
            response = await self._answer(request, asked)
            if lost and request.transport is not None:
                request.transport.abort()
        except ApiError as error:
            response = _failure(error)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # a body that passed no schema: what a decoder would have refused
            response = _failure(bad_request(f"cannot decode the object: {type(error).__name__}: {error}"))
        name = f"{call.plural}/{call.subresource}" if call.subresource else call.plural
        self.requests[call.verb, name, response.status] += 1
        return response

    async def _answer(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        accept, include = request.headers.get("Accept", ""), asked.query.get("includeObject", "")
        form = accepted_form(asked.address.resource, accept, include)
        if asked.verb == "watch":
            return await self._watch(request, asked)
        if asked.verb == "list":
            limit, token = int(asked.query.get("limit") or 0), asked.query.get("continue", "")
            return _json(200, form.page(self.operations.page(asked.address, asked.matches, limit, token)))
        if asked.verb == "deletecollection":
            options = read_options(await read_body(request), asked.query)
            page = self.operations.page(asked.address, asked.matches)
            for entry in page.entries:
                self._delete_one(asked, entry, options)
            return _json(200, form.page(page))
        status, entry = await self._one(request, asked)
        return _json(status, form.one(entry))

    def _delete_one(self, asked: Asked, entry: Entry, options: Any) -> None:
        metadata = entry.object["metadata"]
        address = self.address(asked.address.resource, metadata["name"], metadata.get("namespace", ""))
        delete(self.operations, address, options)

    async def _one(self, request: web.BaseRequest, asked: Asked) -> tuple[int, Entry]:
        address, operations = asked.address, self.operations
        if address.subresource in ("scale", "binding", "eviction", "log"):
            return await self._subresource(request, asked)
        if asked.verb == "get":
            return 200, operations.get(address)
        if asked.verb == "delete":
            options = read_options(await read_body(request), asked.query)
            return 200, answer(address, *delete(operations, address, options))
        if asked.verb == "patch":
            body = await read_body(request)
            self._admit(asked.call, body if isinstance(body, dict) else {})
            entry, created = operations.patch(address, body, request.content_type, asked.options)
            return (201 if created else 200), entry
        if asked.verb == "update" and address.name:
            document = await read_object(request)
            self._admit(asked.call, document)
            return 200, operations.update(address, document, asked.options)
        if asked.verb == "create" and not address.name:
            document = await read_object(request)
            self._admit(asked.call, document)
            return 201, operations.create(address, document, asked.options)
        raise method_not_allowed()

    def _admit(self, call: Call, document: Object) -> None:
        if self.refuse is not None and (error := self.refuse(call, document)) is not None:
            raise error

    async def _subresource(self, request: web.BaseRequest, asked: Asked) -> tuple[int, Entry]:
        address, operations = asked.address, self.operations
        match address.subresource, asked.verb:
            case "scale", "get":
                return 200, scale_of(address, operations.get(address))
            case "scale", "update" | "patch":
                return 200, write_scale(operations, address, await read_object(request), asked.options)
            case "binding", "create":
                return 201, bind(operations, address, await read_object(request))
            case "eviction", "create":
                return 201, evict(operations, address, await read_object(request))
        raise unknown_path()

    async def _watch(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        query = asked.query
        version = query.get("resourceVersion", "")
        form = accepted_form(asked.address.resource, request.headers.get("Accept", ""), query.get("includeObject", ""))
        options = WatchOptions(
            address=asked.address,
            render=form.one,
            matches=asked.matches,
            revision=None if version in ("", "0") else int(version),
            initial_events=query.get("sendInitialEvents") == "true",
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            timeout_s=float(query.get("timeoutSeconds") or 1800),
        )
        watch = self.watches.open(options)
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
            )
            response.enable_chunked_encoding()
            await response.prepare(request)
            await self.watches.run(watch, response.write)
            await response.write_eof()
        except ConnectionError:
            pass  # the client went away
        finally:
            self.watches.close(watch)
        return response


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json"})


def _failure(error: ApiError) -> web.Response:
    response = _json(error.code, encode(error.status()))
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


async def serve_forever(server: ApiServer, started: Callable[[], None]) -> None:
    """Until cancelled."""
    async with server:
        started()
        await asyncio.Event().wait()
