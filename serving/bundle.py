"""A bundle: the one thing that travels from compression to every region.

A directory with `manifest.json` (content only) and the files it names. The bundle's digest is the
SHA-256 of the canonical manifest, so equal inputs give an equal digest wherever they were built.
Beside the manifest stands `attestation.json`: an in-toto statement in a DSSE envelope, signed with
Ed25519, that carries lineage and measurements. Verify both before anything serves.
"""

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from serving.credentials import SigningKey
from serving.errors import CorruptBundle, InvalidInput, UntrustedBundle
from serving.files import canonical_json, write_atomically

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
ATTESTATION: Final = "attestation.json"
PREDICATE_TYPE: Final = "https://flightpath.dev/attestation/v1"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output in Open Inference Protocol terms; -1 is a dynamic dimension."""

    name: str
    datatype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleFile:
    path: str
    """POSIX path relative to the bundle, with no `..`."""
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """The same model made for one runtime."""

    name: str
    """For example `onnxruntime-cpu-int8`."""
    runtime: str
    """`onnxruntime` | `tensorrt` | `vllm`."""
    entry: str
    """The file (or folder, for vllm) that the runtime opens."""
    files: list[BundleFile]
    requires: dict[str, str] = field(default_factory=dict)
    """CPU ISA, TensorRT version, compute capability: whatever the runtime must find."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenSet:
    """Inputs with known answers; every region replays them before it serves."""

    kind: str
    """`classification`: safetensors with `inputs`, `labels`, `reference` (the FP32 logits)."""
    file: BundleFile
    samples: int
    reference_accuracy: float
    """Accuracy of the FP32 reference on these samples, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    name: str
    family: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    variants: list[Variant]
    golden: GoldenSet | None = None
    classes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical manifest."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"

    def files(self) -> dict[str, BundleFile]:
        """Every file of the bundle by path."""
        listed = [file for variant in self.variants for file in variant.files]
        if self.golden is not None:
            listed.append(self.golden.file)
        return {file.path: file for file in listed}

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise InvalidInput(
            f"bundle {self.name} has no such variant",
            got=name,
            expected=" | ".join(variant.name for variant in self.variants),
        )


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest, refusing unknown versions, wrong types and paths that leave the bundle."""
    if len(content) > _MAX_METADATA_BYTES:
        raise CorruptBundle("manifest is too large", got=len(content), expected=f"<= {_MAX_METADATA_BYTES} bytes")
    try:
        raw = json.loads(content)
        if not isinstance(raw, dict):
            raise TypeError(f"a {type(raw).__name__}")
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise CorruptBundle(
                "manifest has an unknown schema_version", got=raw.get("schema_version"), expected=SCHEMA_VERSION
            )
        manifest = _manifest_from_json(raw)
    except (ValueError, KeyError, TypeError) as broken:
        raise CorruptBundle("manifest cannot be read", got=repr(broken), expected="a manifest.json") from broken
    for file in manifest.files().values():
        check_relative_path(file.path)
    for variant in manifest.variants:
        check_relative_path(variant.entry)
    return manifest


def _manifest_from_json(raw: dict[str, Any]) -> Manifest:
    golden = raw.get("golden")
    return Manifest(
        schema_version=raw["schema_version"],
        name=str(raw["name"]),
        family=str(raw["family"]),
        inputs=[TensorSpec(**spec) for spec in raw["inputs"]],
        outputs=[TensorSpec(**spec) for spec in raw["outputs"]],
        classes=[str(name) for name in raw.get("classes", [])],
        variants=[
            Variant(**{**variant, "files": [BundleFile(**file) for file in variant["files"]]})
            for variant in raw["variants"]
        ],
        golden=None if golden is None else GoldenSet(**{**golden, "file": BundleFile(**golden["file"])}),
    )


