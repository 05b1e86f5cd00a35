"""The truth about an answer, told with the answer's own token.

A token says which backend answered and what it predicted, and is signed: nobody can tell the truth about an answer
that was never given, and nothing need be remembered until then, so it may come days later, to a successor or after
a restart. Each token counts once. A client's own request id opens nothing.

    payload: version (1 byte), width of a class (1), issued at (4, seconds), nonce (12), lengths of model and backend
    (2, 2), model, backend, classes; then the first 16 bytes of its HMAC-SHA256; all of it in url-safe base64.
"""

import base64
import binascii
import hashlib
import hmac
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.credentials import ensure_secret
from serving.errors import InvalidInput, NotFound, RetryableError, Unauthorized

KEY_FILE: Final = "feedback.key"
USED_FILE: Final = "feedback.sqlite"
HEADER: Final = "x-flightpath-feedback"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<BBI12sHH")
_MAC_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_WIDTHS: Final = {1: "B", 2: "H", 4: "I"}
_CLOCK_SKEW_S: Final = 300
_PRUNE_EVERY: Final = 1000
_BUSY_S: Final = 5.0
"""How long one gateway waits for another."""
_MAX_TOKEN: Final = 16 * 1024
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS used (issued_at INTEGER, nonce BLOB, PRIMARY KEY (issued_at, nonce)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS forgotten (before INTEGER);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedbackLimits:
    life_s: int = 7 * 86_400
    """Of a token, seconds. Truth that comes later than this is told about a version that is long gone."""
    max_rows: int = 1024
    """Answers of more rows get no token: it is a header."""
    max_used: int = 2_000_000
    """Used tokens that are remembered; beyond it the oldest tenth is forgotten, and no token as old counts any more."""
    max_pairs: int = 20_000
    """Answers whose mirrored comparison waits for its label."""
    pair_life_s: float = 900.0
    """How long it waits, seconds."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was made: what the client gets, and its nonce."""

    text: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What a genuine token says."""

    model: str
    backend_id: str
    classes: tuple[int, ...]
    issued_at: int
    nonce: bytes


class _PreparedHmac:
    """HMAC-SHA256 (RFC 2104) whose key is hashed in once: a quarter of what `hmac.digest` costs each answer."""

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class TokenSigner:
    """Makes tokens and reads them, by the region's own key."""

    def __init__(self, key: bytes, limits: FeedbackLimits, *, now: Callable[[], float] = time.time) -> None:
        self._hmac = _PreparedHmac(key)
        self._limits = limits
        self._now = now
        self._names: dict[tuple[str, str], tuple[int, int, bytes]] = {}

    @classmethod
    def ensure(cls, folder: Path, limits: FeedbackLimits) -> "TokenSigner":
        """With the key of the region's folder, made on first use and shared with a successor."""
        return cls(ensure_secret(folder / KEY_FILE), limits)

    def sign(self, model: str, backend_id: str, classes: Sequence[int]) -> Token | None:
        """A token for an answer; None if it has too many rows."""
        if not 0 < len(classes) <= self._limits.max_rows:
            return None
        model_bytes, backend_bytes, names = self._named(model, backend_id)
        highest = max(classes)
        width = 1 if highest < 256 else 2 if highest < 65_536 else 4
        rows = bytes(classes) if width == 1 else struct.pack(f"<{len(classes)}{_WIDTHS[width]}", *classes)
        nonce = os.urandom(_NONCE_BYTES)
        payload = _HEAD.pack(_VERSION, width, int(self._now()), nonce, model_bytes, backend_bytes) + names + rows
        signed = payload + self._hmac.digest(payload)[:_MAC_BYTES]
        return Token(base64.urlsafe_b64encode(signed).rstrip(b"=").decode(), nonce)

    def _named(self, model: str, backend_id: str) -> tuple[int, int, bytes]:
        known = self._names.get((model, backend_id))
        if known is None:
            if len(self._names) >= 1024:
                self._names.clear()
            pair = model.encode(), backend_id.encode()
            known = self._names[model, backend_id] = (len(pair[0]), len(pair[1]), pair[0] + pair[1])
        return known

    def read(self, text: str) -> Told:
        """InvalidInput for what is no token, Unauthorized for one that this region did not sign, NotFound for one
        that is too old.
        """
        payload = self._verified(text)
        try:
            version, width, issued_at, nonce, model_bytes, backend_bytes = _HEAD.unpack_from(payload)
            names_end = _HEAD.size + model_bytes + backend_bytes
            rows = payload[names_end:]
            classes = struct.unpack(f"<{len(rows) // width}{_WIDTHS[width]}", rows)
            model = payload[_HEAD.size : _HEAD.size + model_bytes].decode()
            backend_id = payload[_HEAD.size + model_bytes : names_end].decode()
        except (struct.error, KeyError, ZeroDivisionError, UnicodeDecodeError) as broken:
            raise InvalidInput(
                "token is malformed", got=repr(broken), expected=f"the {HEADER} of an answer"
            ) from broken
        age_s = self._now() - issued_at
        if version != _VERSION or age_s < -_CLOCK_SKEW_S:
            raise InvalidInput("token is from another time", got=f"version {version}, {age_s:.0f} s old")
        if age_s > self._limits.life_s:
            raise NotFound("token has expired", got=f"{age_s:.0f} s old", expected=f"<= {self._limits.life_s} s")
        return Told(model, backend_id, classes, issued_at, nonce)

    def _verified(self, text: str) -> bytes:
        try:
            if len(text) > _MAX_TOKEN:
                raise ValueError(f"{len(text)} characters")
            signed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if len(signed) < _HEAD.size + _MAC_BYTES:
                raise ValueError(f"{len(signed)} bytes")
        except (ValueError, binascii.Error) as broken:
            raise InvalidInput("token is malformed", got=str(broken), expected=f"the {HEADER} of an answer") from broken
        payload, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._hmac.digest(payload)[:_MAC_BYTES]):
            raise Unauthorized("token was not signed by this region's gateway", expected=f"the {HEADER} of an answer")
        return payload


