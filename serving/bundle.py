"""A bundle: the one thing that travels from compression to every region.

A directory with `manifest.json` (content only) and the files it names. The bundle's digest is the
SHA-256 of the canonical manifest, so equal inputs give an equal digest wherever they were built.
Beside the manifest stands `attestation.json`: an in-toto statement in a DSSE envelope, signed with
Ed25519, that carries lineage and measurements. Verify both before anything serves.
"""

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
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
MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
"""Of a manifest or an attestation: both are read whole."""
ENTRY_LINK: Final = ".entry"
"""A pod's link to what its server opens: it lies beside the bundle's files and points to one of them."""
INCOMING: Final = ".incoming"
"""Where a copy into a mounted folder is made, on the same disk."""
_LOST_AND_FOUND: Final = "lost+found"
"""A file system's own, where the bundle's folder is a mount point."""
_CHUNK_BYTES: Final = 1024 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


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
    """`classification`: safetensors with `inputs` (of several: `input.<name>`), `labels` and `reference` (the FP32
    logits); `regression`: with `targets` and `tolerance` in place of labels; `language-model`: JSON of texts."""
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
    """Read a manifest, refusing unknown versions, wrong types and names that no bundle can have."""
    if len(content) > MAX_METADATA_BYTES:
        raise CorruptBundle("manifest is too large", got=len(content), expected=f"<= {MAX_METADATA_BYTES} bytes")
    try:
        raw = json.loads(content)
        if not isinstance(raw, dict):
            raise TypeError(f"a {type(raw).__name__}")
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise CorruptBundle(
                "manifest has an unknown schema_version", got=raw.get("schema_version"), expected=SCHEMA_VERSION
            )
        manifest = _manifest_from_json(raw)
        _check_names(manifest)
        # Its digest must exist: JSON can say NaN and half a surrogate, and the canonical form cannot.
        manifest.to_bytes()
    except (ValueError, KeyError, TypeError, RecursionError) as broken:
        raise CorruptBundle("manifest cannot be read", got=repr(broken), expected="a manifest.json") from broken
    return manifest


def _check_names(manifest: Manifest) -> None:
    """Every file has one name, one size and one content, and can lie in one folder with the others."""
    files = manifest.files()
    for variant in manifest.variants:
        check_relative_path(variant.entry)
        for file in variant.files:
            if file != files[file.path]:
                raise CorruptBundle("manifest lists a file twice", got=file.path, expected="one size and one SHA-256")
    for file in files.values():
        check_relative_path(file.path)
        whole = isinstance(file.size_bytes, int) and file.size_bytes >= 0
        if not whole or not isinstance(file.sha256, str) or not _SHA256.fullmatch(file.sha256):
            raise CorruptBundle(f"manifest describes {file.path} badly", got=file, expected="a size and a SHA-256")
    folders = _folders_of(files)
    taken = (folders & set(files)) | ({MANIFEST, ATTESTATION} & {*folders, *files})
    if taken:
        raise CorruptBundle("manifest lists a name that is taken", got=sorted(taken), expected="names of files alone")


def _folders_of(paths: Iterable[str]) -> set[str]:
    return {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}


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
    """Refuse absolute paths, `..`, back-slashes, and what is another spelling of a path."""
    pure = PurePosixPath(path)
    if not pure.parts or path.startswith("/") or "\\" in path or "\0" in path or ".." in pure.parts:
        raise CorruptBundle("path leaves the bundle", got=path, expected="a relative path without ..")
    if str(pure) != path:
        raise CorruptBundle("path is spelled in a second way", got=path, expected=str(pure))


def describe_file(root: Path, relative: str) -> BundleFile:
    """Hash one file of a bundle under construction."""
    check_relative_path(relative)
    path = root / relative
    return BundleFile(path=relative, sha256=hash_file(path), size_bytes=path.stat().st_size)


def hash_file(path: Path, *, on_block: Callable[[int], None] = lambda size_bytes: None) -> str:
    """SHA-256 of a file, as hex; `on_block` is called with the size of each block read and may wait or raise."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            on_block(len(chunk))
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder. One named `sha256/<hex>` must hold the manifest of this digest."""
    path = root / MANIFEST
    if not path.is_file():
        raise CorruptBundle("bundle has no manifest", got=str(root), expected=f"a folder with {MANIFEST}")
    manifest = parse_manifest(_read_metadata(path))
    if root.parent.name == "sha256" and _SHA256.fullmatch(root.name):
        check_digest(manifest, f"sha256:{root.name}")
    return manifest


def check_digest(manifest: Manifest, digest: str) -> None:
    if manifest.digest != digest:
        raise CorruptBundle("bundle has another digest", got=manifest.digest, expected=digest)


