"""Tokens and keys are made once, readable by their owner alone, and told apart by role."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.credentials import ROLES, SigningKey, TokenFolder, bearer, same_token, trusted_keys
from serving.errors import InvalidInput, NotFound


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
