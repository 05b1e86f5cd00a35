"""Answers one request of the Open Inference Protocol from a route, remembers the answer and has it mirrored."""

from dataclasses import dataclass

from serving.gateway.attempts import Attempt, FailOver
from serving.gateway.calls import Call, Origin, origin_of
from serving.gateway.feedback import FeedbackMemory
from serving.gateway.mirror import Mirror, MirrorJob
from serving.gateway.routing import Backend, Route, RouteInForce
from serving.gateway.upstream import Answer, Upstream


@dataclass(frozen=True, slots=True)
class Served:
    """An answer and who gave it."""

    answer: Answer
    origin: Origin


class Inference:
    """Fail-over, feedback's memory and mirroring."""

    def __init__(self, upstream: Upstream, fail_over: FailOver, memory: FeedbackMemory, mirror: Mirror) -> None:
        self._upstream = upstream
        self._fail_over = fail_over
        self._memory = memory
        self._mirror = mirror

    async def answer(self, in_force: RouteInForce, body: bytes, call: Call) -> Served:
        """The first candidate's answer that is no failure; else RetryableError, BadUpstream or TimedOut."""

        async def ask(attempt: Attempt) -> Served:
            backend = attempt.backend
            answer = await self._upstream.infer(backend, attempt.model, body, call.headers_for(backend))
            (attempt.succeeded if answer.status < 400 else attempt.refused)()
            if answer.status == 200:
                self._memory.remember(call.request_id, attempt.model, backend.id, answer.body)
                self._repeat_on_mirror(in_force.route, backend, body, answer, call)
            return Served(answer, origin_of(backend, answer.headers))

        return await self._fail_over.run(in_force, call, ask)

    def _repeat_on_mirror(self, route: Route, backend: Backend, body: bytes, answer: Answer, call: Call) -> None:
        target = None if backend.id == route.mirror_to else route.backend(route.mirror_to)
        if target is None or (call.hop and target.remote):
            return
        self._mirror.submit(
            MirrorJob(
                model=route.model,
                target=target,
                answered_by=backend.id,
                request=body,
                answer=answer.body,
                headers=call.headers_for(target),
            )
        )
