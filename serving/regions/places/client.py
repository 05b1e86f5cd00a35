"""The agent API, typed: peers, the Flyte connector and the command line speak to an agent through this.

Each call opens its own connection, so a client holds nothing, needs no closing and works from any
event loop. An error answer becomes the FlightpathError it was made from; no answer is Unreachable.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from serving.errors import Unreachable, error_from_json
from serving.regions.deciding.timing import DEFAULT_TIMING

_MAX_LINE_BYTES: Final = 1024 * 1024
ON_BEHALF_OF: Final = "x-flightpath-on-behalf-of"
"""Header in which the holder of a token says for whom it speaks: a Flyte principal, an OIDC subject, a user's name."""


class AgentClient:
    """One agent at `base_url`, spoken to with a token of role promoter, operator or peer.

    Every method raises a FlightpathError subclass: the one the agent answered, or Unreachable.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str],
        *,
        timeout_s: float = DEFAULT_TIMING.agent_timeout_s,
        on_behalf_of: str = "",
    ) -> None:
        """`token` is asked at each call, where it may be another one next time."""
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._on_behalf_of = {ON_BEHALF_OF: on_behalf_of} if on_behalf_of else {}
        self._timeout_s = timeout_s

    @property
    def _headers(self) -> dict[str, str]:
        token = self._token if isinstance(self._token, str) else self._token()
        return {"Authorization": f"Bearer {token}", **self._on_behalf_of}

    # Promotions (role promoter or operator; at the home region's agent)

    async def put_promotion(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        """Order a promotion, or find the one ordered before under this id with this content."""
        return await self._object("PUT", f"/v1/promotions/{_part(id)}", order)

    async def get_promotion(self, id: str) -> dict[str, Any]:
        return await self._object("GET", f"/v1/promotions/{_part(id)}")

    async def promotions(self, model: str | None = None) -> list[dict[str, Any]]:
        """Promotions, newest first."""
        query = "" if model is None else f"?model={_part(model)}"
        body = await self._object("GET", f"/v1/promotions{query}")
        return list(body["promotions"])

    async def abort_promotion(self, id: str) -> dict[str, Any]:
        """Ask for the promotion to be taken back; answers its state at once, follow it until it has finished."""
        return await self._object("DELETE", f"/v1/promotions/{_part(id)}")

    async def pause_promotion(self, id: str) -> dict[str, Any]:
        """Let the present weights stay; a gate that fails takes them back all the same."""
        return await self._object("POST", f"/v1/promotions/{_part(id)}/pause")

    async def resume_promotion(self, id: str) -> dict[str, Any]:
        return await self._object("POST", f"/v1/promotions/{_part(id)}/resume")

    async def promote_now(self, id: str) -> dict[str, Any]:
        """Wait for no more evidence (role operator); a gate that fails still counts."""
        return await self._object("POST", f"/v1/promotions/{_part(id)}/promote")

    async def retry_promotion(self, id: str) -> dict[str, Any]:
        """Order one that was taken back again, under an id of its own, which the answer has."""
        return await self._object("POST", f"/v1/promotions/{_part(id)}/retry")

    async def events(self, id: str, since: int = 0) -> AsyncIterator[dict[str, Any]]:
        """The promotion's journal after `since`, each entry with its `seq`, until it has finished.

        Raises Unreachable when the connection breaks: call again with the last `seq` seen.
        """
        # A stream may be silent for long; the agent's heartbeat (15 s) tells a quiet one from a dead one.
        timeout = aiohttp.ClientTimeout(total=None, connect=self._timeout_s, sock_read=60.0)
        url = f"{self.base_url}/v1/promotions/{_part(id)}/events?since={since}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, read_bufsize=_MAX_LINE_BYTES) as session,
                session.get(url, headers=self._headers) as response,
            ):
                if response.status >= 400:
                    raise error_from_json(response.status, await _json(response))
                async for line in response.content:
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
        except (aiohttp.ClientError, TimeoutError, OSError) as broken:
            raise self._unreachable(broken) from broken

    # Rollbacks (role promoter or operator; at the home region's agent, or for one region at its own)

    async def put_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        """Order a rollback, or find the one ordered before under this id with this content.

        `to` is `{"version": n}`, `{"release": id}` or null, `regions` a list or null; see docs/api.md.
        """
        return await self._object("PUT", f"/v1/rollbacks/{_part(id)}", order)

    async def get_rollback(self, id: str) -> dict[str, Any]:
        return await self._object("GET", f"/v1/rollbacks/{_part(id)}")

    async def rollbacks(self, model: str | None = None) -> list[dict[str, Any]]:
        """Rollbacks, newest first."""
        query = "" if model is None else f"?model={_part(model)}"
        body = await self._object("GET", f"/v1/rollbacks{query}")
        return list(body["rollbacks"])

    # The region

    async def region(self) -> dict[str, Any]:
        return await self._object("GET", "/v1/region")

    async def journal(self, since: int = 0) -> list[dict[str, Any]]:
        body = await self._object("GET", f"/v1/journal?since={since}")
        return list(body["events"])

    async def get_override(self) -> dict[str, Any]:
        return await self._object("GET", "/v1/override")

    async def put_override(self, override: dict[str, Any]) -> dict[str, Any]:
        """`{"frozen": bool, "reason": str | null}`: a frozen home region takes no new promotion."""
        return await self._object("PUT", "/v1/override", override)

    # Which region leads (asking: any role but gateway; taking: role operator, at the agent that is to lead)

    async def get_home(self) -> dict[str, Any]:
        return await self._object("GET", "/v1/home")

    async def take_home(self, *, reason: str, force: bool = False) -> dict[str, Any]:
        """Let this agent's region lead; `force` leaves a home region behind that does not answer."""
        return await self._object("PUT", "/v1/home", {"reason": reason, "force": force})

    async def tell_home(self, told: dict[str, Any]) -> dict[str, Any]:
        """`{"epoch", "actor", "reason"}`: who leads from now on (role peer, as the next)."""
        return await self._object("PUT", "/v1/peer/home", told)

    async def handover(self) -> dict[str, Any]:
        """What the agent knows from when it led."""
        return await self._object("GET", "/v1/peer/handover")

    # One region's part (role peer)

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._object("PUT", f"/v1/peer/rollouts/{_part(id)}", order)

    async def get_rollout(self, id: str) -> dict[str, Any]:
        return await self._object("GET", f"/v1/peer/rollouts/{_part(id)}")

    async def abort_rollout(self, id: str, reason: str) -> dict[str, Any]:
        return await self._object("DELETE", f"/v1/peer/rollouts/{_part(id)}", {"reason": reason})

    async def revert_rollout(self, id: str, reason: str, epoch: dict[str, Any] | None = None) -> dict[str, Any]:
        body = {"reason": reason, "epoch": epoch}
        return await self._object("POST", f"/v1/peer/rollouts/{_part(id)}/revert", body)

    async def put_region_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._object("PUT", f"/v1/peer/rollbacks/{_part(id)}", order)

    async def report_rollback(self, id: str, report: dict[str, Any]) -> dict[str, Any]:
        """Tell the home region's agent of a rollback that a region took for itself."""
        return await self._object("PUT", f"/v1/peer/rollbacks/{_part(id)}/report", report)

    async def get_region_rollback(self, id: str) -> dict[str, Any]:
        return await self._object("GET", f"/v1/peer/rollbacks/{_part(id)}")

    async def peer_models(self) -> list[dict[str, Any]]:
        """What this agent's region serves from servers of its own, live and ready."""
        body = await self._object("GET", "/v1/peer/models")
        return list(body["models"])

    async def _object(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, f"{self.base_url}{path}", json=body, headers=self._headers) as response,
            ):
                answer = await _json(response)
                if response.status >= 400 or not isinstance(answer, dict):
                    raise error_from_json(response.status, answer)
                return answer
        except (TimeoutError, aiohttp.ClientError, OSError) as broken:
            raise self._unreachable(broken) from broken

    def _unreachable(self, broken: BaseException) -> Unreachable:
        return Unreachable(
            f"agent at {self.base_url} did not answer", got=str(broken) or type(broken).__name__, expected="an answer"
        )


def _part(value: str) -> str:
    return quote(value, safe="")


async def _json(response: aiohttp.ClientResponse) -> Any:
    text = await response.text()
    try:
        return json.loads(text)
    except ValueError:
        return text
