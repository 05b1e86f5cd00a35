"""Terraform's machine-readable UI (`-json`), one line at a time, as typed events with every text redacted."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from infra.driver.redaction import Redactor


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnostic:
    """An error or a warning of Terraform's."""

    severity: str
    summary: str
    detail: str = ""
    address: str = ""
    """The resource it is about; empty for the configuration as a whole."""
    place: str = ""
    """`file:line`, where Terraform knows it."""

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        where = " ".join(part for part in (self.address, self.place) if part)
        text = ": ".join(part for part in (self.summary, self.detail) if part)
        return f"{where}: {text}" if where else text


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One event: planned_change, resource_drift, apply_start, apply_progress, apply_complete, apply_errored,
    provision_*, refresh_*, change_summary, diagnostic, log and what later versions add."""

    kind: str
    message: str
    address: str = ""
    action: str = ""
    elapsed: timedelta | None = None
    diagnostic: Diagnostic | None = None


def parse_progress(line: str, redactor: Redactor) -> Progress | None:
    """None for a line that is no event, as `terraform init -json` mixes in a few."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or "@message" not in event:
        return None
    body = event.get("hook") or event.get("change") or {}
    seconds = body.get("elapsed_seconds")
    raw = event.get("diagnostic")
    return Progress(
        kind=str(event.get("type", "log")),
        message=redactor.clean(str(event["@message"])),
        address=str(body.get("resource", {}).get("addr", "")),
        action=str(body.get("action", "")),
        elapsed=None if seconds is None else timedelta(seconds=seconds),
        diagnostic=parse_diagnostic(raw, redactor) if isinstance(raw, dict) else None,
    )


def parse_diagnostic(raw: dict[str, Any], redactor: Redactor) -> Diagnostic:
    place = raw.get("range") or {}
    return Diagnostic(
        severity=str(raw.get("severity", "error")),
        summary=redactor.clean(str(raw.get("summary", ""))),
        detail=redactor.clean(str(raw.get("detail", ""))),
        address=str(raw.get("address", "")),
        place=f"{place['filename']}:{place['start']['line']}" if place else "",
    )
