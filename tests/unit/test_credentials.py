"""Tokens and keys are made once, readable by their owner alone, and told apart by role."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flightpath.cli import app
from serving.credentials import (
    ROLES,
    SentToken,
    SigningKey,
    TokenFolder,
    bearer,
    retire_key,
    same_token,
    token_name,
    trusted_keys,
)
from serving.errors import Conflict, InvalidInput, NotFound


def test_every_role_has_its_own_token_of_mode_0600(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path / "tokens")
    tokens.ensure()
    assert len({tokens.read(role) for role in ROLES}) == len(ROLES)
    assert {stat.S_IMODE(tokens.path(role).stat().st_mode) for role in ROLES} == {0o600}


def test_processes_that_race_agree_on_one_token(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path / "tokens")
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda _: tokens.ensure(), range(16)))
    first = tokens.read("peer")
    tokens.ensure()
    assert tokens.read("peer") == first
    assert sorted(path.name for path in tokens.folder.iterdir()) == sorted(f"{role}.header" for role in ROLES)


def test_a_token_file_is_a_header_that_curl_can_send(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    header = tokens.path("promoter").read_text().strip()
    assert bearer(header.removeprefix("Authorization: ")) == tokens.read("promoter")


def test_a_missing_token_and_an_unknown_role_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="token file is missing"):
        TokenFolder(folder=tmp_path).read("peer")
    with pytest.raises(InvalidInput, match="unknown role, got root"):
        TokenFolder(folder=tmp_path).read("root")


@pytest.mark.parametrize("content", ["", " \n", "Authorization: Bearer \n", "Authorization: Bearer", "Bearer x", "a b"])
def test_a_file_without_one_token_is_refused(tmp_path: Path, content: str) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    tokens.path("operator").write_text(content)
    with pytest.raises(NotFound, match="token file holds no token"):
        tokens.read("operator")


def test_a_token_is_exchanged_in_steps_that_may_be_repeated(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    old = tokens.read("peer")
    name = tokens.add("peer")
    assert tokens.read("peer") == old
    new = tokens.accepted("peer")[1]
    assert name == token_name(new)
    assert name not in tokens.path("peer").read_text()
    for _ in range(2):
        tokens.send("peer", name)
        assert tokens.accepted("peer") == [new, old]
    assert tokens.opens("peer", old)
    tokens.retire("peer", token_name(old))
    assert tokens.accepted("peer") == [new]
    assert not tokens.opens("peer", old)
    assert stat.S_IMODE(tokens.path("peer").stat().st_mode) == 0o600


def test_the_token_that_is_sent_is_not_retired_and_no_other_is_named(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    with pytest.raises(Conflict, match="is the one that is sent"):
        tokens.retire("peer", token_name(tokens.read("peer")))
    for step in (tokens.send, tokens.retire):
        with pytest.raises(NotFound, match="no token of this name, got x"):
            step("peer", "x")


def test_lines_that_hold_no_token_open_nothing(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    tokens.path("peer").write_text("Authorization: Bearer \n\nAuthorization: Bearer a\na b\nAuthorization: Bearer c\n")
    assert tokens.accepted("peer") == ["a", "c"]
    assert not any(tokens.opens("peer", given) for given in ("", "b", "a b", "Bearer", "Authorization:"))


def test_what_was_sent_is_sent_while_its_file_cannot_be_read(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path)
    tokens.ensure()
    sent, token = SentToken(tokens, "peer"), tokens.read("peer")
    for broken in (b"", b"\xff\xfe"):
        tokens.path("peer").write_bytes(broken)
        assert sent() == token
        assert not tokens.opens("peer", token)
    tokens.path("peer").unlink()
    assert sent() == token
    assert not tokens.opens("peer", token)
    tokens.path("peer").write_text("Authorization: Bearer other\n")
    assert sent() == "other"


def test_an_empty_token_opens_nothing() -> None:
    assert not same_token(bearer(None), "")
    assert not same_token("x", "")


def test_a_trusted_key_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "torn.pem").write_bytes(b"-----BEGIN")
    with pytest.raises(InvalidInput, match=r"trusted key torn\.pem cannot be read"):
        trusted_keys(tmp_path)


def test_only_equal_tokens_are_the_same() -> None:
    assert same_token("secret", "secret")
    assert not same_token("secret", "secreT")
    assert not same_token("", "secret")


@pytest.mark.parametrize(("header", "token"), [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", ""), (None, "")])
def test_a_bearer_header_is_read_leniently(header: str | None, token: str) -> None:
    assert bearer(header) == token


def test_a_signing_key_is_made_once_and_trusted(tmp_path: Path) -> None:
    first, second = SigningKey.ensure(tmp_path), SigningKey.ensure(tmp_path)
    assert first.key_id == second.key_id
    assert list(trusted_keys(tmp_path)) == [first.key_id]
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600


def test_a_new_signing_key_is_trusted_beside_the_one_of_before_until_that_retires(tmp_path: Path) -> None:
    old = SigningKey.ensure(tmp_path)
    new = SigningKey.replace(tmp_path)
    assert SigningKey.ensure(tmp_path).key_id == new.key_id != old.key_id
    assert set(trusted_keys(tmp_path)) == {old.key_id, new.key_id}
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    retire_key(tmp_path, old.key_id)
    assert list(trusted_keys(tmp_path)) == [new.key_id]


def test_the_key_that_signs_is_not_retired_and_nothing_else_is_removed(tmp_path: Path) -> None:
    key = SigningKey.ensure(tmp_path)
    with pytest.raises(Conflict, match="is the one that signs"):
        retire_key(tmp_path, key.key_id)
    for id in ("../signing", "0" * 64, ""):
        with pytest.raises(NotFound, match="no such trusted key"):
            retire_key(tmp_path, id)
    assert list(trusted_keys(tmp_path)) == [key.key_id]


def test_the_command_line_exchanges_tokens_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHTPATH_HOME", str(tmp_path))
    tokens, run = TokenFolder(folder=tmp_path / "tokens"), CliRunner()
    tokens.ensure()
    old = token_name(tokens.read("peer"))
    new = run.invoke(app, ["tokens", "add", "peer"]).stdout.strip()
    assert run.invoke(app, ["tokens", "send", "peer", new]).exit_code == 0
    assert run.invoke(app, ["tokens", "list", "peer"]).stdout == f"{new}  sent, accepted\n{old}  accepted\n"
    assert run.invoke(app, ["tokens", "retire", "peer", old]).exit_code == 0
    assert isinstance(run.invoke(app, ["tokens", "retire", "peer", new]).exception, Conflict)

    first = SigningKey.ensure(tmp_path / "keys").key_id
    second = run.invoke(app, ["keys", "replace"]).stdout.strip()
    listed = {f"{second}  signs, trusted", f"{first}  trusted"}
    assert set(run.invoke(app, ["keys", "list"]).stdout.splitlines()) == listed
    assert run.invoke(app, ["keys", "retire", first]).exit_code == 0
    assert list(trusted_keys(tmp_path / "keys")) == [second]
