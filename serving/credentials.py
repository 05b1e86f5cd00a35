"""Tokens of the HTTP APIs and the keys that bundles are signed with.

A token is a line of a file of mode 0600 that holds the request header itself, so that curl can read it
(`curl -H @file`). A file may hold several while they are exchanged: the first is sent, all are accepted, and both are
read when they are used, so that nothing has to start again. Tokens are compared in constant time and never logged.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.errors import Conflict, InvalidInput, NotFound
from serving.files import sync_folder, write_atomically

_PREFIX = "Authorization: Bearer "

ROLES = ("promoter", "operator", "peer", "gateway")
"""promoter orders promotions, operator overrides too, peer is agents among themselves, gateway an agent to its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFolder:
    """The tokens of one state root, `<root>/tokens/<role>.header`."""

    folder: Path

    def path(self, role: str) -> Path:
        if role not in ROLES:
            raise InvalidInput("unknown role", got=role, expected=" | ".join(ROLES))
        return self.folder / f"{role}.header"

    def ensure(self) -> None:
        """Create the tokens that are missing; two processes that race agree on one token."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for role in ROLES:
            _create_once(self.path(role), _lines([secrets.token_urlsafe(32)]))

    def read(self, role: str) -> str:
        """The bare token that is sent for a role; raises NotFound."""
        return self.accepted(role)[0]

    def accepted(self, role: str) -> list[str]:
        """The bare tokens that open what a role may do, the one that is sent first; raises NotFound."""
        try:
            text = self.path(role).read_text()
        except FileNotFoundError as missing:
            raise NotFound(
                "token file is missing", got=str(self.path(role)), expected="a state root made by `flightpath up`"
            ) from missing
        tokens = [line.removeprefix(_PREFIX).strip() for line in text.splitlines()]
        # An empty token would open the door to whoever brings none, and a header without one is no secret.
        tokens = [token for token in tokens if len(token.split()) == 1]
        if not tokens:
            raise NotFound("token file holds no token", got=str(self.path(role)), expected=f"{_PREFIX}<token>")
        return tokens

    def opens(self, role: str, given: str) -> bool:
        """Whether `given` is one of the role's as its file has them now; one that cannot be read opens nothing."""
        try:
            accepted = self.accepted(role)
        except (NotFound, OSError, ValueError):
            accepted = []
        return among(given, accepted)

    # Exchanging one: add, send, retire; each on every machine before the next (docs/credentials.md)

    def add(self, role: str) -> str:
        """Accept a new token beside those of before, one of which is still sent; returns its name."""
        token = secrets.token_urlsafe(32)
        self._write(role, [*self.accepted(role), token])
        return token_name(token)

    def send(self, role: str, name: str) -> None:
        """Send the token of this name from now on; the others still open. Raises NotFound."""
        tokens = self.accepted(role)
        token = _named(tokens, name)
        self._write(role, [token, *(other for other in tokens if other != token)])

    def retire(self, role: str, name: str) -> None:
        """Let the token of this name open nothing any more. Raises NotFound, or Conflict for the one that is sent."""
        tokens = self.accepted(role)
        token = _named(tokens, name)
        if token == tokens[0]:
            raise Conflict(f"token of role {role} is the one that is sent", got=name, expected="one that is not")
        self._write(role, [other for other in tokens if other != token])

    def _write(self, role: str, tokens: Sequence[str]) -> None:
        write_atomically(self.path(role), _lines(tokens), mode=0o600)


class SentToken:
    """What is sent for a role, read each time; while its file cannot be read, what it was before."""

    def __init__(self, tokens: TokenFolder, role: str) -> None:
        """Raises NotFound."""
        self._tokens = tokens
        self._role = role
        self._known = tokens.read(role)

    def __call__(self) -> str:
        with contextlib.suppress(NotFound, OSError, ValueError):
            self._known = self._tokens.read(self._role)
        return self._known


def token_name(token: str) -> str:
    """What a token may be called where others read it."""
    return hashlib.sha256(f"flightpath token name v1 {token}".encode()).hexdigest()[:12]


