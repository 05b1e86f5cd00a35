"""In whose name something is ordered or built: journal, attestation and report keep it."""

import getpass
import os
from typing import Any


def present_actor() -> str:
    """The Flyte execution that this runs in, or this machine's user."""
    execution = os.environ.get("FLYTE_INTERNAL_EXECUTION_ID")
    if execution is None:
        return f"user {_user()}"
    place = [os.environ.get(f"FLYTE_INTERNAL_EXECUTION_{part}", "") for part in ("PROJECT", "DOMAIN")]
    return f"flyte {'/'.join(filter(None, [*place, execution]))}"


def actor_of(metadata: Any) -> str:
    """Who started the execution that a connector works for: the principal where Flyte knows it.

    `metadata` is flyteidl's TaskExecutionMetadata, None under `pyflyte run`.
    """
    if metadata is None:
        return present_actor()
    execution = metadata.task_execution_id.node_execution_id.execution_id
    place = "/".join(filter(None, [execution.project, execution.domain, execution.name]))
    principal = getattr(metadata.identity, "execution_identity", "")
    return f"flyte {place}" + (f" of {principal}" if principal else "")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's uid without a name.
        return str(os.getuid())
