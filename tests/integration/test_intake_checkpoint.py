"""A Hugging Face checkpoint made elsewhere becomes a bundle with a golden set of its own texts."""

import json
from pathlib import Path

import pytest

from serving.bundle import verify_bundle
from serving.credentials import SigningKey, trusted_keys
from serving.errors import InvalidInput
from serving.store import ArtifactStore
from tasks.intake.stage import IntakeOrder, take_in
from tests.fakes.language_models import write_llama


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_llama(folder)
    return folder


def _order(source: Path, *, golden: Path | None = None, make_golden: bool = False) -> IntakeOrder:
    return IntakeOrder(
        source=source,
        model="mine",
        release_id="",
        regions=["us-east"],
        base=None,
        golden=golden,
        make_golden=make_golden,
    )


def test_a_checkpoint_becomes_a_bundle_for_vllm(checkpoint: Path, tmp_path: Path, signing_key: SigningKey) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    _, bundle = take_in(_order(checkpoint, make_golden=True), store, signing_key)
    root = store.fetch_bundle(bundle.digest, tmp_path / "back")
    manifest, _ = verify_bundle(root, digest=bundle.digest, keys=trusted_keys(tmp_path / "keys"))
    assert (bundle.engine, bundle.variant) == ("vllm", "vllm")
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= set(manifest.files())
    assert manifest.golden is not None
    golden = json.loads((root / manifest.golden.file.path).read_bytes())
    assert len(golden["texts"]) == manifest.golden.samples > 0
    assert golden["chats"]


def test_golden_texts_of_the_users_own_are_taken(checkpoint: Path, tmp_path: Path, signing_key: SigningKey) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("The first text is about aeroplanes.\n\nThe second one is about the weather over the sea.\n")
    store = ArtifactStore((tmp_path / "store").as_uri())
    _, bundle = take_in(_order(checkpoint, golden=texts), store, signing_key)
    golden = store.read_manifest(bundle.digest).golden
    assert golden is not None
    assert golden.samples == 2


def test_golden_texts_that_are_too_short_are_refused(checkpoint: Path, tmp_path: Path, signing_key: SigningKey) -> None:
    (tmp_path / "texts.txt").write_text("short")
    order = _order(checkpoint, golden=tmp_path / "texts.txt")
    with pytest.raises(InvalidInput, match="no golden text fits the model"):
        take_in(order, ArtifactStore((tmp_path / "store").as_uri()), signing_key)
