"""Names of children: deterministic, one to one, and short enough for Kubernetes."""

import re

import pytest
from flightpath_operator.names import (
    attempt_name,
    child_labels,
    environment_name,
    label_value,
    owner_value,
    selector,
    shorten,
    worker_name,
)
from flightpath_operator.plan import OWNER_LABEL
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.operator_specs import JOB, MODEL, document

HOST = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,42}[a-z0-9])?", fullmatch=True)


def test_workers_are_named_by_attempt_and_rank() -> None:
    assert worker_name("digits", 3, 12) == "digits-a3-w12"
    assert attempt_name("digits", 3) == "digits-a3"
    assert environment_name("digits") == "digits-env"


@given(NAMES, st.integers(0, 10**12), st.integers(0, 4095))
def test_workers_have_host_names_whatever_the_attempt(job: str, attempt: int, rank: int) -> None:
    assert HOST.fullmatch(worker_name(job, attempt, rank))


def test_the_longest_name_with_many_attempts_is_not_cut() -> None:
    assert worker_name("a" * 44, 99_999, 4095) == f"{'a' * 44}-a99999-w4095"


def test_owners_are_told_apart_by_kind() -> None:
    job, model = document("TrainingJob", JOB), document("ModelDeployment", MODEL)
    assert (owner_value(job), owner_value(model)) == ("tj.digits", "md.digits")
    assert selector(job) == {OWNER_LABEL: "tj.digits"}
    assert child_labels(job) == {OWNER_LABEL: "tj.digits", "app.kubernetes.io/managed-by": "flightpath-operator"}


def test_short_names_stay_and_long_ones_stay_apart() -> None:
    assert shorten("digits") == "digits"
    one, other = shorten("a" * 70 + "1"), shorten("a" * 70 + "2")
    assert one != other
    assert len(one) == len(other) == 63


@given(st.text(max_size=200))
def test_any_text_makes_a_label_value(text: str) -> None:
    assert LABEL.fullmatch(label_value(text))


@pytest.mark.parametrize(("text", "value"), [("team a/b", "team-a-b"), ("ok_1.2", "ok_1.2"), ("é", "")])
def test_label_values_keep_what_they_can(text: str, value: str) -> None:
    assert label_value(text) == value
