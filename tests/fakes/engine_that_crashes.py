"""The real model server, except that it dies while it answers its tenth single-row request.

Golden sets are replayed in batches, so it passes them and dies of its first users. Takes the
arguments of `serving.engines.server`.
"""

import os
import sys

from serving.asgi import Receive, Scope, Send
from serving.engines import server

_DIES_AT = 10


class CrashingServer(server.ModelServer):
    singles = 0

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        if length < 4096:
            CrashingServer.singles += 1
        if CrashingServer.singles >= _DIES_AT:
            print("fatal: the tenth request was too much", flush=True)
            os._exit(3)
        await super()._infer(scope, receive, send)


if __name__ == "__main__":
    server.ModelServer = CrashingServer  # type: ignore[misc]  # the program builds whatever stands under this name
    sys.exit(server.main())
