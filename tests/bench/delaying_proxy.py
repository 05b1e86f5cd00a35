"""A network between two regions, for benchmarks: passes TCP on, half a round trip late each way.

    python -m tests.bench.delaying_proxy LISTEN_PORT TARGET_PORT ROUND_TRIP_MS

A new connection costs a round trip more, as its handshake would. Bandwidth is not bounded.
"""

import asyncio
import contextlib
import sys
from typing import Final

_CHUNK_BYTES: Final = 256 * 1024
_MOST_CHUNKS: Final = 1024
"""On the way at a time and direction: what a window of 256 MiB would allow."""


async def _read(reader: asyncio.StreamReader, on_the_way: asyncio.Queue[tuple[float, bytes]], delay_s: float) -> None:
    loop, chunk = asyncio.get_running_loop(), b"-"
    while chunk:
        with contextlib.suppress(ConnectionError):
            chunk = b""
            chunk = await reader.read(_CHUNK_BYTES)
        await on_the_way.put((loop.time() + delay_s, chunk))


async def _write(on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            due, chunk = await on_the_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_CHUNKS)
    reading = asyncio.create_task(_read(reader, queue, delay_s))
    try:
        await _write(queue, writer)
    finally:
        reading.cancel()


async def serve(listen_port: int, target_port: int, round_trip_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip_s)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target_port, limit=_CHUNK_BYTES)
        try:
            await asyncio.gather(
                _pass_on(reader, there_writer, round_trip_s / 2), _pass_on(there_reader, writer, round_trip_s / 2)
            )
        finally:
            writer.close()
            there_writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", listen_port, limit=_CHUNK_BYTES)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
