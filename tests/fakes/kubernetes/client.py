"""A small JSON client for any API server: what the process kubelet and the test's controllers speak through."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.kubernetes.kubeconfig import read_kubeconfig

Object = dict[str, Any]


class Refused(Exception):
    """The server answered with a Status that is no success."""

    def __init__(self, status: int, document: Object) -> None:
        super().__init__(f"{status} {document.get('reason', '')}: {document.get('message', '')}")
        self.status = status
        self.reason = str(document.get("reason", ""))


def path_of(api_version: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    place = f"/namespaces/{namespace}" if namespace else ""
    return "/".join(part for part in (root + place, plural, name, subresource) if part)


async def _document(response: aiohttp.ClientResponse) -> Object:
    """Paths that no API serves are answered in plain text."""
    if response.content_type != "application/json":
        return {"message": await response.text()}
    document: Object = await response.json()
    return document


class Client:
    """Made by `connect`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def request(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: str
    ) -> Object:
        """`Refused` for every answer that is no success."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind} if data is not None else {}
        async with self.session.request(method, path, data=data, headers=headers, params=query) as response:
            document = await _document(response)
            if response.status >= 400:
                raise Refused(response.status, document)
            return document

    async def merge(self, path: str, body: Object) -> Object:
        return await self.request("PATCH", path, body, kind="application/merge-patch+json")

    async def find(self, path: str) -> Object | None:
        """None for a 404."""
        try:
            return await self.request("GET", path)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Events after a version; ends when the server ends the stream."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=330)
        async with self.session.get(path, params=query, timeout=timeout) as response:
            if response.status >= 400:
                raise Refused(response.status, await response.json())
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[Client]:
    connection = read_kubeconfig(kubeconfig)
    headers = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
    connector = aiohttp.TCPConnector(ssl=connection.tls, limit=64)
    async with aiohttp.ClientSession(connection.url, headers=headers, connector=connector) as session:
        yield Client(session)


TRANSIENT = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)
"""Failures of the connection, after which one tries again."""
