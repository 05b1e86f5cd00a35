"""Translates what Terraform says, once, into the driver's error tree. Pure: diagnostics in, one error out.

Terraform has no error codes: its summaries are matched, as Terraform 1.11 writes them. One that is not known becomes
PlanFailed or ApplyFailed with Terraform's own words, never a guess.
"""

import re
from collections.abc import Sequence

from infra.driver import errors
from infra.driver.progress import Diagnostic, Progress

_VARIABLE = ("value for undeclared variable", "no value for required variable", "invalid value for", "undeclared input")
_NEEDS_INIT = (
    "required plugins are not installed",
    "inconsistent dependency lock file",
    "backend initialization required",
    "backend configuration changed",
    "module not installed",
    "missing required provider",
    "failed to query available provider packages",
    "failed to install provider",
    "missing or corrupted provider plugins",
    "could not load plugin",
)
_STALE = ("saved plan is stale", "failed to load", "invalid plan file")
_CREDENTIALS = re.compile(
    r"Expired ?Token|token (included in the request )?(is|has) expired|InvalidClientTokenId|InvalidAccessKeyId"
    r"|RequestExpired|No valid credential sources|SSO session has expired|AADSTS7000\d\d|invalid_grant|reauth related",
    re.IGNORECASE,
)
_LOCK_FIELD = re.compile(r"^\s*(ID|Who|Created|Operation):[ \t]*(.*?)\s*$", re.MULTILINE)


def error_from(operation: str, diagnostics: Sequence[Diagnostic], *, stderr: str = "") -> errors.TerraformError:
    """The one error that tells most about a failed command that changed nothing."""
    found = tuple(item for item in diagnostics if item.is_error)
    known = _known_error(operation, found)
    if known is not None:
        return known
    got = _texts(found) or stderr.strip() or "no diagnostic"
    if found and all(item.place and not item.address for item in found):
        return errors.InvalidConfiguration(
            f"terraform {operation} refused the configuration", got=got, expected="a valid one", diagnostics=found
        )
    kind = errors.InitFailed if operation == "init" else errors.PlanFailed
    return kind(f"terraform {operation} failed", got=got, expected="exit status 0", diagnostics=found)


def apply_error(diagnostics: Sequence[Diagnostic], events: Sequence[Progress], *, stderr: str) -> errors.TerraformError:
    """The error of a failed apply; `done` names what is in the state now, so nobody has to guess."""
    found = tuple(item for item in diagnostics if item.is_error)
    done = addresses_of(events, "apply_complete")
    known = _known_error("apply", found)
    if known is not None:
        known.done = done
        return known
    failed = addresses_of(events, "apply_errored") or tuple(item.address for item in found if item.address)
    error = errors.ApplyFailed(
        f"terraform apply stopped after {len(done)} changes ({_short(done)}) at {_short(failed)}",
        got=_texts(found) or stderr.strip() or "no diagnostic",
        expected="every change; plan and apply again resume from here",
        diagnostics=found,
        done=done,
    )
    error.failed = failed
    return error


def addresses_of(events: Sequence[Progress], kind: str) -> tuple[str, ...]:
    return tuple(event.address for event in events if event.kind == kind)


def _known_error(operation: str, found: tuple[Diagnostic, ...]) -> errors.TerraformError | None:
    for item in found:
        error = _classify(operation, item, found)
        if error is not None:
            return error
    return None


def _classify(operation: str, item: Diagnostic, found: tuple[Diagnostic, ...]) -> errors.TerraformError | None:
    summary = item.summary.lower()
    # A state that cannot be read has the same summary, and nobody's lock.
    if "acquiring the state lock" in summary and "Lock Info:" in item.detail:
        return _state_locked(operation, item, found)
    refused = _CREDENTIALS.search(f"{item.summary} {item.detail}")
    if refused:
        expected = "valid credentials in the environment of the call; then plan and apply again"
        return errors.CredentialsExpired(
            f"the cloud refused the credentials of terraform {operation} ({refused[0]})",
            got=str(item),
            expected=expected,
            diagnostics=found,
        )
    if operation == "apply" and summary.startswith(_STALE):
        return errors.StalePlan(
            "the saved plan cannot be applied", got=str(item), expected="a new plan", diagnostics=found
        )
    if summary.startswith(_VARIABLE) and not item.address:
        return errors.InvalidVariable(
            f"terraform {operation} refused a variable",
            got=str(item),
            expected="every required variable, declared and valid",
            diagnostics=found,
        )
    if any(words in summary for words in _NEEDS_INIT):
        return errors.InitFailed(
            f"terraform {operation} lacks a provider, a module or a backend",
            got=str(item),
            expected="each one installed by init (reconfigure=True where the backend changed)",
            diagnostics=found,
        )
    return None


def _state_locked(operation: str, item: Diagnostic, found: tuple[Diagnostic, ...]) -> errors.StateLocked:
    fields = dict(_LOCK_FIELD.findall(item.detail))
    who, since, lock_id = (fields.get(name, "") or "unknown" for name in ("Who", "Created", "ID"))
    error = errors.StateLocked(
        f"terraform {operation} found the state locked",
        got=f"lock {lock_id} of {who} since {since}",
        expected="a free state: wait for that run; break the lock by hand only when it is known to be dead",
        diagnostics=found,
    )
    error.who, error.since, error.lock_id = who, since, lock_id
    return error


def _texts(found: Sequence[Diagnostic]) -> str:
    return "; ".join(str(item) for item in found)


def _short(addresses: Sequence[str]) -> str:
    shown = ", ".join(addresses[:5]) or "none"
    return shown if len(addresses) <= 5 else f"{shown} and {len(addresses) - 5} more"
