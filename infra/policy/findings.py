"""What a rule finds, and rules that are a table: for a type of resource, what an attribute must be."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from infra.planned import PlannedResource, PlannedWorld, Value

Accepts = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Breach:
    """One rule that one resource breaks."""

    resource: str
    """Its address, or `plan` where it is the plan as a whole."""
    rule: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.resource}: got {self.got}, expected {self.expected}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Must:
    """Every value at `path` of a resource of `type` must be accepted; one that is not set is judged too."""

    type: str
    path: str
    accepts: Accepts
    expected: str


def is_true(value: Any) -> bool:
    # Launch templates of AWS hold booleans as texts.
    return value is True or value == "true"


def is_off(value: Any) -> bool:
    """False, or not set where that means false."""
    return value is False or value is Value.MISSING or value in ("", "false")


def is_set(value: Any) -> bool:
    """A value, also one that only the apply will tell."""
    return value is not Value.MISSING and value != ""


def one_of(*accepted: object) -> Accepts:
    return lambda value: value in accepted


def broken(world: PlannedWorld, rule: str, table: Iterable[Must]) -> Iterator[Breach]:
    for must in table:
        for resource in world.of_type(must.type):
            refused = [value for value in resource.read(must.path) if not must.accepts(value)]
            if refused:
                got = f"{must.path} {show(refused[0])}"
                yield Breach(resource=resource.address, rule=rule, got=got, expected=must.expected)


def without_companion(world: PlannedWorld, rule: str, type_: str, companion: str, argument: str) -> Iterator[Breach]:
    """Resources whose setting is a resource of its own that is not there."""
    companions = world.of_type(companion)
    for resource in world.of_type(type_):
        if not any(_belongs(other, argument, resource) for other in companions):
            yield Breach(resource=resource.address, rule=rule, got="none", expected=f"a {companion} for it")


def _belongs(companion: PlannedResource, argument: str, resource: PlannedResource) -> bool:
    named = companion.one(argument)
    return companion.refers_to(argument, resource) or (named is not None and named == _own_name(resource))


def _own_name(resource: PlannedResource) -> Any:
    return resource.one("bucket") or resource.one("name")


_SHOWN: Final = 80


def show(value: Any) -> str:
    if isinstance(value, Value):
        return value.value
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
