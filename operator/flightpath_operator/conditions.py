"""Standard conditions (metav1.Condition): a transition's time moves only when the status itself changes.

Nothing here mutates what it is given: the old status is compared with the new one to skip writes.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from flightpath_operator.plan import Note, Object

MAX_MESSAGE: Final = 4096
"""Characters of a message; the CRDs allow 32,768."""
_MAX_REASON: Final = 1024
_NOT_IN_REASON: Final = re.compile(r"[^A-Za-z0-9_,:]+")


def timestamp(now: float) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(now), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; ValueError where it is none."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def set_condition(
    conditions: Sequence[Object],
    type: str,
    status: bool | None,
    reason: str,
    message: str = "",
    *,
    now: float,
    generation: int,
) -> list[Object]:
    """The conditions with one set; `status` None means Unknown. The others stay as and where they are.

    An empty message becomes the reason.
    """
    before = find_condition(conditions, type)
    word = {True: "True", False: "False", None: "Unknown"}[status]
    unchanged = before is not None and before.get("status") == word and "lastTransitionTime" in before
    clean_reason = _clean_reason(reason)
    after = {
        "type": type,
        "status": word,
        "reason": clean_reason,
        "message": shorten_message(message) or clean_reason,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else timestamp(now),
    }
    if before is None:
        return [*conditions, after]
    return [after if condition is before else condition for condition in conditions]


def set_conditions(
    conditions: Sequence[Object],
    entries: Iterable[tuple[str, bool | None, str, str]],
    *,
    now: float,
    generation: int,
) -> list[Object]:
    """Several at once: type, status, reason, message."""
    result = list(conditions)
    for type_, status, reason, message in entries:
        result = set_condition(result, type_, status, reason, message, now=now, generation=generation)
    return result


def degraded(left_out: Sequence[str], problems: Sequence[str]) -> tuple[str, bool, str, str]:
    """The condition Degraded: what the API server refused, else what this cluster cannot do."""
    if problems:
        return "Degraded", True, "WriteRefused", "; ".join(problems)
    if left_out:
        return "Degraded", True, "LeftOut", "; ".join(left_out)
    return "Degraded", False, "AsSpecified", "Nothing was left out."


def drop_condition(conditions: Iterable[Object], type: str) -> list[Object]:
    return [condition for condition in conditions if condition.get("type") != type]


def find_condition(conditions: Iterable[Object], type: str) -> Object | None:
    return next((condition for condition in conditions if condition.get("type") == type), None)


def is_true(conditions: Iterable[Object], type: str) -> bool:
    condition = find_condition(conditions, type)
    return condition is not None and condition.get("status") == "True"


def notes_of_transitions(
    before: Sequence[Object],
    after: Sequence[Object],
    *,
    good: Collection[str],
    bad: Collection[str],
    calm: Collection[str] = (),
) -> tuple[Note, ...]:
    """An Event for each condition whose status or reason has changed.

    `good`: conditions whose False is a warning (Ready). `bad`: those whose True is one (Degraded). The others make no
    events. `calm`: reasons that never warn. A bad condition that is False from the start is no news.
    """
    warning = dict.fromkeys(good, "False") | dict.fromkeys(bad, "True")
    notes = []
    for condition in after:
        old = find_condition(before, condition["type"]) or {"status": "False" if condition["type"] in bad else None}
        same_reason = old.get("reason", condition["reason"]) == condition["reason"]
        changed = old.get("status") != condition["status"] or not same_reason
        if condition["type"] in warning and changed:
            warns = condition["status"] == warning[condition["type"]] and condition["reason"] not in calm
            notes.append(Note(reason=condition["reason"], message=condition["message"], warning=warns))
    return tuple(notes)


def shorten_message(message: str, limit: int = MAX_MESSAGE) -> str:
    """The message where it fits; else its head, with what was left out told."""
    if len(message) <= limit:
        return message
    ending = f" … ({len(message)} characters)"
    return message[: limit - len(ending)] + ending


def _clean_reason(reason: str) -> str:
    """A reason that the API accepts: it may come from a pod or an API server's answer."""
    cleaned = _NOT_IN_REASON.sub("", reason)[:_MAX_REASON].strip("_,:").lstrip("0123456789_,:")
    return cleaned or "Unknown"
