"""Which region leads promotions and rollbacks, since when, and by whose order: one epoch after another.

An epoch is a number and the region that leads in it, so that no two regions ever lead in one. They are ordered by
number, then by name: two operators who take the same number on both sides of a cut network get two epochs, of which
every region follows the same one once it knows both. Each region keeps all it heard of, as a log that merges.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import Fenced, InvalidInput
from serving.regions.registry import schema
from serving.regions.registry.registry import Event, Registry, write_event

FIRST: Final = 1
_LARGEST: Final = 2**53


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    number: int
    home: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"epoch {self.number} of {self.home}"


Word = tuple[Epoch, float]
"""An order's place among all of its model: the epoch in which it was taken, and when."""
BEFORE_EPOCHS: Final = Epoch(0, "")
"""Of what was ordered before epochs were written down."""


def read_epoch(raw: Any) -> Epoch:
    """Raises InvalidInput."""
    number, home = (raw.get("number"), raw.get("home")) if isinstance(raw, dict) else (None, None)
    if type(number) is not int or not 0 <= number < _LARGEST or not isinstance(home, str):
        raise InvalidInput("epoch is malformed", got=raw, expected='{"number": 0 or more, "home": a region}')
    return Epoch(number, home)


class EpochStore:
    """A region's epochs; without any, the topology's home region leads in the first one."""

    def __init__(self, registry: Registry, first_home: str) -> None:
        self._registry = registry
        self._first = Epoch(FIRST, first_home)

    def present(self) -> Epoch:
        """The highest one that this region has heard of."""
        return self._registry.remember("epoch", self._present)

    def _present(self) -> Epoch:
        return max((_epoch(entry) for entry in self.log()), default=self._first)

    def _begun(self) -> Epoch:
        """The topology's first one as it was written down, whatever the file says by now."""
        known = (_epoch(entry) for entry in self.log())
        return min((epoch for epoch in known if epoch.number == FIRST), default=self._first)

    def log(self) -> list[dict[str, Any]]:
        """All that were heard of, oldest first: number, home, at (seconds since the epoch), actor, reason."""
        table = schema.epochs
        with self._registry.reading() as connection:
            rows = connection.execute(sa.select(table).order_by(table.c.number, table.c.home))
            return [dict(row._mapping) for row in rows]

    def begin(self) -> None:
        """Note the topology's home region as the first to lead, where nothing is known yet: from then on only an order
        moves it."""
        if not self.log():
            self.keep(self._first, actor="topology", reason="the topology names it")

    def keep(self, epoch: Epoch, *, actor: str, reason: str) -> bool:
        """Whether this epoch is news that this region now follows; an earlier one is noted and changes nothing."""
        known, present = {_epoch(entry) for entry in self.log()}, self.present()
        if epoch in known:
            return False
        follows = epoch > present or not known
        said = f"{epoch} begins: {reason}" if follows else f"{epoch} was taken too, and {present} goes on"
        detail = {"epoch": epoch.to_json(), "present": max(epoch, present).to_json(), "actor": actor, "reason": reason}
        entry = {**epoch.to_json(), "at": self._registry.clock(), "actor": actor, "reason": reason}
        with self._registry.writing() as connection:
            connection.execute(sa.insert(schema.epochs).values(entry))
            write_event(connection, Event(kind="home", subject=epoch.home, message=said, detail=detail))
        return follows

    def admit(self, ordered_in: Any, *, what: str) -> None:
        """Refuse an order of an earlier epoch, follow one of a later; `ordered_in` is None from agents without epochs.

        Raises Fenced or InvalidInput.
        """
        present = self.present()
        epoch = self._registry.remember("first epoch", self._begun) if ordered_in is None else read_epoch(ordered_in)
        if epoch < present:
            raise Fenced(f"{what} comes too late", got=f"an order of {epoch}", expected=f"one of {present}")
        if epoch > present:
            self.keep(epoch, actor=epoch.home, reason=f"learned from {what}")


def _epoch(entry: dict[str, Any]) -> Epoch:
    return Epoch(entry["number"], entry["home"])
