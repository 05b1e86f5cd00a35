"""Plans and drift as `terraform show -json` writes them (format 1.2), for what terraform_data cannot show."""

from typing import Any

from infra.driver.plan import AttributeChange, DriftReport, Summary, declared_variables, learn_marked, read_changes
from infra.driver.redaction import HIDDEN, Redactor


def change(address: str, actions: list[str], **more: Any) -> dict[str, Any]:
    top = {key: more.pop(key) for key in ("previous_address",) if key in more}
    body = {"actions": actions, "before": None, "after": None, **more}
    return {"address": address, "type": address.split(".")[0], "change": body, **top}


def read(*raw: dict[str, Any]) -> Any:
    document = {"resource_changes": list(raw)}
    redactor = Redactor()
    learn_marked(document, redactor)
    return read_changes(document, "resource_changes", redactor)


def test_a_replacement_counts_once_in_either_order() -> None:
    changes = read(
        change("aws_vpc.a", ["create"]),
        change("aws_vpc.b", ["delete", "create"]),
        change("aws_vpc.c", ["create", "delete"]),
        change("aws_vpc.d", ["delete"]),
        change("aws_vpc.e", ["update"]),
        change("aws_vpc.f", ["no-op"]),
        change("aws_ami.g", ["read"]),
    )
    assert Summary.of(changes) == Summary(adds=1, changes=1, destroys=1, replaces=2)
    assert [item.address[-1] for item in changes] == list("abcde")


def test_a_move_is_kept_though_it_changes_nothing() -> None:
    (moved,) = read(change("aws_vpc.new", ["no-op"], previous_address="aws_vpc.old"))
    assert (moved.previous_address, moved.action) == ("aws_vpc.old", "no-op")


def test_attributes_are_shown_before_and_after_without_what_is_sensitive() -> None:
    (updated,) = read(
        change(
            "aws_db_instance.this",
            ["update"],
            before={"password": "old-secret", "size": 20, "same": 1, "dsn": "pg://u:old-secret@h"},
            after={"password": "new-secret", "size": 40, "same": 1, "dsn": "pg://u:new-secret@h"},
            before_sensitive={"password": True},
            after_sensitive={"password": True},
            after_unknown={"arn": True},
        )
    )
    assert updated.attributes == (
        AttributeChange(name="arn", before=None, after="(known after apply)"),
        AttributeChange(name="dsn", before=f"pg://u:{HIDDEN}@h", after=f"pg://u:{HIDDEN}@h"),
        AttributeChange(name="password", before=HIDDEN, after=HIDDEN),
        AttributeChange(name="size", before=20, after=40),
    )


def test_a_deletion_outside_terraform_is_drift_with_its_recreation_attributed() -> None:
    drifted = read(
        change("aws_s3_bucket.gone", ["delete"], before={"bucket": "b"}),
        change("aws_vpc.touched", ["update"], before={"tags": {"a": "1"}}, after={"tags": {"a": "2"}}),
    )
    pending = read(
        change("aws_s3_bucket.gone", ["create"], after={"bucket": "b"}),
        change("aws_vpc.touched", ["update"], before={"tags": {"a": "2"}}, after={"tags": {"a": "1"}}),
        change("aws_eip.new", ["create"]),
    )
    report = DriftReport(has_changes=True, drifted=drifted, pending=pending)
    assert report.has_drift
    assert [item.action for item in report.drifted] == ["delete", "update"]
    assert report.drifted[1].attributes == (AttributeChange(name="tags", before={"a": "1"}, after={"a": "2"}),)
    assert [item.address for item in report.unattributed] == ["aws_eip.new"]


def test_a_refresh_that_needs_no_change_is_no_drift() -> None:
    drifted = read(change("aws_lambda_function.f", ["update"], before={"modified": 1}, after={"modified": 2}))
    assert not DriftReport(has_changes=False, drifted=drifted, pending=()).has_drift


def test_declared_variables_are_those_of_the_root_module() -> None:
    document: dict[str, Any] = {
        "configuration": {"root_module": {"variables": {"region": {}}, "module_calls": {"x": {}}}}
    }
    assert declared_variables(document) == {"region"}
    assert declared_variables({}) == frozenset()
