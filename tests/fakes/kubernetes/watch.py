"""Watches: from a revision, through selectors, with bookmarks, and with the failures that real ones have.

`Watches.silence` keeps connections open and sends nothing, `drop` closes them, `expire` ends them with a 410.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.fakes.kubernetes.errors import ApiError, expired
from tests.fakes.kubernetes.operations import Address
from tests.fakes.kubernetes.selection import Predicate
from tests.fakes.kubernetes.storage import Change, Entry, Store, encode

Render = Callable[[Entry], bytes]
Send = Callable[[bytes], Awaitable[None]]


def event(kind: str, body: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"


def _last_match(change: Change) -> Entry:
    """An object that left the selection: as it was while it belonged, under the version of its leaving."""
    assert change.previous is not None
    document = change.previous.copy()
    document["metadata"]["resourceVersion"] = str(change.revision)
    return Entry(document, encode(document))


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchOptions:
    address: Address
    render: Render
    matches: Predicate | None = None
    revision: int | None = None
    """Changes after it; None starts with every present object."""
    initial_events: bool = False
    """sendInitialEvents: present objects first, then a bookmark that says so."""
    bookmarks: bool = False
    timeout_s: float = 1800.0


@dataclass(eq=False, slots=True)
class Watch:
    """One client's stream."""

    options: WatchOptions
    waiting: list[bytes] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    revision: int = 0
    silent: bool = False
    ended: bool = False

    def offer(self, change: Change) -> None:
        self.revision = change.revision
        namespace = self.options.address.namespace
        if namespace and change.entry.object["metadata"].get("namespace") != namespace:
            return
        name = self.options.address.name
        if name and change.entry.object["metadata"]["name"] != name:
            return
        if (seen := self._seen(change)) is not None:
            self.push(event(seen[0], self.options.render(seen[1])))

    def _seen(self, change: Change) -> tuple[str, Entry] | None:
        """What a change is to one who sees only the selected objects."""
        matches = self.options.matches
        if matches is None:
            return change.type, change.entry
        before = change.previous is not None and matches(change.previous.object)
        after = change.type != "DELETED" and matches(change.entry.object)
        if after:
            return ("MODIFIED" if before else "ADDED"), change.entry
        if not before:
            return None
        return "DELETED", change.entry if change.type == "DELETED" else _last_match(change)

    def push(self, line: bytes) -> None:
        self.waiting.append(line)
        if not self.silent:
            self.wake.set()

    def bookmark(self, annotations: dict[str, str] | None = None) -> None:
        resource = self.options.address.resource
        metadata = {"resourceVersion": str(self.revision), "creationTimestamp": None}
        document = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if annotations:
            metadata["annotations"] = annotations  # type: ignore[assignment]
        self.push(event("BOOKMARK", encode(document)))

    def end(self, error: ApiError | None = None) -> None:
        if error is not None:
            self.waiting.append(event("ERROR", encode(error.status())))
        self.ended = True
        self.wake.set()


class Watches:
    """Every open watch, and the tests' hold on them."""

    def __init__(self, store: Store, bookmark_interval_s: float) -> None:
        self._store = store
        self._interval_s = bookmark_interval_s
        self._by_bucket: dict[str, set[Watch]] = {}
        self._silent: set[str] = set()
        store.listen(self._observe)

    def _observe(self, change: Change) -> None:
        for watch in self._by_bucket.get(change.bucket, ()):
            watch.offer(change)

    def _chosen(self, plural: str | None) -> list[Watch]:
        found = [watch for watches in self._by_bucket.values() for watch in watches]
        return [watch for watch in found if plural in (None, watch.options.address.resource.plural)]

    def count(self, plural: str | None = None) -> int:
        return len(self._chosen(plural))

    def drop(self, plural: str | None = None) -> None:
        """Closes connections, as a restarting server does."""
        for watch in self._chosen(plural):
            watch.end()

    def expire(self, plural: str | None = None) -> None:
        """Forgets the history and tells the watches in the stream: 410."""
        self._store.compact()
        for watch in self._chosen(plural):
            watch.end(expired(watch.revision, self._store.oldest))

    def silence(self, plural: str) -> None:
        """Open and future watches of a kind stay connected and send nothing, until `unsilence`."""
        self._silent.add(plural)
        for watch in self._chosen(plural):
            watch.silent = True

    def unsilence(self, plural: str) -> None:
        self._silent.discard(plural)
        for watch in self._chosen(plural):
            watch.silent = False
            watch.wake.set()

    def open(self, options: WatchOptions) -> Watch:
        """A registered watch with everything that is due at once; 410 for a revision that is forgotten."""
        revision = options.revision
        if revision is not None and revision < self._store.oldest:
            raise expired(revision, self._store.oldest)
        bucket = options.address.resource.bucket
        watch = Watch(options, revision=self._store.revision, silent=options.address.resource.plural in self._silent)
        if revision is None or options.initial_events:
            self._send_present(watch)
        else:
            for change in self._store.since(bucket, revision):
                watch.offer(change)
            watch.revision = self._store.revision
        self._by_bucket.setdefault(bucket, set()).add(watch)
        return watch

    def _send_present(self, watch: Watch) -> None:
        address, matches = watch.options.address, watch.options.matches
        for key, entry in self._store.items(address.resource.bucket, address.namespace):
            if (not address.name or key[1] == address.name) and (matches is None or matches(entry.object)):
                watch.push(event("ADDED", watch.options.render(entry)))
        if watch.options.initial_events:
            watch.bookmark({"k8s.io/initial-events-end": "true"})

    def close(self, watch: Watch) -> None:
        self._by_bucket.get(watch.options.address.resource.bucket, set()).discard(watch)

    async def run(self, watch: Watch, send: Send) -> None:
        """Hands lines to `send` (a coroutine function) until the watch ends; changes of one turn go together."""
        loop = asyncio.get_running_loop()
        end = loop.time() + watch.options.timeout_s
        marked = loop.time()
        while True:
            watch.wake.clear()
            if watch.waiting and not watch.silent:
                lines, watch.waiting = b"".join(watch.waiting), []
                await send(lines)
            if watch.ended or loop.time() >= end:
                return
            if not await _set_within(watch.wake, min(end, marked + self._interval_s) - loop.time()):
                marked = loop.time()
                self._mark(watch)

    def _mark(self, watch: Watch) -> None:
        if watch.options.bookmarks and not watch.silent:
            watch.revision = self._store.revision
            watch.bookmark()


async def _set_within(flag: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(flag.wait(), max(0.0, seconds))
    except TimeoutError:
        return False
    return True
