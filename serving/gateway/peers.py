"""Who may say `x-flightpath-…` to this gateway: gateways and agents, by a credential derived from their token.

The token's file is read once and again when it has changed, which is looked at once a second at most. Without the
file the gateway serves all the same: it believes nobody and shows nothing.
"""

import os
import time
from collections.abc import Callable
from typing import Final

from serving.credentials import TokenFolder, among, hop_credential
from serving.errors import FlightpathError

HEADER: Final = "x-flightpath-credential"
_LOOK_AGAIN_S: Final = 1.0


class Peers:
    """The credential that all gateways and agents of one installation share; several while its token is exchanged."""

    def __init__(self, tokens: TokenFolder, *, region: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.pseudonym = f"flightpath-{region}"
        """What this region's gateway is called in `Via` (RFC 9110, 7.6.3), by which it knows its own requests."""
        self._tokens = tokens
        self._clock = clock
        self._look_at = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._credentials: list[str] = []

    def credential(self) -> str | None:
        """What this gateway shows, None if it has nothing to show."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_AGAIN_S
            self._look()
        return self._credentials[0] if self._credentials else None

    def believes(self, shown: str | None) -> bool:
        """Whether a request comes from one of us. Compared in constant time; nothing shown opens nothing."""
        return self.credential() is not None and among(shown or "", self._credentials)

    def _look(self) -> None:
        try:
            found = os.stat(self._tokens.path("peer"))
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._credentials = [hop_credential(token) for token in self._tokens.accepted("peer")]
                self._seen = seen
        except (OSError, ValueError, FlightpathError):
            self._credentials, self._seen = [], None