def check_relative_path(path: str) -> None:
    """Refuse absolute paths, `..`, back-slashes and empty parts."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
        raise CorruptBundle("path leaves the bundle", got=path, expected="a relative path without ..")


def describe_file(root: Path, relative: str) -> BundleFile:
    """Hash one file of a bundle under construction."""
    check_relative_path(relative)
    path = root / relative
    return BundleFile(path=relative, sha256=hash_file(path), size_bytes=path.stat().st_size)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not path.is_file():
        raise CorruptBundle("bundle has no manifest", got=str(root), expected=f"a folder with {MANIFEST}")
    return parse_manifest(path.read_bytes())


def verify_files(root: Path, manifest: Manifest) -> None:
    """Check size and SHA-256 of every file the manifest names."""
    for file in manifest.files().values():
        path = root / file.path
        if not path.resolve().is_relative_to(root.resolve()):
            raise CorruptBundle("path leaves the bundle", got=file.path, expected="a file inside the bundle")
        if not path.is_file():
            raise CorruptBundle("bundle lacks a file", got=str(root), expected=file.path)
        size = path.stat().st_size
        if size != file.size_bytes:
            raise CorruptBundle(f"{file.path} has a wrong size", got=size, expected=f"{file.size_bytes} bytes")
        actual = hash_file(path)
        if actual != file.sha256:
            raise CorruptBundle(f"{file.path} has a wrong SHA-256", got=actual, expected=file.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One figure that was measured on the model, and where."""

    name: str
    value: float
    unit: str
    where: str
    """Machine and runtime, for example `cpu, onnxruntime 1.32`."""
    interval: list[float] | None = None
    """95 % confidence interval, where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attestation:
    """What is claimed of a bundle: where it comes from and what was measured."""

    bundle_name: str
    bundle_digest: str
    lineage: dict[str, str]
    """commit, data hash, config fingerprint, Flyte execution, release id."""
    measurements: list[Measurement]

    def signed(self, key: SigningKey) -> bytes:
        """A DSSE envelope around the in-toto statement (github.com/secure-systems-lab/dsse)."""
        statement = {
            "_type": _STATEMENT_TYPE,
            "subject": [{"name": self.bundle_name, "digest": {"sha256": self.bundle_digest.removeprefix("sha256:")}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "lineage": self.lineage,
                "measurements": [asdict(measurement) for measurement in self.measurements],
            },
        }
        payload = canonical_json(statement)
        signature = key.private.sign(_pre_authentication(payload))
        return canonical_json(
            {
                "payloadType": _PAYLOAD_TYPE,
                "payload": base64.b64encode(payload).decode(),
                "signatures": [{"keyid": key.key_id, "sig": base64.b64encode(signature).decode()}],
            }
        )


def _pre_authentication(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def verify_attestation(envelope: bytes, *, digest: str, keys: dict[str, Ed25519PublicKey]) -> Attestation:
    """Check that a trusted key signed this envelope for this digest, and return what it says."""
    if len(envelope) > _MAX_METADATA_BYTES:
        raise UntrustedBundle("attestation is too large", got=len(envelope), expected=f"<= {_MAX_METADATA_BYTES} bytes")
    try:
        raw = json.loads(envelope)
        payload = base64.b64decode(raw["payload"], validate=True)
        signatures = [(str(s["keyid"]), base64.b64decode(s["sig"], validate=True)) for s in raw["signatures"]]
        payload_type = raw["payloadType"]
    except (ValueError, KeyError, TypeError) as broken:
        raise UntrustedBundle("attestation cannot be read", got=repr(broken), expected="a DSSE envelope") from broken
    if payload_type != _PAYLOAD_TYPE or not any(_signed_by(keys, signature, payload) for signature in signatures):
        raise UntrustedBundle(
            "attestation has no valid signature",
            got=[keyid[:12] for keyid, _ in signatures],
            expected=f"one of {sorted(keyid[:12] for keyid in keys)}",
        )
    return _attestation_from_statement(payload, digest)


def _signed_by(keys: dict[str, Ed25519PublicKey], signature: tuple[str, bytes], payload: bytes) -> bool:
    keyid, content = signature
    if keyid not in keys:
        return False
    try:
        keys[keyid].verify(content, _pre_authentication(payload))
    except InvalidSignature:
        return False
    return True


def _attestation_from_statement(payload: bytes, digest: str) -> Attestation:
    try:
        statement = json.loads(payload)
        subject = statement["subject"][0]
        attestation = Attestation(
            bundle_name=str(subject["name"]),
            bundle_digest=f"sha256:{subject['digest']['sha256']}",
            lineage=dict(statement["predicate"]["lineage"]),
            measurements=[Measurement(**m) for m in statement["predicate"]["measurements"]],
        )
        types = (statement["_type"], statement["predicateType"])
    except (ValueError, KeyError, TypeError, IndexError) as broken:
        raise UntrustedBundle(
            "attestation cannot be read", got=repr(broken), expected="an in-toto statement"
        ) from broken
    if types != (_STATEMENT_TYPE, PREDICATE_TYPE):
        raise UntrustedBundle("attestation is of another type", got=types, expected=PREDICATE_TYPE)
    if attestation.bundle_digest != digest:
        raise UntrustedBundle("attestation is for another bundle", got=attestation.bundle_digest, expected=digest)
    return attestation


def verify_bundle(root: Path, *, digest: str, keys: dict[str, Ed25519PublicKey]) -> tuple[Manifest, Attestation]:
    """Everything a region checks before it serves: digest, files, signature."""
    manifest = read_manifest(root)
    if manifest.digest != digest:
        raise CorruptBundle("bundle has another digest", got=manifest.digest, expected=digest)
    verify_files(root, manifest)
    path = root / ATTESTATION
    if not path.is_file():
        raise UntrustedBundle("bundle has no attestation", got=str(root), expected=ATTESTATION)
    return manifest, verify_attestation(path.read_bytes(), digest=digest, keys=keys)


def seal(root: Path, manifest: Manifest, attestation: Attestation, key: SigningKey) -> str:
    """Write attestation and manifest (last: it makes the bundle visible) and return the digest."""
    verify_files(root, manifest)
    if attestation.bundle_digest != manifest.digest:
        raise InvalidInput("attestation is for another bundle", got=attestation.bundle_digest, expected=manifest.digest)
    write_atomically(root / ATTESTATION, attestation.signed(key))
    write_atomically(root / MANIFEST, manifest.to_bytes())
    return manifest.digest
