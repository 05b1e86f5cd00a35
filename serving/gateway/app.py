"""The gateway process of a region.

    python -m serving.gateway.app --region NAME

Serves the saved routes at once, takes the listening socket of an older gateway over if one runs, and
on SIGTERM, or when a successor takes over from it, finishes what it has begun.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serving.credentials import TokenFolder
from serving.errors import FlightpathError, InvalidInput
from serving.gateway.admin import Admin
from serving.gateway.admission import Admission
from serving.gateway.attempts import Books, FailOver
from serving.gateway.completion_calls import BodyLimits, CompletionCalls
from serving.gateway.completion_mirror import CompletionMirror, CompletionMirrorLimits, PairStore
from serving.gateway.ejection import Ejection, EjectionLimits
from serving.gateway.endpoints import Gateway, GatewayLimits
from serving.gateway.feedback import USED_FILE, FeedbackLimits, TokenSigner, UsedTokens
from serving.gateway.feedback_calls import FeedbackCalls
from serving.gateway.handover import HandoverServer, inherit_or_bind
from serving.gateway.inference import Inference
from serving.gateway.lateness import Lateness, LatenessLimits
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.mirror import MirrorLimits, MirrorQueue
from serving.gateway.pairing import Pairing
from serving.gateway.peers import Peers
from serving.gateway.predict import ModelSignatures
from serving.gateway.retries import RetryBudgets, RetryLimits
from serving.gateway.route_table import ROUTES_FILE, RouteTable
from serving.gateway.streaming import StreamLimits
from serving.gateway.upstream import Upstream, UpstreamLimits
from serving.regions.places.topology import Region, load_topology
from serving.settings import Settings
from serving.web_server import ServerLimits, WebServer, report, run_on_uvloop, stop_on_signals


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayConfig:
    region: Region
    tokens: TokenFolder
    listen: tuple[str, int] | None = None
    """Where to listen if not at the region's gateway_url."""
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    upstream: UpstreamLimits = field(default_factory=UpstreamLimits)
    feedback: FeedbackLimits = field(default_factory=FeedbackLimits)
    mirror: MirrorLimits = field(default_factory=MirrorLimits)
    completion_mirror: CompletionMirrorLimits = field(default_factory=CompletionMirrorLimits)
    ejection: EjectionLimits = field(default_factory=EjectionLimits)
    lateness: LatenessLimits = field(default_factory=LatenessLimits)
    retries: RetryLimits = field(default_factory=RetryLimits)
    streams: StreamLimits = field(default_factory=StreamLimits)
    server: ServerLimits = field(default_factory=ServerLimits)
    deadline_s: float = 60.0
    """After this long no further backend is asked: twice what one attempt may take."""
    completion_deadline_s: float = 120.0
    """The same for language models, whose first token may take 60 s."""
    handover_idle_grace_s: float = 5.0
    """After a successor took over, how long idle connections of users may still be used once."""
    handover_drain_s: float = 1860.0
    """After a successor took over, how long running streams may take: nobody waits for the old process, so
    as long as the longest stream may last."""

    @property
    def address(self) -> tuple[str, int]:
        if self.listen is not None:
            return self.listen
        parts = urlsplit(self.region.gateway_url)
        if parts.hostname is None or parts.port is None:
            raise InvalidInput("gateway_url is malformed", got=self.region.gateway_url, expected="http://host:port")
        return parts.hostname, parts.port


@dataclass(frozen=True, slots=True)
class Assembled:
    """The parts that the process itself handles."""

    gateway: Gateway
    admin: Admin


