"""Names of children, made from the parent's name alone: a restarted operator finds what it made before."""

import hashlib
from typing import Final

from flightpath_operator.plan import GROUP, MANAGER, OWNER_LABEL, Object

SHORT_NAMES: Final = {"TrainingJob": "tj", "TrainingCluster": "tcl", "ModelDeployment": "md"}
MAX_LABEL: Final = 63
"""Longest host name and label value."""
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
RANK_LABEL: Final = f"{GROUP}/rank"
TENANT_LABEL: Final = f"{GROUP}/tenant"
_HASH_CHARACTERS: Final = 8


def worker_name(job: str, attempt: int, rank: int) -> str:
    """Pod and host name of one worker of one attempt."""
    return shorten(f"{job}-a{attempt}-w{rank}")


def attempt_name(job: str, attempt: int) -> str:
    """Pod group of one attempt."""
    return shorten(f"{job}-a{attempt}")


def environment_name(job: str) -> str:
    """ConfigMap that holds what all workers' environments have in common."""
    return shorten(f"{job}-env")


def owner_value(parent: Object) -> str:
    """Value of OWNER_LABEL, for example `tj.digits`."""
    return shorten(f"{SHORT_NAMES[parent['kind']]}.{parent['metadata']['name']}")


def child_labels(parent: Object) -> dict[str, str]:
    """Labels of every child; selectors of Services and the like take OWNER_LABEL alone."""
    return {"app.kubernetes.io/managed-by": MANAGER, OWNER_LABEL: owner_value(parent)}


def selector(parent: Object) -> dict[str, str]:
    """Selects the pods of a parent; never changes over its life."""
    return {OWNER_LABEL: owner_value(parent)}


def shorten(name: str, limit: int = MAX_LABEL) -> str:
    """The name itself where it fits; otherwise its head and a hash of the whole: still one to one."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: limit - _HASH_CHARACTERS - 1].rstrip('-.')}-{digest}"


def label_value(text: str) -> str:
    """Any text as a label value: what labels cannot hold becomes `-`, long ones end in a hash."""
    allowed = "".join(
        character if character.isascii() and character.isalnum() else _mark(character) for character in text
    )
    return shorten(allowed.strip("-._")).strip("-._")


def _mark(character: str) -> str:
    return character if character in "-._" else "-"
