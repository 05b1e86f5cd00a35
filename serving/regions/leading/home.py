"""Which region leads, as one region's agent sees it, and how the lead moves by an operator's order.

The agent that is to lead tells the one that leads of the next epoch, which from then on takes no order and sends none;
what that one knows is taken over (handover.py); then the others are told. A region that hears of an epoch refuses every
order of an earlier one, so that whoever was cut off meanwhile changes nothing in it. What it took for its own region is
merged when it is back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from serving.errors import Conflict, Fenced, FlightpathError, InvalidInput
from serving.regions.deciding.timing import DEFAULT_TIMING
from serving.regions.leading.handover import make_papers, merge_papers
from serving.regions.leading.leader import Leader
from serving.regions.registry.epochs import BEFORE_EPOCHS, Epoch, EpochStore, read_epoch
from serving.regions.registry.registry import Registry

logger = logging.getLogger(__name__)
_MAX_REASON: Final = 1000


class HomePort(Protocol):
    """Another region's agent, as the one that leads, or wants to, speaks to it."""

    async def get_home(self) -> dict[str, Any]: ...

    async def tell_home(self, told: dict[str, Any]) -> dict[str, Any]: ...

    async def handover(self) -> dict[str, Any]: ...


class Home:
    """Call `start` once, `look_after` now and then, `close` at the end."""

    def __init__(
        self,
        region: str,
        urls: Mapping[str, str],
        *,
        registry: Registry,
        epochs: EpochStore,
        peers: Mapping[str, HomePort],
        ask_s: float = DEFAULT_TIMING.peers_timeout_s,
    ) -> None:
        """`urls`: where each region's agent is reached; `ask_s`: for another agent's word which region leads."""
        self._region = region
        self._urls = urls
        self._registry = registry
        self._epochs = epochs
        self._peers = peers
        self._ask_s = ask_s
        self._leaders: Sequence[Leader] = ()
        self._resumed = False
        """Whether the leaders have heard of all orders that the registry has."""
        self._moving = asyncio.Lock()
        self._settling = asyncio.Lock()
        self._merged: set[tuple[Epoch, str]] = set()
        """Regions whose papers this agent has taken in, in the epoch in which it leads."""

    async def start(self, leaders: Sequence[Leader]) -> None:
        self._leaders = leaders
        others = await self._ask_all()
        await self._registry.run(self._begin, sorted(others.values()))
        await self._settle()

    def _begin(self, others: Sequence[Epoch]) -> None:
        """A registry that is new, or was restored, follows what the other regions do before anybody leads by it."""
        new = not self._epochs.log()
        for epoch in others:
            if new or epoch.home != self._region:
                self._epochs.keep(epoch, actor=epoch.home, reason="heard of it from another region")
        self._epochs.begin()

    async def close(self) -> None:
        await asyncio.gather(*(leader.close() for leader in self._leaders))

    # In sections of the registry

    @property
    def leads(self) -> bool:
        return self._epochs.present().home == self._region

    def require(self) -> Epoch:
        """The epoch in which this agent leads; raises Fenced when it does not."""
        epoch = self._epochs.present()
        if epoch.home != self._region:
            raise Fenced(
                "promotions and rollbacks are led by the home region's agent",
                got=self._region,
                expected=f"{epoch.home} at {self._urls.get(epoch.home)}",
            )
        return epoch

    def _show(self) -> dict[str, Any]:
        epoch = self._epochs.present()
        return {
            "region": self._region,
            "home": epoch.home,
            "url": self._urls.get(epoch.home),
            "epoch": epoch.to_json(),
            "log": self._epochs.log(),
        }

    def _led_last(self) -> Epoch | None:
        mine = [entry["number"] for entry in self._epochs.log() if entry["home"] == self._region]
        return Epoch(max(mine), self._region) if mine else None

    def _papers(self) -> dict[str, Any]:
        led = self._led_last()
        return {"led": None} if led is None else make_papers(self._registry, led)

    # What is asked of the agent

    async def show(self) -> dict[str, Any]:
        return await self._registry.run(self._show)

    async def learn(self, told: dict[str, Any]) -> dict[str, Any]:
        """Another agent leads, or is about to: from here on nobody earlier does."""
        epoch, actor, reason = read_epoch(told.get("epoch")), told.get("actor"), told.get("reason")
        if not isinstance(actor, str) or not isinstance(reason, str):
            raise InvalidInput("news of an epoch is malformed", got=told, expected="epoch, actor, reason")
        await self._registry.run(self._keep, epoch, actor, reason)
        await self._settle()
        return await self.show()

    def _keep(self, epoch: Epoch, actor: str, reason: str) -> None:
        # Of its own epochs an agent needs no news: it leads in them once it has taken over.
        if epoch.home != self._region:
            self._epochs.keep(epoch, actor=actor, reason=reason)

    async def handover(self) -> dict[str, Any]:
        """What this agent knows from when it led. Raises Conflict while it leads."""

        def papers() -> dict[str, Any]:
            if self.leads:
                raise Conflict("the home region's agent hands nothing over", got=self._region, expected="a later epoch")
            return self._papers()

        return await self._registry.run(papers)

    async def take(self, *, force: bool, reason: str, actor: str) -> dict[str, Any]:
        """Lead from now on; the same again changes nothing.

        Raises Conflict when the home region's agent does not answer: with `force` it is left behind, and what it knows
        is merged when it is back. With `force` the home region itself begins another epoch, as it must once its
        registry was restored: what it orders from then on holds against what it has forgotten.
        """
        if not reason.strip() or len(reason) > _MAX_REASON:
            raise InvalidInput(
                "reason is malformed", got=reason, expected=f"a text of at most {_MAX_REASON} characters"
            )
        async with self._moving:
            present = await self._registry.run(self._epochs.present)
            if present.home != self._region or force:
                others = (await self._ask_all()).values()
                await self._take(present, others, force=force, reason=reason.strip(), actor=actor)
        await self._settle()
        return await self.show()

    async def _take(self, present: Epoch, others: Iterable[Epoch], *, force: bool, reason: str, actor: str) -> None:
        highest = max([present, *others])
        # One that was begun, and whose agent died before it had taken over, is gone on with.
        begun = highest.home == self._region and highest > present
        epoch = highest if begun else Epoch(highest.number + 1, self._region)
        told = {"epoch": epoch.to_json(), "actor": actor, "reason": reason}
        papers: dict[str, dict[str, Any] | FlightpathError] = {}
        if not begun and not force:
            papers[highest.home] = left = await self._ask_papers(highest.home, told)
            if isinstance(left, FlightpathError):
                raise Conflict(
                    f"the agent of {highest.home}, which leads, hands nothing over",
                    got=str(left),
                    expected='its answer, or "force": true to leave it behind',
                )
        rest = [region for region in self._peers if region not in papers]
        papers |= zip(rest, await asyncio.gather(*(self._ask_papers(name, told) for name in rest)), strict=True)
        handed = {region: found for region, found in papers.items() if isinstance(found, dict)}
        handed = dict(sorted(handed.items(), key=lambda item: _led(item[1])))

        def take_over() -> set[str]:
            merged = {region for region, found in handed.items() if self._merge(region, found, force=force)}
            self._epochs.keep(epoch, actor=actor, reason=reason)
            return merged

        merged = await self._registry.run(take_over)
        self._resumed = False
        self._merged |= {(epoch, region) for region in merged}
        logger.info("%s leads in %s: %s", self._region, epoch, reason)

    def _merge(self, region: str, papers: dict[str, Any], *, force: bool) -> bool:
        """Whether they are merged: with `force`, broken ones of one region keep nobody from going on with the rest."""
        try:
            if papers.get("led") is not None:
                merge_papers(self._registry, papers, led=self._led_last(), here=self._region)
        except InvalidInput as broken:
            if not force:
                raise
            logger.error("what %s knows cannot be merged: %s", region, broken)
            return False
        return True

    async def _ask_papers(self, region: str, told: dict[str, Any]) -> dict[str, Any] | FlightpathError:
        try:
            await self._peers[region].tell_home(told)
            return await self._peers[region].handover()
        except FlightpathError as failure:
            return failure

    # Going on

    async def look_after(self) -> None:
        """Hear of epochs that others know, and take in what agents knew that were cut off."""
        async with self._moving:
            others, present = await self._ask_all(), await self._registry.run(self._epochs.present)
            later = [epoch for epoch in others.values() if epoch > present]
            if later and max(later).home == self._region:
                await self._take(present, later, force=True, reason="it was begun before", actor=self._region)
            for epoch in later:
                await self._registry.run(self._keep, epoch, epoch.home, "heard of it from another region")
            await self._merge_late(others)
        await self._settle()

    async def _ask_all(self) -> dict[str, Epoch]:
        """The epochs that those regions follow that answer."""

        async def ask(region: str) -> tuple[str, Epoch] | None:
            with contextlib.suppress(FlightpathError, TimeoutError):
                async with asyncio.timeout(self._ask_s):
                    return region, read_epoch((await self._peers[region].get_home()).get("epoch"))
            return None

        answers = await asyncio.gather(*(ask(region) for region in self._peers))
        return dict(answer for answer in answers if answer is not None)

    async def _merge_late(self, others: Mapping[str, Epoch]) -> None:
        epoch = await self._registry.run(self._epochs.present)
        if epoch.home != self._region:
            return
        told = {"epoch": epoch.to_json(), "actor": self._region, "reason": "it was away when the lead moved"}
        for region in [region for region in others if (epoch, region) not in self._merged]:
            found = await self._ask_papers(region, told)
            if isinstance(found, FlightpathError):
                continue
            if await self._registry.run(self._merge, region, found, force=True):
                self._resumed = False
                self._merged.add((epoch, region))

    async def _settle(self) -> None:
        """The leaders work where, and only where, this agent leads."""
        async with self._settling:
            leads = await self._registry.run(lambda: self.leads)
            if not leads:
                self._resumed = False
                await asyncio.gather(*(leader.close() for leader in self._leaders))
            elif not self._resumed:
                # Set first: what is merged meanwhile unsets it.
                self._resumed = True
                try:
                    await asyncio.gather(*(leader.resume() for leader in self._leaders))
                except BaseException:
                    self._resumed = False
                    raise


def _led(papers: Mapping[str, Any]) -> Epoch:
    """The epoch in which whoever hands them over led last; the first of all where it never did, or says nothing."""
    try:
        return read_epoch(papers.get("led"))
    except InvalidInput:
        return BEFORE_EPOCHS
