"""Who changed a resource, asked of the cloud's own audit log: a seam, and CloudTrail behind it.

An audit log is late (CloudTrail by up to a quarter of an hour) and short (90 days), so its silence says nothing: a
drift without a name is reported all the same.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from serving.errors import RetryableError

_MOST_CHANGES: Final = 20
"""For one resource: the newest name who did it; a controller that writes each minute would fill pages."""


class ChangeLogUnavailable(RetryableError):
    code = "change_log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One call that wrote to a resource."""

    id: str
    who: str
    """The caller as the cloud names it: an ARN, or the name of a user."""
    what: str
    """The call, such as DeleteBucket."""
    at: datetime
    address: str = ""
    """Where the call came from."""
    agent: str = ""
    """The program that made it, as it names itself."""

    @property
    def by_terraform(self) -> bool:
        """Another run of Terraform: of another state, or from a laptop."""
        return "terraform" in self.agent.lower()


class ChangeLog(Protocol):
    def changes(self, identities: Sequence[str], *, since: datetime, until: datetime) -> Sequence[Change]:
        """Writes to the resource that goes by one of these names, the newest first. Raises ChangeLogUnavailable."""
        ...


class CloudTrailLog:
    """CloudTrail's event history of one region: no trail needs to be set up for it."""

    def __init__(self, client: Any) -> None:
        """`client`: of boto3, for cloudtrail, with retries: the call is limited to two a second."""
        self._client = client

    @classmethod
    def in_region(cls, region: str) -> "CloudTrailLog":
        import boto3  # type: ignore[import-untyped]  # only whoever asks AWS needs it
        from botocore.config import Config  # type: ignore[import-untyped]

        retries = Config(retries={"mode": "standard", "max_attempts": 8})
        return cls(boto3.client("cloudtrail", region_name=region, config=retries))

    def changes(self, identities: Sequence[str], *, since: datetime, until: datetime) -> Sequence[Change]:
        found: dict[str, Change] = {}
        for identity in identities:
            for event in self._events(identity, since, until):
                change = _read(event)
                found[change.id] = change
        return sorted(found.values(), key=lambda change: change.at, reverse=True)[:_MOST_CHANGES]

    def _events(self, identity: str, since: datetime, until: datetime) -> Iterator[Mapping[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        asked = {"LookupAttributes": [{"AttributeKey": "ResourceName", "AttributeValue": identity}]}
        try:
            answer = self._client.lookup_events(**asked, StartTime=since, EndTime=until, MaxResults=50)
        except (BotoCoreError, ClientError) as broken:
            raise ChangeLogUnavailable(f"CloudTrail did not tell of {identity}", got=broken) from broken
        yield from (event for event in answer["Events"] if event.get("ReadOnly") != "true")


def _read(event: Mapping[str, Any]) -> Change:
    raw = json.loads(event.get("CloudTrailEvent") or "{}")
    identity = raw.get("userIdentity") or {}
    return Change(
        id=event["EventId"],
        who=str(identity.get("arn") or event.get("Username") or identity.get("invokedBy") or "unknown"),
        what=event["EventName"],
        at=event["EventTime"],
        address=str(raw.get("sourceIPAddress", "")),
        agent=str(raw.get("userAgent", "")),
    )
