"""Calls to the API server: JSON in, JSON out, a bounded number at once, patient with an overloaded server.

Credentials and TLS are the official client's (`kubernetes.aio`); its generated models are left out,
because objects go through the operator as JSON and thousands of them are read at a start.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_config
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config

from flightpath_operator.plan import MANAGER, Object
from flightpath_operator.runtime.errors import Unavailable, from_answer
from flightpath_operator.runtime.permits import Permits, Urgency
from flightpath_operator.runtime.resources import Resource

MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """Bounds of the traffic to the API server."""

    concurrent_calls: int = 32
    """Calls under way at once; watches are not counted."""
    timeout_s: float = 30.0
    """For one call."""
    attempts: int = 4
    """How often an unavailable server is asked before the caller hears of it."""
    first_backoff_s: float = 0.2
    """Before the second attempt; doubled each time, with up to half as much at random on top."""
    max_backoff_s: float = 10.0
    """Also the bound on what a server may ask for with Retry-After."""


class Client:
    """One connection pool to one API server. Use `async with connect(...)`."""

    def __init__(self, configuration: Configuration, settings: ClientSettings) -> None:
        self._configuration = configuration
        # Once here: aiohttp would ask two threads for the proxy on every call.
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        configuration.client_session_kwargs = {"trust_env": False}
        self._settings = settings
        self._rest = RESTClientObject(configuration)
        self._permits = Permits(settings.concurrent_calls)

    async def close(self) -> None:
        await self._rest.close()

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, urgency: Urgency = Urgency.WORK
    ) -> Object:
        return await self._call("GET", resource.path(name, namespace), urgency=urgency)

    async def read(self, path: str) -> Object:
        """Any document by its path: discovery, version."""
        return await self._call("GET", path)

    async def page(
        self, resource: Resource, *, selector: str = "", token: str = "", limit: int = 500, metadata_only: bool = False
    ) -> Object:
        """One page of a list over all namespaces."""
        query = {"limit": limit} | {k: v for k, v in (("labelSelector", selector), ("continue", token)) if v}
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" if metadata_only else None
        return await self._call("GET", resource.collection(), query=query, accept=accept)

    async def create(self, resource: Resource, obj: Object, *, urgency: Urgency = Urgency.WORK) -> Object:
        """Raises Exists when the name is taken."""
        path = resource.collection(_namespace(obj))
        return await self._call("POST", path, body=obj, query=_MANAGED, urgency=urgency)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        body: Object,
        *,
        subresource: str = "",
        urgency: Urgency = Urgency.WORK,
    ) -> Object:
        """A JSON merge patch."""
        path = resource.path(name, namespace) + (f"/{subresource}" if subresource else "")
        return await self._call("PATCH", path, body=body, query=_MANAGED, content_type=MERGE_PATCH, urgency=urgency)

    async def replace(self, resource: Resource, obj: Object, *, urgency: Urgency = Urgency.WORK) -> Object:
        """Raises Conflict unless the object is still of the version that `obj` carries."""
        name = obj["metadata"]["name"]
        path = resource.path(name, _namespace(obj))
        return await self._call("PUT", path, body=obj, query=_MANAGED, urgency=urgency)

    async def delete(self, resource: Resource, obj: Object, *, grace_s: int | None = None) -> Object:
        """Deletes this very object, not a namesake that came later."""
        metadata = obj["metadata"]
        options: Object = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return await self._call("DELETE", resource.path(metadata["name"], _namespace(obj)), body=options)

    @asynccontextmanager
    async def watch(
        self, resource: Resource, *, version: str, selector: str, timeout_s: float, silence_s: float
    ) -> AsyncIterator[AsyncIterator[Object]]:
        """Changes since `version`, until the server ends it; Unavailable after `silence_s` without a byte."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(int(timeout_s))} | ({"labelSelector": selector} if selector else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.timeout_s, sock_read=silence_s)
        path = f"{resource.collection()}?{urlencode(query)}"
        answer = await self._send("GET", path, None, None, None, timeout)
        try:
            yield _events(answer)
        finally:
            answer.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        accept: str | None = None,
        urgency: Urgency = Urgency.WORK,
    ) -> Object:
        if query:
            path = f"{path}?{urlencode(query)}"
        attempt = 1
        while True:
            try:
                async with self._permits.one(urgency):
                    answer = await self._send(method, path, body, content_type, accept, self._settings.timeout_s)
                    return json.loads(await answer.read())  # type: ignore[no-any-return]
            except Unavailable as away:
                if attempt >= self._settings.attempts:
                    raise
                await asyncio.sleep(self._pause(attempt, away))
            except (aiohttp.ClientError, TimeoutError, ValueError) as broken:
                if attempt >= self._settings.attempts:
                    raise Unavailable(0, "NoAnswer", f"{method} {path}: {broken!r}") from broken
                await asyncio.sleep(self._pause(attempt, None))
            attempt += 1

    def _pause(self, attempt: int, away: Unavailable | None) -> float:
        settings = self._settings
        asked = away.retry_after_s if away is not None and away.retry_after_s is not None else 0.0
        backoff: float = max(asked, settings.first_backoff_s * 2.0 ** (attempt - 1)) * random.uniform(1.0, 1.5)
        return min(settings.max_backoff_s, backoff)

    async def _send(
        self, method: str, path: str, body: Object | None, content_type: str | None, accept: str | None, timeout: Any
    ) -> aiohttp.ClientResponse:
        configuration = self._configuration
        headers = {"Accept": accept or "application/json", "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        token = await configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        request: Callable[..., Awaitable[Any]] = self._rest.request
        received = await request(
            method, configuration.host + path, headers=headers, body=body, _request_timeout=timeout
        )
        answer: aiohttp.ClientResponse = received.response
        if answer.status >= 400:
            raise from_answer(answer.status, _parsed(await answer.read()), answer.headers.get("Retry-After"))
        return answer


@asynccontextmanager
async def connect(settings: ClientSettings | None = None) -> AsyncIterator[Client]:
    """A client by the pod's service account, or by KUBECONFIG where there is none."""
    configuration = Configuration()
    # The official client ships no types for its configuration.
    in_cluster: Callable[..., None] = load_incluster_config
    by_file: Callable[..., Awaitable[None]] = load_config
    try:
        in_cluster(client_configuration=configuration)
    except ConfigException:
        await by_file(client_configuration=configuration)
    client = Client(configuration, settings or ClientSettings())
    try:
        yield client
    finally:
        await client.close()


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Object]:
    try:
        async for line in answer.content:
            event: Object = json.loads(line)
            if event["type"] == "ERROR":
                failed = event["object"]
                raise from_answer(int(failed.get("code") or 500), failed, None)
            yield event
    except (aiohttp.ClientError, TimeoutError, ValueError) as broken:
        raise Unavailable(0, "NoAnswer", f"watch broke off: {broken!r}") from broken


def _proxy(url: str) -> str | None:
    """What the usual variables (HTTPS_PROXY, NO_PROXY, …) say of a server."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return {"message": body[:200].decode(errors="replace")}


def _namespace(obj: Object) -> str | None:
    namespace: str | None = obj["metadata"].get("namespace")
    return namespace


_MANAGED = {"fieldManager": MANAGER}
