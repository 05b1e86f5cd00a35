"""Tokens of the HTTP APIs and the keys that bundles are signed with.

A token is a file of mode 0600 that holds the request header itself, so that curl can read it
(`curl -H @file`). Tokens are compared in constant time and never logged.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.errors import InvalidInput, NotFound
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
            content = f"{_PREFIX}{secrets.token_urlsafe(32)}\n".encode()
            _create_once(self.path(role), content)

    def read(self, role: str) -> str:
        """The bare token of a role."""
        try:
            text = self.path(role).read_text()
        except FileNotFoundError as missing:
            raise NotFound(
                "token file is missing", got=str(self.path(role)), expected="a state root made by `flightpath up`"
            ) from missing
        token = text.removeprefix(_PREFIX).strip()
        if len(token.split()) != 1:
            # An empty token would open the door to whoever brings none, and a header without one is no secret.
            raise NotFound("token file holds no token", got=str(self.path(role)), expected=f"{_PREFIX}<token>")
        return token


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
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _create_once(path, pem)
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidInput("signing key has a wrong type", got=type(private).__name__, expected="Ed25519")
        key = cls(private=private)
        public = folder / "trusted" / f"{key.key_id}.pem"
        if not public.exists():
            write_atomically(public, key.public_pem)
        return key

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        return key_id(self.private.public_key())


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