def _read_metadata(path: Path) -> bytes:
    _check_regular(path, path.name)
    with path.open("rb") as file:
        return file.read(MAX_METADATA_BYTES + 1)


def _check_regular(path: Path, name: str) -> os.stat_result:
    """A file of its own: what has a second name can be changed under it after every check."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        kind = f"{found.st_nlink} names" if stat.S_ISREG(found.st_mode) else stat.filemode(found.st_mode)
        raise CorruptBundle(f"{name} is no file of its own", got=kind, expected="a regular file with one name")
    return found


def verify_files(root: Path, manifest: Manifest) -> None:
    """Check size and SHA-256 of every file the manifest names."""
    for file in manifest.files().values():
        verify_file(root, file)


def verify_file(root: Path, file: BundleFile, *, on_block: Callable[[int], None] = lambda size_bytes: None) -> None:
    """Check one file of a bundle; `on_block` as in `hash_file`."""
    path = root / file.path
    if not _is_inside(path, root):
        raise CorruptBundle("path leaves the bundle", got=file.path, expected="a file inside the bundle")
    if not os.path.lexists(path):
        raise CorruptBundle("bundle lacks a file", got=str(root), expected=file.path)
    size = _check_regular(path, file.path).st_size
    if size != file.size_bytes:
        raise CorruptBundle(f"{file.path} has a wrong size", got=size, expected=f"{file.size_bytes} bytes")
    actual = hash_file(path, on_block=on_block)
    if actual != file.sha256:
        raise CorruptBundle(f"{file.path} has a wrong SHA-256", got=actual, expected=file.sha256)


def unlisted(root: Path, manifest: Manifest) -> list[str]:
    """What lies in the folder and is not the bundle's: files, folders and links, by path."""
    files = {MANIFEST, ATTESTATION, *manifest.files()}
    folders = _folders_of(files)
    found = []
    for place, inner, names in os.walk(root):
        relative = Path(place).relative_to(root)
        for name in [*inner, *names]:
            path = (relative / name).as_posix()
            is_folder = name in inner and not (root / path).is_symlink()
            if path not in (folders if is_folder else files) and not _belongs_beside(root, path):
                found.append(path)
        # What is in an unlisted folder goes with it.
        inner[:] = [name for name in inner if (relative / name).as_posix() in folders]
    return sorted(found)


def _belongs_beside(root: Path, path: str) -> bool:
    there = root / path
    if path == ENTRY_LINK:
        return there.is_symlink() and _is_inside(there, root)
    return path in (INCOMING, _LOST_AND_FOUND) and there.is_dir() and not there.is_symlink()


def _is_inside(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def verify_nothing_unlisted(root: Path, manifest: Manifest) -> None:
    found = unlisted(root, manifest)
    if found:
        raise CorruptBundle("bundle holds what its manifest does not list", got=found, expected="listed files alone")


def verify_variant(root: Path, name: str) -> tuple[Manifest, Variant]:
    """What a model server checks at its start: the manifest, this variant's files, and that nothing else is there.

    Raises:
        CorruptBundle: a digest, a size or a path does not hold, or the entry is not made of files with a hash.
        InvalidInput: the bundle has no such variant.
    """
    manifest = read_manifest(root)
    variant = manifest.variant(name)
    verify_nothing_unlisted(root, manifest)
    verify_files(root, replace(manifest, variants=[variant], golden=None))
    paths = {file.path for file in variant.files}
    if variant.entry not in paths | _folders_of(paths):
        raise CorruptBundle("entry is not a file of its variant", got=variant.entry, expected="a file with a hash")
    return manifest, variant


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
    if len(envelope) > MAX_METADATA_BYTES:
        raise UntrustedBundle("attestation is too large", got=len(envelope), expected=f"<= {MAX_METADATA_BYTES} bytes")
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
    """Everything a region checks before it serves: digest, files, that nothing else is there, signature."""
    manifest = read_manifest(root)
    check_digest(manifest, digest)
    verify_nothing_unlisted(root, manifest)
    verify_files(root, manifest)
    path = root / ATTESTATION
    if not os.path.lexists(path):
        raise UntrustedBundle("bundle has no attestation", got=str(root), expected=ATTESTATION)
    return manifest, verify_attestation(_read_metadata(path), digest=digest, keys=keys)


def seal(root: Path, manifest: Manifest, attestation: Attestation, key: SigningKey) -> str:
    """Write attestation and manifest (last: it makes the bundle visible) and return the digest."""
    verify_files(root, manifest)
    if attestation.bundle_digest != manifest.digest:
        raise InvalidInput("attestation is for another bundle", got=attestation.bundle_digest, expected=manifest.digest)
    write_atomically(root / ATTESTATION, attestation.signed(key))
    write_atomically(root / MANIFEST, manifest.to_bytes())
    return manifest.digest
