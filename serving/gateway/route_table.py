"""The routes in force and their copy on disk, so that a gateway serves before any agent calls it.

A change is saved before it takes effect, one at a time. On a disk that takes nothing it takes effect all the same, or
users would stay with a server that is gone; it is saved as soon as there is room. An equal route changes nothing, so an
agent may repeat itself without disturbing the shares.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from serving.errors import InvalidInput, NotFound
from serving.files import canonical_json, sweep_writes, write_atomically
from serving.gateway.routing import RouteInForce
from serving.routes import SCHEMA_VERSION, Route, parse_route

logger = logging.getLogger(__name__)
ROUTES_FILE: Final = "routes.json"
_SAVE_AGAIN_S: Final = 5.0
"""Between two tries to save what is in force unsaved."""


class RouteTable:
    """Routes by model. Call `close` at the end."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, save_again_s: float = _SAVE_AGAIN_S
    ) -> None:
        self._path = path
        self._now = now
        self._save_again_s = save_again_s
        self._saving_again: asyncio.Task[None] | None = None
        self._frozen = False
        self._since: dict[str, int] = {}
        self._routes: dict[str, RouteInForce] = {}
        self._changing = asyncio.Lock()

    def load(self) -> None:
        """Read the saved routes; none saved is none known. InvalidInput if the file cannot be understood."""
        sweep_writes(self._path.parent, self._path.name)
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        self._put_in_force({route.model: RouteInForce(route) for route in parse_routes(content)})

    def set_aside(self) -> Path:
        """Keep an unreadable file under another name, out of the way of the next save."""
        target = self._path.with_suffix(".unreadable.json")
        os.replace(self._path, target)
        return target

    def find(self, model: str) -> RouteInForce:
        """The model's route, or NotFound."""
        in_force = self._routes.get(model)
        if in_force is None:
            raise NotFound(
                "unknown model", got=model, expected=" | ".join(sorted(self._routes)) or "no model is routed"
            )
        return in_force

    def knows(self, model: str) -> bool:
        return model in self._routes

    def routed_at(self, model: str) -> int:
        """Unix time since when this process has known the model."""
        return self._since[model]

    def all(self) -> list[Route]:
        return [self._routes[model].route for model in sorted(self._routes)]

    async def put(self, route: Route) -> bool:
        """Save the route, then put it in force; False if it was in force already."""
        async with self._changing:
            known = self._routes.get(route.model)
            if known is not None and known.route == route:
                return False
            changed = {**self._routes, route.model: RouteInForce(route)}
            await self._keep(changed)
            self._put_in_force(changed)
            return True

    async def delete(self, model: str) -> None:
        async with self._changing:
            self.find(model)
            changed = {name: kept for name, kept in self._routes.items() if name != model}
            await self._keep(changed)
            self._put_in_force(changed)

    def freeze(self, frozen: bool) -> None:
        """While frozen nothing is saved again: the file is a successor's."""
        self._frozen = frozen

    async def close(self) -> None:
        if self._saving_again is not None:
            self._saving_again.cancel()
            await asyncio.gather(self._saving_again, return_exceptions=True)

    def _put_in_force(self, routes: dict[str, RouteInForce]) -> None:
        self._routes = routes
        self._since = {model: self._since.get(model, int(self._now())) for model in routes}

    async def _keep(self, routes: dict[str, RouteInForce]) -> None:
        """Save them, now or as soon as the disk takes them."""
        try:
            await self._save(routes)
        except OSError as failed:
            logger.warning("routes are in force and cannot be saved: %s", failed)
            if self._saving_again is None or self._saving_again.done():
                self._saving_again = asyncio.create_task(self._save_again(), name="save routes again")

    async def _save_again(self) -> None:
        while True:
            await asyncio.sleep(self._save_again_s)
            async with self._changing:
                if self._frozen:
                    continue
                try:
                    await self._save(self._routes)
                except OSError:
                    continue
                logger.warning("routes are saved again")
                return

    async def _save(self, routes: dict[str, RouteInForce]) -> None:
        document = {
            "schema_version": SCHEMA_VERSION,
            "routes": [routes[model].route.to_json() for model in sorted(routes)],
        }
        # Two fsyncs take milliseconds that requests in flight must not wait for.
        await asyncio.to_thread(write_atomically, self._path, canonical_json(document))


def parse_routes(content: bytes) -> list[Route]:
    """The routes of a `routes.json`."""
    try:
        document: Any = json.loads(content)
        version, routes = document["schema_version"], document["routes"]
        named = [(route["model"], route) for route in routes]
    except (ValueError, KeyError, TypeError) as broken:
        raise InvalidInput("saved routes cannot be read", got=repr(broken), expected=ROUTES_FILE) from broken
    if version != SCHEMA_VERSION:
        raise InvalidInput("saved routes have an unknown schema_version", got=version, expected=SCHEMA_VERSION)
    return [parse_route(route, model=model) for model, route in named]