class UsedTokens:
    """Which tokens have counted, in a file that two gateways share while one takes over. Blocking: use a thread."""

    def __init__(self, path: Path, limits: FeedbackLimits, *, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limits = limits
        self._now = now
        self._database: sqlite3.Connection | None = None
        self._taken = 0

    def take(self, told: Told) -> bool:
        """Whether the token counts for the first time. RetryableError when that cannot be known: then none counts."""
        try:
            database = self._open()
            if self._taken % _PRUNE_EVERY == 0:
                self._prune(database)
            self._taken += 1
            # One statement, so that of two processes exactly one gets the token.
            added = database.execute(
                "INSERT OR IGNORE INTO used SELECT ?, ? WHERE ? >= (SELECT coalesce(max(before), 0) FROM forgotten)",
                (told.issued_at, told.nonce, told.issued_at),
            )
            return added.rowcount == 1
        except sqlite3.Error as failed:
            self.close()
            raise RetryableError("feedback cannot be noted now", got=str(failed)) from failed

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                self._database = self._connect()
            except sqlite3.DatabaseError as broken:
                if isinstance(broken, sqlite3.OperationalError):
                    raise
                # No database any more. Tokens of before now count no more, since they may have counted.
                os.replace(self._path, self._path.with_suffix(".unreadable.sqlite"))
                for part in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + part).unlink(missing_ok=True)
                self._database = self._connect()
                self._database.execute("INSERT INTO forgotten VALUES (?)", (int(self._now()) + 1,))
        return self._database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _write_ahead(database)
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def _prune(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM used WHERE issued_at < ?", (int(self._now()) - self._limits.life_s,))
        (count,) = database.execute("SELECT count(*) FROM used").fetchone()
        if count <= self._limits.max_used:
            return
        (before,) = database.execute(
            "SELECT issued_at FROM used ORDER BY issued_at LIMIT 1 OFFSET ?", (count - self._limits.max_used * 9 // 10,)
        ).fetchone()
        # First the bound, then the rows: whatever ends this process in between, nothing counts twice.
        database.execute("INSERT INTO forgotten VALUES (?)", (before + 1,))
        database.execute("DELETE FROM used WHERE issued_at <= ?", (before,))


def read_truth(labels: Sequence[object], rows: int, classes: Sequence[str]) -> list[int]:
    """The true class of each row, each told as a class name or a class index."""
    if len(labels) != rows:
        raise InvalidInput("labels do not match the answer", got=f"{len(labels)} labels", expected=f"{rows}")
    return [_class_index(label, classes) for label in labels]


def share_right(predicted: Sequence[int], truth: Sequence[int]) -> float:
    """The share of rows that were right."""
    return sum(a == b for a, b in zip(predicted, truth, strict=True)) / len(truth)


def _class_index(label: object, classes: Sequence[str]) -> int:
    if type(label) is int and label >= 0 and (not classes or label < len(classes)):
        return label
    if isinstance(label, str) and label in classes:
        return classes.index(label)
    raise InvalidInput("label is unknown", got=label, expected="a class index or one of the model's classes")


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch the journal's mode; of two gateways that begin at once one is refused, and SQLite does not wait here."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
