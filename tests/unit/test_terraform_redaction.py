"""Secrets never print, and Terraform's own marks are honoured wherever the value turns up."""

import pytest

from infra.driver.redaction import HIDDEN, Redactor, Secret, marked_texts, mask


def test_a_secret_prints_as_hidden_inside_whatever_holds_it() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {[secret]!r} { ({'a': secret})!r}"
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("other")


def test_a_redactor_strikes_every_scalar_of_a_secret_also_escaped() -> None:
    redactor = Redactor()
    redactor.learn(Secret({"user": "admin", "keys": ["line\nbreak", 48151623]}))
    text = redactor.clean('admin said "line\\nbreak", then line\nbreak and 48151623')
    assert text == f'{HIDDEN} said "{HIDDEN}", then {HIDDEN} and {HIDDEN}'


def test_a_redactor_strikes_the_longer_of_two_overlapping_secrets() -> None:
    redactor = Redactor()
    redactor.learn(["pass", "password1"])
    assert redactor.clean("password1") == HIDDEN


def test_booleans_and_nothing_are_no_secrets() -> None:
    redactor = Redactor()
    redactor.learn([True, None, ""])
    assert redactor.clean("True null None") == "True null None"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_SESSION_TOKEN", True),
        ("ARM_CLIENT_SECRET", True),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", False),
        ("AWS_ACCESS_KEY_ID", False),
        ("AWS_REGION", False),
    ],
)
def test_an_environment_tells_its_secrets_by_name(name: str, hidden: bool) -> None:
    redactor = Redactor()
    redactor.learn_environment({name: "x9y8z7"})
    assert (redactor.clean("x9y8z7") == HIDDEN) is hidden


def test_mask_follows_the_shape_of_the_mark() -> None:
    value = {"a": 1, "b": {"c": 2, "d": 3}, "e": [4, 5, 6]}
    shown = mask(value, {"b": {"c": True}, "e": [False, True]})
    assert shown == {"a": 1, "b": {"c": HIDDEN, "d": 3}, "e": [4, HIDDEN, 6]}
    assert mask(value, True) == HIDDEN
    assert mask(value, False) == value


def test_marked_texts_finds_long_strings_under_a_mark_only() -> None:
    value = {"a": {"b": ["verylong", "tiny"], "c": "visible!"}, "d": ["seventh", "eighths"]}
    assert list(marked_texts(value, {"a": {"b": True}, "d": [False, True]})) == ["verylong", "eighths"]
