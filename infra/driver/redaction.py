"""Keeps secrets out of whatever is logged, raised or shown.

A value travels as `Secret`, whose text is never its content. A `Redactor` remembers every secret it was told and
strikes it from text. Terraform's own marks (`before_sensitive`, `after_sensitive`) are honoured by `mask`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HIDDEN = "(sensitive)"

_SECRET_NAMES = ("SECRET", "TOKEN", "PASSWORD", "PASSPHRASE", "PRIVATE_KEY", "CREDENTIAL", "ACCESS_KEY", "API_KEY")

_SHORTEST_MARKED = 6
"""What is only marked, or named like a secret, and shorter is not struck: "none" and "1" are parts of messages."""


class Secret:
    """A value that prints as `(sensitive)`; `reveal()` is the one way to its content."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def reveal(self) -> Any:
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(json.dumps(self._value, sort_keys=True, default=repr))


def mask(value: Any, sensitive: Any) -> Any:
    """`value` with every part hidden that Terraform's mark of the same shape calls true."""
    if sensitive is True:
        return HIDDEN
    if isinstance(value, dict) and isinstance(sensitive, dict):
        return {key: mask(item, sensitive.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(sensitive, list):
        marks = [*sensitive, *[None] * (len(value) - len(sensitive))]
        return [mask(item, mark) for item, mark in zip(value, marks, strict=False)]
    return value


def marked_texts(value: Any, sensitive: Any) -> Iterator[str]:
    """The strings in `value` that Terraform's mark calls sensitive and that are long enough to be told from words."""
    if sensitive is True:
        if isinstance(value, str):
            yield from [value] if len(value) >= _SHORTEST_MARKED else []
        else:
            keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
            for key in keys:
                yield from marked_texts(value[key], True)
    elif isinstance(value, dict) and isinstance(sensitive, dict):
        for key, mark in sensitive.items():
            yield from marked_texts(value.get(key), mark)
    elif isinstance(value, list) and isinstance(sensitive, list):
        for item, mark in zip(value, sensitive, strict=False):
            yield from marked_texts(item, mark)


class Redactor:
    """Strikes the secrets it has learned from text, the longest first, plain or escaped as JSON."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, value: Any) -> None:
        """Remembers each scalar in `value` (a Secret, a container or a scalar)."""
        if isinstance(value, Secret):
            value = value.reveal()
        if isinstance(value, Mapping):
            self._learn_each(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            self._learn_each(value)
        elif isinstance(value, bool) or value is None or value == "":
            return  # "true" and "null" are words of every message, and no secret
        else:
            self._known.update((str(value), json.dumps(str(value))[1:-1]))

    def _learn_each(self, values: Iterable[Any]) -> None:
        for value in values:
            self.learn(value)

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """Remembers the variables whose names say that they are secret; paths to files are not."""
        for name, value in environment.items():
            named = any(word in name.upper() for word in _SECRET_NAMES)
            if named and len(value) >= _SHORTEST_MARKED and not name.upper().endswith(("_FILE", "_ID")):
                self.learn(value)

    def clean(self, text: str) -> str:
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def clean_value(self, value: Any) -> Any:
        """The same value with every text in it cleaned."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {key: self.clean_value(item) for key, item in value.items()}
        return [self.clean_value(item) for item in value] if isinstance(value, list) else value
