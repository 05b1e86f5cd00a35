"""Answers one request of the Open Inference Protocol from a route, gives it a feedback token and has it mirrored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.gateway.attempts import Attempt, FailOver
from serving.gateway.calls import Call, Origin, origin_of
from serving.gateway.feedback import Token, TokenSigner
from serving.gateway.lateness import Kind
from serving.gateway.mirror import MirrorJob, MirrorQueue, choose_target
from serving.gateway.routing import RouteInForce
from serving.gateway.upstream import Answer, Upstream
from serving.routes import Backend, Route


@dataclass(frozen=True, slots=True)
class Served:
    """An answer, who gave it, what was made of it, and the token with which the truth about it may be told."""

    answer: Answer
    origin: Origin
    read: Any = None
    token: Token | None = None


class Inference:
    """Fail-over, feedback's tokens and mirroring."""

    def __init__(self, upstream: Upstream, fail_over: FailOver, signer: TokenSigner, mirror: MirrorQueue) -> None:
        self._upstream = upstream
        self._fail_over = fail_over
        self._signer = signer
        self._mirror = mirror

    async def answer(
        self,
        in_force: RouteInForce,
        body: bytes,
        call: Call,
        *,
        gone: Callable[[], bool],
        read: Callable[[bytes], Any] | None = None,
    ) -> Served:
        """The first candidate's answer that is no failure; else RetryableError, BadUpstream or TimedOut.

        `gone` tells whether the client left. `read` makes something of the body of a success; what it raises is
        judged as the server's answer is.
        """

        async def ask(attempt: Attempt) -> Served:
            backend = attempt.backend
            headers = call.headers_for(backend)
            answer = await self._upstream.infer(backend, attempt.model, body, headers, timeout_s=attempt.bound_s)
            origin = origin_of(backend, answer.headers)
            if answer.status != 200:
                attempt.refused()
                return Served(answer, origin)
            made = None if read is None else read(answer.body)
            (attempt.abandoned if gone() else attempt.answered)()
            if call.synthetic:
                # What an agent replays is no evidence of quality: nobody knows its truth, and nothing is compared.
                return Served(answer, origin, made)
            token = None
            if not call.hop and answer.classes is not None:
                token = self._signer.sign(attempt.model, backend.id, answer.classes)
            if in_force.route.mirror is not None:
                self._repeat(in_force.route, backend, body, answer, call, token)
            return Served(answer, origin, made, token)

        return await self._fail_over.run(in_force, call, Kind.INFER, ask)

    def _repeat(
        self, route: Route, backend: Backend, body: bytes, answer: Answer, call: Call, token: Token | None
    ) -> None:
        target = choose_target(route, backend)
        if target is None or route.mirror is None or (call.hop and target.remote):
            return
        self._mirror.submit(
            MirrorJob(
                model=route.model,
                candidate=route.mirror.candidate,
                target=target,
                by_candidate=backend.id == route.mirror.candidate,
                request=body,
                answer=answer.body if answer.classes is None else answer.classes,
                headers=call.headers_for(target, synthetic=True),
                nonce=None if token is None else token.nonce,
            )
        )
