"""The metrics of a region's model servers, gathered by its agent: they listen on loopback, where no Prometheus comes.

Each series gets the label `release`, because two versions of one model answer side by side during a canary. A server
that does not answer, or answers something else, is left out: that it fails is told by the launcher and the gateway.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)
_TIMEOUT_S: Final = 2.0
_LIMIT_BYTES: Final = 8 << 20
"""A server that says more is cut off, and left out for it."""


async def gather_metrics(servers: Mapping[str, str]) -> bytes:
    """One exposition of all servers; `servers` are their URLs by release."""
    async with aiohttp.ClientSession() as session:
        texts = await asyncio.gather(*(read_metrics(session, url, timeout_s=_TIMEOUT_S) for url in servers.values()))
    # vLLM tells hundreds of kilobytes: parsing them takes longer than an event loop may stand still.
    return await asyncio.to_thread(merge_metrics, dict(zip(servers, texts, strict=True)))


def merge_metrics(texts: Mapping[str, str]) -> bytes:
    """Expositions by release as one, where every family is told once."""
    families: dict[str, Metric] = {}
    for release, text in texts.items():
        try:
            found = list(text_string_to_metric_families(text))
        except ValueError as broken:
            logger.warning("metrics of %s cannot be read: %s", release, broken)
            continue
        for family in found:
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += [
                sample._replace(labels={**sample.labels, "release": release}) for sample in family.samples
            ]
    return generate_latest(_Gathered(tuple(families.values())))


@dataclass(frozen=True, slots=True)
class _Gathered(Collector):
    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.families


async def read_metrics(session: aiohttp.ClientSession, url: str, *, timeout_s: float) -> str:
    """The exposition of the server at `url`; empty where none comes in time."""
    try:
        async with session.get(f"{url}/metrics", timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
            if response.status != 200:
                return ""
            return await _read_text(response)
    except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
        return ""


async def _read_text(response: aiohttp.ClientResponse) -> str:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > _LIMIT_BYTES:
            return ""
    return content.decode()
