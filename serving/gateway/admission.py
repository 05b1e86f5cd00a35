"""How many requests a gateway takes in at a time: the next one is turned away at once, not everybody late."""

from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import RetryableError


class Admission:
    """Counts inference requests in progress, streams until their end."""

    def __init__(self, *, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self.in_flight = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Holds a place while the request is answered."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def check(self) -> None:
        """RetryableError (503) if the place just taken is one too many."""
        if self.in_flight > self._max_in_flight:
            raise RetryableError("gateway is overloaded", expected=f"<= {self._max_in_flight} in flight")
