"""The model server: one model of one verified bundle over the Open Inference Protocol.

    python -m serving.engines.server --model NAME --version N --bundle DIR --variant NAME --port P

It is ready once its model has answered a first run. SIGTERM: stop accepting, finish what runs, exit 0.
A bundle that does not hold is one line on stderr and exit code 1.
"""

import argparse
import asyncio
import errno
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from serving.asgi import Receive, Scope, Send, read_body, respond, respond_error, respond_json
from serving.bundle import Manifest, Variant, verify_variant
from serving.engines.batching import BatchLimits, MicroBatcher
from serving.engines.engine import Engine, warm_up
from serving.engines.metrics import CONTENT_TYPE, EngineMetrics
from serving.engines.protocol import DATATYPES, encode_infer_response, parse_infer_request
from serving.errors import Conflict, CorruptBundle, FlightpathError, InvalidInput, NotFound, PermanentError
from serving.web_server import WebServer, bind_listener, report, run_on_uvloop, stop_on_signals


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    model: str
    version: str
    bundle: Path
    variant: str
    host: str
    port: int
    threads: int = 1
    """Threads of one run (intra-op); model servers of one machine share its cores."""
    batch: BatchLimits
    max_body_bytes: int = 16 * 1024 * 1024
    """A larger request is answered 413."""
    max_request_rows: int = 1024
    """A request with more rows is answered 400: it would keep all others waiting."""
    body_timeout_s: float = 30.0
    """A client that sends its body slower than this is answered 504."""


class ModelServer:
    """The ASGI application."""

    def __init__(self, engine: Engine, batcher: MicroBatcher, metrics: EngineMetrics, config: ServerConfig) -> None:
        self._engine = engine
        self._batcher = batcher
        self._metrics = metrics
        self._config = config
        self._infer_path = f"/v2/models/{config.model}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == self._infer_path and scope["method"] == "POST":
            await self._infer(scope, receive, send)
            return
        try:
            await self._describe(scope, send)
        except FlightpathError as error:
            await respond_error(send, error)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            body = await self._answer(scope, receive)
        except FlightpathError as error:
            self._metrics.count(error.http_status)
            await respond_error(send, error)
            return
        self._metrics.observe_latency(time.perf_counter() - started)
        self._metrics.count(200)
        await respond(send, 200, body)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        config = self._config
        body = await read_body(scope, receive, limit_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s)
        request = parse_infer_request(
            body, inputs=self._engine.inputs, outputs=self._engine.outputs, max_rows=config.max_request_rows
        )
        outputs = await self._batcher.submit(request.inputs, request.rows)
        return encode_infer_response(request=request, model=config.model, version=config.version, outputs=outputs)

    async def _describe(self, scope: Scope, send: Send) -> None:
        """Everything that is not inference."""
        name, path = self._config.model, scope["path"]
        if scope["method"] != "GET":
            raise NotFound("no such call", got=f"{scope['method']} {path}", expected=f"POST {self._infer_path}")
        if path == "/metrics":
            await respond(send, 200, self._metrics.render(queued=self._batcher.queued), content_type=CONTENT_TYPE)
        elif path == "/v2":
            await respond_json(send, 200, _server_metadata())
        elif path == "/v2/health/live":
            await respond_json(send, 200, {"live": True})
        elif path == "/v2/health/ready":
            await respond_json(send, 200, {"ready": True})
        elif path == f"/v2/models/{name}":
            await respond_json(send, 200, self._model_metadata())
        elif path == f"/v2/models/{name}/ready":
            await respond_json(send, 200, {"name": name, "ready": True})
        else:
            raise NotFound("no such call or model", got=path, expected=f"/v2/models/{name}")

    def _model_metadata(self) -> dict[str, object]:
        return {
            "name": self._config.model,
            "versions": [self._config.version],
            "platform": self._engine.platform,
            "inputs": [asdict(spec) for spec in self._engine.inputs],
            "outputs": [asdict(spec) for spec in self._engine.outputs],
        }


def _server_metadata() -> dict[str, object]:
    try:
        version = installed_version("flightpath")
    except PackageNotFoundError:
        version = "a checkout that is not installed"
    return {"name": "flightpath-engine", "version": version, "extensions": []}


def open_engine(root: Path, variant_name: str, *, threads: int) -> Engine:
    """Verify the bundle's manifest and this variant's files, then load and warm it up."""
    manifest, variant = verify_variant(root, variant_name)
    engine = _load(root, manifest, variant, threads)
    try:
        warm_up(engine, DATATYPES)
    except (InvalidInput, PermanentError) as failed:
        raise CorruptBundle("model does not run", got=str(failed), expected="an answer to zeros") from failed
    return engine


def _load(root: Path, manifest: Manifest, variant: Variant, threads: int) -> Engine:
    if variant.runtime == "onnxruntime":
        # Imported here: another runtime's server must not need ONNX Runtime.
        from serving.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(root, manifest, variant, threads=threads)
    raise InvalidInput("variant needs another model server", got=variant.runtime, expected="onnxruntime")


async def serve(config: ServerConfig) -> int:
    """Load, serve until SIGTERM or SIGINT, drain."""
    engine = open_engine(config.bundle, config.variant, threads=config.threads)
    metrics = EngineMetrics(model=config.model, version=config.version)
    try:
        listener = bind_listener(config.host, config.port)
    except OSError as taken:
        if taken.errno != errno.EADDRINUSE:
            raise
        raise Conflict("port is taken", got=config.port, expected="a free port") from taken
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    async with MicroBatcher(engine, config.batch, on_batch=metrics.observe_batch) as batcher:
        server = WebServer(ModelServer(engine, batcher, metrics, config))
        await server.start(listener)
        report("ready", model=config.model, version=config.version, port=config.port)
        await stop.wait()
        await server.drain()
    engine.close()
    return 0


def parse_arguments(arguments: list[str]) -> ServerConfig:
    parser = argparse.ArgumentParser(prog="python -m serving.engines.server", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--max-batch", default=BatchLimits().max_rows, type=int)
    parser.add_argument("--max-delay-ms", default=BatchLimits().max_delay_s * 1000, type=float)
    given = parser.parse_args(arguments)
    return ServerConfig(
        model=given.model,
        version=given.version,
        bundle=given.bundle,
        variant=given.variant,
        host=given.host,
        port=given.port,
        threads=given.threads,
        batch=BatchLimits(max_rows=given.max_batch, max_delay_s=given.max_delay_ms / 1000),
    )


def main() -> int:
    try:
        return run_on_uvloop(serve(parse_arguments(sys.argv[1:])))
    except (FlightpathError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