def _named(tokens: Sequence[str], name: str) -> str:
    for token in tokens:
        if token_name(token) == name:
            return token
    raise NotFound("no token of this name", got=name, expected=" | ".join(map(token_name, tokens)))


def _lines(tokens: Sequence[str]) -> bytes:
    return "".join(f"{_PREFIX}{token}\n" for token in tokens).encode()


def _create_once(path: Path, content: bytes) -> None:
    """Write `path` with mode 0600 unless it exists; an existing file wins, whole."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_atomically(temporary, content, mode=0o600)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def hop_credential(peer_token: str) -> str:
    """What gateways and agents show one another in `x-flightpath-credential`.

    Derived, so that a gateway never sends the peers' token itself to another region's address.
    """
    return hmac.new(peer_token.encode(), b"flightpath gateway hop v1", hashlib.sha256).hexdigest()


def ensure_secret(path: Path) -> bytes:
    """32 random bytes kept in `path` with mode 0600, made on first use; processes that race agree on one secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _create_once(path, secrets.token_bytes(32))
    secret = path.read_bytes()
    if len(secret) != 32:
        raise InvalidInput(f"{path} holds no key", got=f"{len(secret)} bytes", expected="32 bytes; remove it")
    return secret


def same_token(given: str, expected: str) -> bool:
    """Compare in constant time. An empty token is nobody's: it is not even the same as another empty one."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def among(given: str, accepted: Sequence[str]) -> bool:
    """Whether it is one of them; all are compared, so that the time taken tells nothing about which came close."""
    return any([same_token(given, token) for token in accepted])


def bearer(header: str | None) -> str:
    """The token of an Authorization header, or an empty string."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """An Ed25519 key that attests bundles. Its id is the SHA-256 of the raw public key."""

    private: Ed25519PrivateKey

    @classmethod
    def ensure(cls, folder: Path) -> "SigningKey":
        """The key of `folder` (`signing.pem`, mode 0600, and `trusted/<keyid>.pem`), made on first use."""
        path = folder / "signing.pem"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create_once(path, cls(private=Ed25519PrivateKey.generate())._private_pem)
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidInput("signing key has a wrong type", got=type(private).__name__, expected="Ed25519")
        key = cls(private=private)
        public = _trusted(folder, key.key_id)
        if not public.exists():
            write_atomically(public, key.public_pem)
        return key

    @classmethod
    def replace(cls, folder: Path) -> "SigningKey":
        """Sign with a new key from now on. It is trusted before it signs anything; the one of before stays trusted."""
        key = cls(private=Ed25519PrivateKey.generate())
        write_atomically(_trusted(folder, key.key_id), key.public_pem)
        write_atomically(folder / "signing.pem", key._private_pem, mode=0o600)
        return key

    @property
    def _private_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        return key_id(self.private.public_key())


def _trusted(folder: Path, id: str) -> Path:
    return folder / "trusted" / f"{id}.pem"


def retire_key(folder: Path, id: str) -> None:
    """Trust no new bundle of this key; what is live stays live. Raises NotFound, or Conflict for the one that signs."""
    if not re.fullmatch("[0-9a-f]{64}", id) or not _trusted(folder, id).exists():
        raise NotFound("no such trusted key", got=id, expected=" | ".join(trusted_keys(folder)))
    if (folder / "signing.pem").exists() and SigningKey.ensure(folder).key_id == id:
        raise Conflict("key is the one that signs", got=id, expected="one that was replaced")
    _trusted(folder, id).unlink()
    sync_folder(folder / "trusted")


def key_id(public: Ed25519PublicKey) -> str:
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def trusted_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys in `<folder>/trusted/`, by key id."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted((folder / "trusted").glob("*.pem")):
        try:
            public = serialization.load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as broken:
            raise InvalidInput(f"trusted key {path.name} cannot be read", got=str(broken), expected="PEM") from broken
        if not isinstance(public, Ed25519PublicKey):
            raise InvalidInput(
                f"trusted key {path.name} has a wrong type", got=type(public).__name__, expected="Ed25519"
            )
        keys[key_id(public)] = public
    return keys
