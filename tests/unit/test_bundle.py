"""A bundle that was changed, cut, re-signed or made to point outside is never accepted."""

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle import (
    ATTESTATION,
    ENTRY_LINK,
    MANIFEST,
    Attestation,
    BundleFile,
    Manifest,
    Measurement,
    TensorSpec,
    Variant,
    check_relative_path,
    describe_file,
    parse_manifest,
    seal,
    verify_bundle,
    verify_variant,
)
from serving.credentials import SigningKey, trusted_keys
from serving.errors import CorruptBundle, InvalidInput, UntrustedBundle


def _manifest(root: Path) -> Manifest:
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.onnx").write_bytes(b"weights")
    return Manifest(
        name="digits",
        family="image-classifier",
        inputs=[TensorSpec(name="images", datatype="FP32", shape=[-1, 1, 8, 8])],
        outputs=[TensorSpec(name="logits", datatype="FP32", shape=[-1, 10])],
        variants=[
            Variant(name="cpu", runtime="onnxruntime", entry="model.onnx", files=[describe_file(root, "model.onnx")])
        ],
    )


def _attestation(digest: str) -> Attestation:
    figure = Measurement(name="accuracy", value=0.98, unit="share", where="cpu", interval=[0.97, 0.99])
    return Attestation(bundle_name="digits", bundle_digest=digest, lineage={"commit": "c"}, measurements=[figure])


@pytest.fixture
def sealed(tmp_path: Path, signing_key: SigningKey) -> tuple[Path, str]:
    root = tmp_path / "bundle"
    manifest = _manifest(root)
    return root, seal(root, manifest, _attestation(manifest.digest), signing_key)


