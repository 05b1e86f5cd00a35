"""ResourceQuota: a create that would pass a hard limit is a 403 in the words of the real server."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes.errors import forbidden
from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.quantities import parse_quantity
from tests.fakes.kubernetes.storage import Store

Object = dict[str, Any]


def _usage(resource: Resource, document: Object) -> dict[str, Decimal]:
    """What one object counts for."""
    used = {f"count/{resource.bucket}": Decimal(1), resource.plural: Decimal(1)}
    if resource.kind != "Pod":
        return used
    if (document.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {f"count/{resource.bucket}": Decimal(1)}
    for container in document["spec"].get("containers") or []:
        for part, amounts in (container.get("resources") or {}).items():
            for name, amount in amounts.items() if isinstance(amounts, dict) else ():
                key = f"{part}.{name}"
                used[key] = used.get(key, Decimal(0)) + parse_quantity(amount)
    return used


def _in_use(store: Store, resource: Resource, namespace: str, name: str) -> Decimal:
    used = (_usage(resource, entry.object) for _, entry in store.items(resource.bucket, namespace))
    return sum((amounts.get(name, Decimal(0)) for amounts in used), Decimal(0))


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _over(
    store: Store, resource: Resource, namespace: str, hard: Object, wanted: dict[str, Decimal]
) -> Iterator[tuple[str, ...]]:
    for name, limit in hard.items():
        if wanted.get(name):
            used = _in_use(store, resource, namespace, name)
            if used + wanted[name] > parse_quantity(limit):
                yield name, _plain(wanted[name]), _plain(used), str(limit)


def check(store: Store, resource: Resource, document: Object) -> None:
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "")
    if not namespace or not store.count("resourcequotas"):
        return
    wanted = _usage(resource, document)
    for (_, quota), entry in store.items("resourcequotas", namespace):
        over = list(_over(store, resource, namespace, entry.object["spec"].get("hard") or {}, wanted))
        if over:
            parts = [",".join(f"{each[0]}={each[index]}" for each in over) for index in (1, 2, 3)]
            why = f"exceeded quota: {quota}, requested: {parts[0]}, used: {parts[1]}, limited: {parts[2]}"
            raise forbidden(resource.group, resource.plural, metadata["name"], why)
