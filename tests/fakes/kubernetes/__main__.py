"""The test API server in a process of its own: `python -m tests.fakes.kubernetes --port 0` prints a kubeconfig's path.

For kubectl, and for benchmarks, where server and operator must not share an event loop. Ends on SIGTERM.
"""

import argparse
import asyncio
import gc
import signal
import sys
import tempfile
from pathlib import Path

import uvloop
import yaml


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.fakes.kubernetes", description="a Kubernetes API server in memory")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--minor", type=int, default=32, help="the 1.x that it claims to be")
    parser.add_argument("--token", help="require this bearer token; implies TLS, or kubectl would not send it")
    parser.add_argument("--crds", type=Path, nargs="*", default=(), help="YAML files to install at start")
    parser.add_argument("--kubeconfig", type=Path, help="where to write it; a new temporary file by default")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    from tests.fakes.kubernetes.app import ApiServer

    path = arguments.kubeconfig or Path(tempfile.mkdtemp(prefix="test-api-server-"), "kubeconfig")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tokens = {arguments.token: "system:admin"} if arguments.token else None
    async with ApiServer(port=arguments.port, minor=arguments.minor, tokens=tokens, tls=bool(tokens)) as server:
        for file in arguments.crds:
            for document in yaml.safe_load_all(file.read_text()):
                server.create(document)
        print(server.kubeconfig(path), flush=True)
        await stop.wait()


def main() -> None:
    root = str(Path(__file__).parents[3])
    if root not in sys.path:
        sys.path.insert(0, root)
    gc.set_threshold(50_000, 50, 50)  # the store is one large live heap: walking it often finds nothing
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
