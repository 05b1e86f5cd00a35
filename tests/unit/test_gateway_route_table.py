"""Routes are in force at once and saved as soon as the disk takes them."""

import asyncio
from pathlib import Path
from typing import Any

from serving.gateway.route_table import RouteTable
from serving.routes import Route, parse_route
from tests.fakes.gateways import backend, route


def to(port: int) -> Route:
    raw: dict[str, Any] = route(backend("live", f"http://127.0.0.1:{port}", weight=100))
    return parse_route(raw, model="digits")


def saved(path: Path) -> list[Route]:
    table = RouteTable(path)
    table.load()
    return table.all()


async def test_a_route_that_cannot_be_saved_is_in_force_and_saved_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table = RouteTable(path, save_again_s=0.01)
    # As on a full disk: nothing can be put there.
    path.mkdir()
    assert await table.put(to(1))
    assert await table.put(to(2))
    assert table.all() == [to(2)]
    path.rmdir()
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)
    await table.close()
    assert saved(path) == [to(2)]


async def test_a_gateway_that_is_being_replaced_leaves_the_file_to_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    table, successor = RouteTable(path, save_again_s=0.01), RouteTable(path)
    path.mkdir()
    await table.put(to(1))
    table.freeze(True)
    path.rmdir()
    await successor.put(to(2))
    for _ in range(20):
        await asyncio.sleep(0.01)
    await table.close()
    assert saved(path) == [to(2)]


async def test_what_a_killed_gateway_was_writing_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    await RouteTable(path).put(to(1))
    (tmp_path / ".routes.json.abcd_123").write_bytes(b"half")
    assert saved(path) == [to(1)]
    assert [left.name for left in tmp_path.iterdir()] == ["routes.json"]