def test_a_sealed_bundle_verifies_and_says_what_was_measured(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    manifest, attestation = verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert manifest.name == "digits"
    assert attestation.measurements[0].interval == [0.97, 0.99]
    assert attestation.lineage == {"commit": "c"}


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    assert _manifest(tmp_path / "here").digest == _manifest(tmp_path / "elsewhere").digest


def test_a_manifest_survives_its_own_bytes(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path / "bundle")
    assert parse_manifest(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("content", [b"Weights", b"weights and more", b""])
def test_a_changed_file_is_refused(sealed: tuple[Path, str], tmp_path: Path, content: bytes) -> None:
    root, digest = sealed
    (root / "model.onnx").write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"model\.onnx has a wrong"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_missing_file_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    (root / "model.onnx").unlink()
    with pytest.raises(CorruptBundle, match="lacks a file"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_changed_manifest_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    raw = json.loads((root / MANIFEST).read_bytes())
    raw["name"] = "other"
    (root / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(CorruptBundle, match="another digest"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_signature_of_a_stranger_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    stranger = SigningKey.ensure(tmp_path / "stranger")
    (root / ATTESTATION).write_bytes(_attestation(digest).signed(stranger))
    with pytest.raises(UntrustedBundle, match="no valid signature"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_better_figure_written_into_the_payload_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    envelope = json.loads((root / ATTESTATION).read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b"0.98", b"0.99")
    envelope["payload"] = base64.b64encode(payload).decode()
    (root / ATTESTATION).write_text(json.dumps(envelope))
    with pytest.raises(UntrustedBundle, match="no valid signature"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_an_attestation_of_another_bundle_is_refused(
    sealed: tuple[Path, str], tmp_path: Path, signing_key: SigningKey
) -> None:
    root, digest = sealed
    (root / ATTESTATION).write_bytes(_attestation(f"sha256:{'0' * 64}").signed(signing_key))
    with pytest.raises(UntrustedBundle, match="for another bundle"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_bundle_without_attestation_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    (root / ATTESTATION).unlink()
    with pytest.raises(UntrustedBundle, match="no attestation"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../b", "a\\b", "", "a\0b"])
def test_paths_that_leave_the_bundle_are_refused(path: str) -> None:
    with pytest.raises(CorruptBundle, match="leaves the bundle"):
        check_relative_path(path)


def test_a_link_that_leaves_the_bundle_is_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = sealed
    outside = tmp_path / "outside"
    outside.write_bytes(b"weights")
    (root / "model.onnx").unlink()
    (root / "model.onnx").symlink_to(outside)
    with pytest.raises(CorruptBundle, match="leaves the bundle"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def _add_file(root: Path) -> None:
    (root / "generation_config.json").write_text('{"temperature": 99}')


def _add_folder(root: Path) -> None:
    (root / "plugins").mkdir()


def _add_link(root: Path) -> None:
    (root / "leak").symlink_to("/etc/hostname")


def _add_pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def _add_entry_that_leaves(root: Path) -> None:
    (root / ENTRY_LINK).symlink_to("/etc")


@pytest.mark.parametrize("add", [_add_file, _add_folder, _add_link, _add_pipe, _add_entry_that_leaves])
def test_what_the_manifest_does_not_list_is_refused(
    sealed: tuple[Path, str], tmp_path: Path, add: Callable[[Path], None]
) -> None:
    root, digest = sealed
    add(root)
    with pytest.raises(CorruptBundle, match=r"does not list, got .* expected listed files alone"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))
    with pytest.raises(CorruptBundle, match="does not list"):
        verify_variant(root, "cpu")


def test_a_pods_link_to_the_entry_and_a_mounts_own_folder_may_lie_beside(
    sealed: tuple[Path, str], tmp_path: Path
) -> None:
    root, digest = sealed
    (root / ENTRY_LINK).symlink_to("model.onnx")
    (root / "lost+found").mkdir()
    verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, ATTESTATION])
def test_a_file_with_a_second_name_is_refused(sealed: tuple[Path, str], tmp_path: Path, name: str) -> None:
    root, digest = sealed
    os.link(root / name, tmp_path / "elsewhere")
    with pytest.raises(CorruptBundle, match="is no file of its own, got 2 names"):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, ATTESTATION])
def test_a_link_to_the_same_content_is_refused(sealed: tuple[Path, str], tmp_path: Path, name: str) -> None:
    root, digest = sealed
    (root / name).rename(root / "real")
    (root / name).symlink_to("real")
    with pytest.raises(CorruptBundle):
        verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_folder_that_is_named_by_a_digest_must_hold_that_bundle(sealed: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "sha256" / ("0" * 64)
    folder.parent.mkdir()
    sealed[0].rename(folder)
    with pytest.raises(CorruptBundle, match="another digest"):
        verify_variant(folder, "cpu")


def _with_files(root: Path, *files: BundleFile) -> bytes:
    manifest = _manifest(root)
    return replace(manifest, variants=[replace(manifest.variants[0], files=list(files))]).to_bytes()


_FILE = BundleFile(path="model.onnx", sha256="0" * 64, size_bytes=1)


@pytest.mark.parametrize(
    "files",
    [
        [_FILE, replace(_FILE, sha256="1" * 64)],
        [_FILE, replace(_FILE, path="model.onnx/part")],
        [replace(_FILE, path=MANIFEST)],
        [replace(_FILE, path=f"{ATTESTATION}/x"), _FILE],
        [replace(_FILE, size_bytes=-1)],
        [replace(_FILE, sha256="../../etc/passwd")],
        [replace(_FILE, path="model//x")],
        [replace(_FILE, path="./model.onnx")],
    ],
)
def test_a_manifest_whose_files_cannot_be_told_apart_or_checked_is_refused(
    tmp_path: Path, files: list[BundleFile]
) -> None:
    with pytest.raises(CorruptBundle):
        parse_manifest(_with_files(tmp_path / "bundle", *files))


def test_a_manifest_without_a_canonical_form_is_refused(tmp_path: Path) -> None:
    content = _manifest(tmp_path / "bundle").to_bytes().replace(b'"family":"image-classifier"', b'"family":"\\ud800"')
    with pytest.raises(CorruptBundle, match="cannot be read"):
        parse_manifest(content)


def test_a_manifest_nested_without_end_is_refused() -> None:
    with pytest.raises(CorruptBundle, match="cannot be read"):
        parse_manifest(b"[" * 100_000)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_corrupt_bundle(content: bytes) -> None:
    try:
        parse_manifest(content)
    except CorruptBundle:
        return
    raise AssertionError("bytes that hypothesis made up were read as a manifest")


def test_an_unknown_schema_version_is_refused(tmp_path: Path) -> None:
    newer = replace(_manifest(tmp_path / "bundle"), schema_version=2)
    with pytest.raises(CorruptBundle, match="schema_version, got 2, expected 1"):
        parse_manifest(newer.to_bytes())


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="got gpu, expected cpu"):
        _manifest(tmp_path / "bundle").variant("gpu")