@asynccontextmanager
async def assemble(config: GatewayConfig) -> AsyncIterator[Assembled]:
    """Build the application over its connection pools and workers, with the saved routes in force."""
    region, folder = config.region.name, config.region.state_folder
    books = _open_books(config)
    table, peers = RouteTable(folder / ROUTES_FILE), Peers(config.tokens, region=region)
    signer = TokenSigner.ensure(folder, config.feedback)
    used, pairs = UsedTokens(folder / USED_FILE, config.feedback), PairStore(config.completion_mirror)
    pairing = Pairing(books.ledger, config.feedback, time.monotonic)
    admission = Admission(max_in_flight=config.limits.max_in_flight)
    routes_were_read = _load(table)
    async with (
        Upstream(config.upstream) as upstream,
        MirrorQueue(upstream, books.ledger, books.metrics, books.lateness, pairing, config.mirror) as mirror,
        CompletionMirror(upstream, books.metrics, pairs, config.completion_mirror) as completion_mirror,
        FeedbackCalls(table, signer, used, books.ledger, pairing) as feedback,
    ):
        signatures = ModelSignatures(upstream, books)
        admin = Admin(table, books, pairs, signatures, config.tokens)
        fail_over = FailOver(books, lives=upstream.lives, deadline_s=config.deadline_s)
        completion_fail_over = FailOver(books, lives=upstream.lives, deadline_s=config.completion_deadline_s)
        gateway = Gateway(
            region=region,
            peers=peers,
            table=table,
            inference=Inference(upstream, fail_over, signer, mirror),
            completions=CompletionCalls(
                peers=peers,
                table=table,
                upstream=upstream,
                fail_over=completion_fail_over,
                mirror=completion_mirror,
                metrics=books.metrics,
                admission=admission,
                body=BodyLimits(max_bytes=config.limits.max_body_bytes, timeout_s=config.limits.body_timeout_s),
                streams=config.streams,
            ),
            admission=admission,
            signatures=signatures,
            feedback=feedback,
            books=books,
            admin=admin,
            limits=config.limits,
        )
        gateway.ready = routes_were_read
        try:
            yield Assembled(gateway, admin)
        finally:
            await table.close()
            await fail_over.close()
            await completion_fail_over.close()


def _open_books(config: GatewayConfig) -> Books:
    ledger = Ledger()
    return Books(
        ledger=ledger,
        metrics=GatewayMetrics(region=config.region.name, endings=ledger.endings),
        ejection=Ejection(config.ejection, time.monotonic),
        lateness=Lateness(config.lateness),
        retries=RetryBudgets(config.retries, time.monotonic),
    )


def _load(table: RouteTable) -> bool:
    """Whether the saved routes were understood; a file that cannot be is set aside and the agent waited for."""
    try:
        table.load()
    except InvalidInput as broken:
        report("routes_unreadable", error=str(broken), kept_as=str(table.set_aside()))
        return False
    return True


async def serve(config: GatewayConfig) -> int:
    """Serve until a signal or a successor comes, then drain; the exit code."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    region, folder = config.region.name, config.region.state_folder
    inherited = await inherit_or_bind(folder, config.address)
    async with assemble(config) as assembled:
        server = WebServer(assembled.gateway, config.server)
        await server.start(inherited.listener)
        async with HandoverServer(folder, inherited.listener, freeze=assembled.admin.freeze) as handover:
            await inherited.confirm()
            report("serving", region=region, port=config.address[1], took_over_from=inherited.from_pid)
            await _either(stop, handover.succeeded)
        replaced = handover.succeeded.is_set()
        report("draining", region=region, replaced=replaced)
        if replaced:
            finished = await server.drain(idle_grace_s=config.handover_idle_grace_s, drain_s=config.handover_drain_s)
        else:
            finished = await server.drain()
    report("stopped", region=region, finished=finished)
    return 0


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiting:
            waiter.cancel()


def read_config(arguments: list[str]) -> GatewayConfig:
    """The region's configuration from the command line, the environment and the topology."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway.app", description="The gateway of a region.")
    parser.add_argument("--region", required=True)
    region = parser.parse_args(arguments).region
    try:
        settings = Settings()
    except ValueError as wrong:
        raise InvalidInput("environment is not usable", got=str(wrong), expected="see serving/settings.py") from wrong
    topology = load_topology(settings)
    tokens = TokenFolder(folder=topology.token_folder)
    return GatewayConfig(region=topology.region(region), tokens=tokens, listen=settings.listen_address)


def main() -> int:
    try:
        return run_on_uvloop(serve(read_config(sys.argv[1:])))
    except (FlightpathError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
