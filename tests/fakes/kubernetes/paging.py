"""Lists in pages. Later pages show the present, where a real server keeps the first page's snapshot."""

import base64
import json
from dataclasses import dataclass

from tests.fakes.kubernetes.errors import bad_request, expired
from tests.fakes.kubernetes.storage import Entry, Key, Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One answer to a list."""

    entries: tuple[Entry, ...]
    revision: int
    token: str = ""
    remaining: int | None = None


def page_of(store: Store, found: list[tuple[Key, Entry]], limit: int, token: str) -> Page:
    """What follows the token, up to the limit (0: all), of objects in the order of their keys; 410 for an old token."""
    revision = store.revision
    if token:
        revision, after = _read_token(store, token)
        found = [item for item in found if item[0] > after]
    if not limit or len(found) <= limit:
        return Page(entries=tuple(entry for _, entry in found), revision=revision)
    made = base64.urlsafe_b64encode(json.dumps([revision, *found[limit - 1][0]]).encode()).decode()
    entries = tuple(entry for _, entry in found[:limit])
    return Page(entries=entries, revision=revision, token=made, remaining=len(found) - limit)


def _read_token(store: Store, token: str) -> tuple[int, Key]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if revision < store.oldest:
        raise expired(revision, store.oldest)
    return revision, (namespace, name)
