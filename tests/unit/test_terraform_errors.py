"""Terraform's words become one error that says what to do; words that are not known stay Terraform's."""

import pytest

from infra.driver import errors
from infra.driver.diagnostics import apply_error, error_from
from infra.driver.progress import Diagnostic, Progress, parse_progress
from infra.driver.redaction import Redactor

LOCK = """Error message: operation error S3: PutObject, StatusCode: 412, PreconditionFailed
Lock Info:
  ID:        5f805727-162e-5f66-df0b-17c53f073335
  Path:      states/us-east.tfstate
  Operation: OperationTypeApply
  Who:       ana@builder-3
  Version:   1.11.4
  Created:   2026-01-02 03:04:05.6 +0000 UTC
  Info:      
"""


def failure(summary: str, detail: str = "", *, address: str = "", place: str = "") -> Diagnostic:
    return Diagnostic(severity="error", summary=summary, detail=detail, address=address, place=place)


def test_a_lock_names_who_since_and_its_id() -> None:
    error = error_from("plan", [failure("Error acquiring the state lock", LOCK)])
    assert isinstance(error, errors.StateLocked)
    assert (error.who, error.since) == ("ana@builder-3", "2026-01-02 03:04:05.6 +0000 UTC")
    assert "lock 5f805727-162e-5f66-df0b-17c53f073335 of ana@builder-3" in str(error)


@pytest.mark.parametrize(
    "detail",
    [
        "api error ExpiredToken: The security token included in the request is expired",
        "api error InvalidClientTokenId: The security token included in the request is invalid.",
        "No valid credential sources found",
        "AADSTS700082: The refresh token has expired due to inactivity",
        'oauth2: "invalid_grant" "reauth related error (invalid_rapt)"',
    ],
)
def test_expired_credentials_are_told_for_each_cloud(detail: str) -> None:
    error = error_from("plan", [failure("reading the account", detail, address="aws_vpc.this", place="main.tf:1")])
    assert isinstance(error, errors.CredentialsExpired)
    assert not error.retryable
    assert "aws_vpc.this" in str(error)


def test_credentials_that_expire_in_mid_apply_tell_what_was_done() -> None:
    events = [Progress(kind="apply_complete", message="", address="aws_vpc.this")]
    error = apply_error([failure("creating", "ExpiredToken: is expired")], events, stderr="")
    assert isinstance(error, errors.CredentialsExpired)
    assert error.done == ("aws_vpc.this",)


def test_a_value_that_a_provider_refuses_is_no_wrong_variable() -> None:
    error = error_from("plan", [failure("Invalid value for field", address="aws_vpc.this", place="main.tf:3")])
    assert type(error) is errors.PlanFailed
    assert error.retryable


def test_a_crash_without_diagnostics_keeps_what_stderr_said() -> None:
    error = error_from("init", [], stderr="panic: runtime error")
    assert isinstance(error, errors.InitFailed)
    assert "panic: runtime error" in str(error)


def test_a_long_partial_apply_counts_what_it_does_not_name() -> None:
    events = [Progress(kind="apply_complete", message="", address=f"aws_eip.this[{n}]") for n in range(7)]
    error = apply_error([failure("throttled", address="aws_vpc.x")], events, stderr="")
    assert "after 7 changes" in str(error)
    assert "and 2 more" in str(error)
    assert isinstance(error, errors.ApplyFailed)
    assert (len(error.done), error.failed) == (7, ("aws_vpc.x",))


@pytest.mark.parametrize("line", ["", "not json", "[1]", '{"no": "message"}', "\x1b[32mcolour"])
def test_a_line_that_is_no_event_is_none(line: str) -> None:
    assert parse_progress(line, Redactor()) is None


def test_an_event_without_a_resource_keeps_its_message() -> None:
    event = parse_progress('{"@message":"Plan: 1 to add","type":"change_summary","changes":{"add":1}}', Redactor())
    assert event == Progress(kind="change_summary", message="Plan: 1 to add")
