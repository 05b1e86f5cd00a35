"""Carries a plan out: what may run side by side does, the status comes last, and no-ops cost nothing.

Every write is idempotent: killed between two of them, the next look at the same object plans what is missing.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from flightpath_operator.plan import FINALIZER, Delete, Object, Patch, Plan, is_owned
from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import ApiError, Conflict, Exists, NotFound, Refused
from flightpath_operator.runtime.permits import Urgency
from flightpath_operator.runtime.resources import NODE, Resource, resource_of

logger = logging.getLogger(__name__)
_MAX_PROBLEM: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the API server made of a plan."""

    problems: tuple[str, ...] = ()
    """Refusals (quota, admission, permission), for the conditions."""
    conflict: bool = False
    """Something had changed meanwhile: look again soon."""
    writes: int = 0
    postponed: bool = False
    """The status was left to the next look, which sees what was made now: nothing of this plan is told."""


class Executor:
    """Writes for all kinds; answers enter the caches at once."""

    def __init__(
        self, client: Client, cache_of: Callable[[Resource], Cache | None], *, may_cordon: bool = False
    ) -> None:
        self._client = client
        self._cache_of = cache_of
        self._may_cordon = may_cordon

    async def carry_out(self, parent: Object, plan: Plan, *, may_postpone: bool = False) -> Outcome:
        """Raises Unavailable when the server does not take the writes for now; NotFound when the parent is gone.

        `may_postpone`: another look follows soon, whatever becomes of this one.
        """
        changes: list[Coroutine[Any, Any, str | None]] = [
            *(self._create(parent, child) for child in plan.creates),
            *(self._patch(parent, patch) for patch in plan.patches),
            *(self._delete(parent, delete) for delete in plan.deletes),
        ]
        if self._may_cordon:
            changes += [self._cordon(name) for name in plan.cordon]
        if plan.finalizer and FINALIZER not in _finalizers(parent):
            changes.append(self._set_finalizers(parent, [*_finalizers(parent), FINALIZER]))
        results = await asyncio.gather(*changes, return_exceptions=True)
        writes = len(changes)
        # The status is written whatever became of the rest: it tells of problems too.
        outcomes = [result for result in results if isinstance(result, BaseException)]
        problems = tuple(sorted({result for result in results if isinstance(result, str)}))
        if may_postpone and _is_passing(plan) and not outcomes and not problems:
            return Outcome(writes=writes, postponed=True)
        writes += await self._write_parent(parent, plan, outcomes)
        return Outcome(
            problems=problems, conflict=any(isinstance(result, Conflict) for result in outcomes), writes=writes
        )

    async def _write_parent(self, parent: Object, plan: Plan, outcomes: list[BaseException]) -> int:
        """Status, spec and finalizer of the parent, unless the writes before could not be made."""
        worst = next((failure for failure in outcomes if not isinstance(failure, Conflict)), None)
        if worst is not None:
            raise worst
        writes = 0
        patch = None if plan.status is None else status_patch(parent.get("status") or {}, plan.status)
        if patch:
            version = self._version(parent)
            body = {"metadata": {"resourceVersion": version}, "status": patch}
            try:
                urgency = Urgency.WORK if _is_decision(plan) else Urgency.RECORD
                await self._patch_parent(parent, body, subresource="status", urgency=urgency)
            except Conflict as stale:
                outcomes.append(stale)
            writes += 1
        if plan.patch_parent:
            await self._patch_parent(parent, plan.patch_parent)
            writes += 1
        if plan.finalizer is False and FINALIZER in _finalizers(parent):
            await self._set_finalizers(parent, [name for name in _finalizers(parent) if name != FINALIZER])
            writes += 1
        if plan.delete_parent:
            await self._client.delete(resource_of(parent), parent)
            writes += 1
        return writes

    def _version(self, parent: Object) -> str:
        """The newest version that is known: the finalizer may just have been written."""
        metadata = parent["metadata"]
        cache = self._cache_of(resource_of(parent))
        known = None if cache is None else cache.get(metadata.get("namespace") or "", metadata["name"])
        same_spec = known is not None and known["metadata"].get("generation") == metadata.get("generation")
        newest = known if same_spec and (known or {}).get("status") == parent.get("status") else parent
        return str((newest or parent)["metadata"]["resourceVersion"])

    async def _set_finalizers(self, parent: Object, names: list[str]) -> None:
        body = {"metadata": {"finalizers": names, "resourceVersion": parent["metadata"]["resourceVersion"]}}
        await self._patch_parent(parent, body)

    async def _patch_parent(
        self, parent: Object, body: Object, *, subresource: str = "", urgency: Urgency = Urgency.WORK
    ) -> None:
        metadata = parent["metadata"]
        place = metadata["name"], metadata.get("namespace")
        self._remember(
            await self._client.patch(resource_of(parent), *place, body, subresource=subresource, urgency=urgency)
        )

    # Children: a refusal comes back as a problem, everything else as an exception

    async def _create(self, parent: Object, child: Object) -> str | None:
        resource = resource_of(child)
        try:
            self._remember(await self._client.create(resource, child))
        except Exists:
            return await self._adopt(parent, child)
        except Refused as refused:
            return _problem("create", child, refused)
        except NotFound as missing:
            return _problem("create", child, missing)
        return None

    async def _adopt(self, parent: Object, child: Object) -> str | None:
        """An object of this name that the watch has not shown yet: our own from before a crash, or a stranger's."""
        metadata = child["metadata"]
        found = await self._client.get(resource_of(child), metadata["name"], metadata.get("namespace"))
        found["apiVersion"], found["kind"] = child["apiVersion"], child["kind"]
        self._remember(found)
        if is_owned(found, parent):
            return None
        return f"{child['kind']} {metadata['name']} exists and is not of this {parent['kind']}"

    async def _patch(self, parent: Object, patch: Patch) -> str | None:
        target = patch.target
        if not is_owned(target, parent):
            raise AssertionError(f"plan patches {target['metadata']['name']}, which is not its own")
        metadata = target["metadata"]
        pinned = {**(patch.body.get("metadata") or {}), "uid": metadata["uid"]}
        try:
            body = {**patch.body, "metadata": pinned}
            self._remember(
                await self._client.patch(resource_of(target), metadata["name"], metadata.get("namespace"), body)
            )
        except NotFound:
            self._forget(target)
        except Refused as refused:
            return _problem("patch", target, refused)
        return None

    async def _delete(self, parent: Object, delete: Delete) -> str | None:
        target = delete.target
        if not is_owned(target, parent):
            raise AssertionError(f"plan deletes {target['metadata']['name']}, which is not its own")
        try:
            answer = await self._client.delete(resource_of(target), target, grace_s=delete.grace_s)
        except NotFound:
            self._forget(target)
        except Refused as refused:
            return _problem("delete", target, refused)
        else:
            if "metadata" in answer and answer["metadata"].get("deletionTimestamp"):
                self._remember(answer)
        return None

    async def _cordon(self, name: str) -> str | None:
        try:
            await self._client.patch(NODE, name, None, {"spec": {"unschedulable": True}})
        except Refused as refused:
            return f"node {name} cannot be cordoned: {refused}"
        return None

    def _remember(self, obj: Object) -> None:
        if "kind" not in obj:
            return
        cache = self._cache_of(resource_of(obj))
        if cache is not None:
            obj["metadata"].pop("managedFields", None)
            cache.put(obj)

    def _forget(self, obj: Object) -> None:
        cache = self._cache_of(resource_of(obj))
        if cache is not None:
            cache.drop(obj)


def _is_passing(plan: Plan) -> bool:
    """Whether the status only describes children as missing that have just been made."""
    parent = plan.finalizer is False or plan.delete_parent or plan.patch_parent
    return bool(plan.creates) and not (_is_decision(plan) or parent or plan.patches or plan.deletes or plan.cordon)


def _is_decision(plan: Plan) -> bool:
    """Whether what comes next waits for the status to be saved: that is what a look at once says."""
    return plan.again_in is not None and not plan.again_in


def status_patch(present: Object, wanted: Object) -> Object:
    """The merge patch that turns one status into the other; empty when they are equal."""
    patch: Object = {key: None for key in present if key not in wanted}
    for key, value in wanted.items():
        known = present.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = status_patch(known, value)
            if inner:
                patch[key] = inner
        elif value != known:
            patch[key] = value
    return patch


def _finalizers(parent: Object) -> list[str]:
    return list(parent["metadata"].get("finalizers") or [])


def _problem(verb: str, obj: Object, refused: ApiError) -> str:
    text = refused.message or refused.reason
    return f"cannot {verb} {obj['kind']} {obj['metadata']['name']}: {text}"[:_MAX_PROBLEM]
