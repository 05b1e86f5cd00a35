"""`POST /v1/feedback`: takes the truth about an answer, once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from serving.asgi import Receive, Scope, Send, parse_json_object, read_body, respond_json
from serving.errors import InvalidInput
from serving.gateway.feedback import HEADER, TokenSigner, UsedTokens, read_truth, share_right
from serving.gateway.ledger import Ledger
from serving.gateway.pairing import Pairing
from serving.gateway.route_table import RouteTable

_BODY_BYTES: Final = 1024 * 1024
_BODY_TIMEOUT_S: Final = 30.0


class FeedbackCalls:
    """Counts a label on the backend that its answer's token names. Use `async with`."""

    def __init__(
        self, table: RouteTable, signer: TokenSigner, used: UsedTokens, ledger: Ledger, pairing: Pairing
    ) -> None:
        self._table = table
        self._signer = signer
        self._used = used
        self._ledger = ledger
        self._pairing = pairing
        # One thread: it owns the database, and a slow disk holds up no answer.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feedback")

    async def __aenter__(self) -> "FeedbackCalls":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._used.close)
        self._thread.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, limit_bytes=_BODY_BYTES, timeout_s=_BODY_TIMEOUT_S)
        await respond_json(send, 202, await self.take(parse_json_object(body)))

    async def take(self, document: dict[str, Any]) -> dict[str, Any]:
        """What is answered. A token whose labels do not fit is not used up."""
        token, labels = document.get("token"), document.get("labels")
        if not isinstance(token, str) or not isinstance(labels, list):
            raise InvalidInput(
                "feedback is malformed",
                got=sorted(document),
                expected=f"token (the answer's {HEADER} header or feedback_token) and a list of labels",
            )
        told = self._signer.read(token)
        truth = read_truth(labels, len(told.classes), self._table.find(told.model).route.classes)
        counted = await asyncio.get_running_loop().run_in_executor(self._thread, self._used.take, told)
        if counted:
            self._ledger.counters(told.model, told.backend_id).labelled(share_right(told.classes, truth))
            self._pairing.labelled(told.nonce, truth)
        return {"model": told.model, "rows": len(truth), "counted": counted}
