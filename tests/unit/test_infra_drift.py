"""Drift and its causes, and CloudTrail's answers in the form that botocore's own model of the service accepts."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.changelog import Change, ChangeLogUnavailable, CloudTrailLog
from infra.drift import Cause, attribute
from infra.driver.plan import DriftReport, read_changes
from infra.driver.redaction import Redactor

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ARN = "arn:aws:s3:::artifacts"


def raw(address: str, actions: list[str], before: Any = None, after: Any = None, unknown: Any = None) -> dict[str, Any]:
    change = {"actions": actions, "before": before, "after": after, "after_unknown": unknown or {}}
    return {"address": address, "type": address.split(".")[0], "change": change}


def report(drifted: Sequence[dict[str, Any]], pending: Sequence[dict[str, Any]], changes: bool = True) -> DriftReport:
    document = {"resource_drift": list(drifted), "resource_changes": list(pending)}
    return DriftReport(
        has_changes=changes,
        drifted=read_changes(document, "resource_drift", Redactor()),
        pending=read_changes(document, "resource_changes", Redactor()),
    )


class RecordedLog:
    def __init__(self, changes: dict[str, list[Change]]) -> None:
        self.known = changes
        self.asked: list[tuple[tuple[str, ...], datetime, datetime]] = []

    def changes(self, identities: Sequence[str], *, since: datetime, until: datetime) -> Sequence[Change]:
        self.asked.append((tuple(identities), since, until))
        return [change for identity in identities for change in self.known.get(identity, [])]


class SilentLog:
    def changes(self, identities: Sequence[str], *, since: datetime, until: datetime) -> Sequence[Change]:
        raise ChangeLogUnavailable("CloudTrail did not tell", got="throttled")


def change(who: str) -> Change:
    return Change(id=who, who=who, what="PutBucketTagging", at=NOW)


TAGGED = raw("aws_s3_bucket.a", ["update"], {"arn": ARN, "tags": {"a": "1"}}, {"arn": ARN, "tags": {"a": "2"}})
TAGGED_BACK = raw("aws_s3_bucket.a", ["update"], {"arn": ARN, "tags": {"a": "2"}}, {"arn": ARN, "tags": {"a": "1"}})
GONE = raw("aws_sqs_queue.b", ["delete"], {"id": "queue-b", "arn": "arn:b"})
GONE_BACK = raw("aws_sqs_queue.b", ["create"], None, {"name": "b"})


def test_a_changed_and_a_deleted_resource_are_told_apart_with_their_remedies() -> None:
    found = attribute(report([TAGGED, GONE], [TAGGED_BACK, GONE_BACK]), now=NOW)
    changed, deleted = found.drifts
    assert (changed.cause, deleted.cause) == (Cause.CHANGED, Cause.DELETED)
    assert [(item.name, item.before, item.after) for item in changed.attributes] == [("tags", {"a": "1"}, {"a": "2"})]
    assert (changed.remedy, deleted.address, deleted.remedy) == ("update", "aws_sqs_queue.b", "create")
    assert found.has_drift
    assert not found.is_clean


def test_a_configuration_that_was_not_applied_is_nobodys_drift() -> None:
    waiting = raw("aws_s3_bucket.a", ["update"], {"tags": None}, {"tags": {"a": "1"}})
    found = attribute(report([], [waiting]), now=NOW)
    assert [drift.cause for drift in found.drifts] == [Cause.UNATTRIBUTED]
    assert not found.has_drift
    assert not found.is_clean


def test_what_must_change_since_another_resource_drifted_is_a_consequence() -> None:
    policy = raw("aws_sqs_queue_policy.b", ["update"], {"queue_url": "u"}, {}, {"queue_url": True})
    found = attribute(report([GONE], [GONE_BACK, policy]), now=NOW)
    assert [(drift.address, drift.cause) for drift in found.drifts] == [
        ("aws_sqs_queue.b", Cause.DELETED),
        ("aws_sqs_queue_policy.b", Cause.CONSEQUENCE),
    ]


def test_drift_that_no_apply_would_undo_is_shown_and_is_no_alarm() -> None:
    found = attribute(report([TAGGED], [], changes=False), now=NOW)
    assert [drift.remedy for drift in found.drifts] == ["nothing"]
    assert found.is_clean
    assert not found.has_drift


def test_the_log_is_asked_by_the_names_of_the_cloud_and_names_the_caller() -> None:
    log = RecordedLog({ARN: [change("alice"), change("alice"), change("bob")]})
    found = attribute(report([TAGGED, GONE], [TAGGED_BACK, GONE_BACK]), log=log, now=NOW, window=timedelta(days=2))
    assert log.asked == [((ARN,), NOW - timedelta(days=2), NOW), (("arn:b", "queue-b"), NOW - timedelta(days=2), NOW)]
    assert [[each.who for each in drift.changes] for drift in found.drifts] == [["alice", "alice", "bob"], []]


def test_a_log_that_fails_costs_the_names_alone() -> None:
    found = attribute(report([TAGGED, GONE], [TAGGED_BACK, GONE_BACK]), log=SilentLog(), now=NOW)
    assert [drift.cause for drift in found.drifts] == [Cause.CHANGED, Cause.DELETED]
    assert "throttled" in found.log_problem


@settings(deadline=None)
@given(
    drifted=st.sets(st.integers(0, 9)),
    pending=st.sets(st.integers(0, 9)),
    deleted=st.sets(st.integers(0, 9)),
)
def test_every_difference_is_in_the_attribution_exactly_once(
    drifted: set[int], pending: set[int], deleted: set[int]
) -> None:
    touched = [raw(f"t.r{n}", ["delete"] if n in deleted else ["update"], {"v": 0}, {"v": 1}) for n in sorted(drifted)]
    waiting = [raw(f"t.r{n}", ["update"], {"v": 1}, {"v": 0}) for n in sorted(pending)]
    found = attribute(report(touched, waiting, changes=bool(pending)), now=NOW)
    assert sorted(drift.address for drift in found.drifts) == [f"t.r{n}" for n in sorted(drifted | pending)]
    assert {drift.address for drift in found.drifts if drift.cause is Cause.UNATTRIBUTED} == {
        f"t.r{n}" for n in pending - drifted
    }
    assert found.is_clean == (not pending)


@pytest.fixture
def cloudtrail() -> Any:
    client = boto3.client("cloudtrail", "us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
    with Stubber(client) as stubber:
        yield client, stubber


def event(number: int, who: str, **more: Any) -> dict[str, Any]:
    detail = {"userIdentity": {"arn": who}, "sourceIPAddress": "203.0.113.9", "userAgent": "aws-cli/2.15", **more}
    return {
        "EventId": f"e{number}",
        "EventName": "PutBucketTagging",
        "EventTime": NOW + timedelta(minutes=number),
        "ReadOnly": "false",
        "Username": "alice",
        "CloudTrailEvent": json.dumps(detail),
    }


def test_cloudtrail_tells_who_wrote_when_from_where_and_with_what(cloudtrail: Any) -> None:
    client, stubber = cloudtrail
    alice, terraform = "arn:aws:iam::1:user/alice", event(2, "arn:ci", userAgent="HashiCorp Terraform/1.11.0")
    reading = {**event(3, alice), "ReadOnly": "true"}
    bare = {"EventId": "e4", "EventName": "DeleteBucket", "EventTime": NOW, "Username": "bob"}
    for name, events in ((ARN, [event(1, alice), reading, terraform]), ("artifacts", [event(1, alice), bare])):
        asked = [{"AttributeKey": "ResourceName", "AttributeValue": name}]
        expected = {"LookupAttributes": asked, "StartTime": NOW, "EndTime": ANY, "MaxResults": 50}
        stubber.add_response("lookup_events", {"Events": events}, expected)
    found = CloudTrailLog(client).changes([ARN, "artifacts"], since=NOW, until=NOW + timedelta(days=1))
    assert [(item.who, item.what) for item in found] == [
        ("arn:ci", "PutBucketTagging"),
        (alice, "PutBucketTagging"),
        ("bob", "DeleteBucket"),
    ]
    assert [item.by_terraform for item in found] == [True, False, False]
    assert (found[1].address, found[1].agent) == ("203.0.113.9", "aws-cli/2.15")


def test_cloudtrail_that_refuses_is_a_retryable_error_that_names_the_resource(cloudtrail: Any) -> None:
    client, stubber = cloudtrail
    stubber.add_client_error("lookup_events", "ThrottlingException")
    with pytest.raises(ChangeLogUnavailable, match=f"{ARN}.*ThrottlingException"):
        CloudTrailLog(client).changes([ARN], since=NOW, until=NOW)
