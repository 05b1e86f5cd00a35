"""From whatever a user hands over to a sealed bundle in the store, with the plan that promotes it."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from serving.bundle import Attestation, Manifest, Measurement, seal
from serving.credentials import SigningKey
from serving.errors import InvalidInput
from serving.releases import check_name
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, ReleasePlan
from tasks.intake.source import Kind, Source, recognise
from tasks.ledger import Ledger
from tasks.progress import announce


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeOrder:
    """What to take in, and as what."""

    source: Path
    model: str
    release_id: str
    """Empty: derived from the model's name and the content."""
    regions: list[str]
    base: Path | None
    """The checkpoint that a LoRA adapter was trained on."""
    golden: Path | None
    """Golden set of the user's own: safetensors for ONNX, a text file for language models."""
    make_golden: bool
    """Make one where none is given."""


def take_in(order: IntakeOrder, store: ArtifactStore, key: SigningKey) -> tuple[ReleasePlan, BundleRef]:
    """Recognise, check, seal and store a model that was not trained here.

    Raises:
        NotFound: a path is missing.
        InvalidInput: the source is of no known kind, unsafe, or does not fit its golden set.
        PermanentError: no runtime here opens it.
    """
    check_name("model name", order.model)
    began = time.monotonic()
    source = recognise(order.source)
    content = source.sha256()
    announce("intake", f"{order.source} is {source.kind}", sha256=content[:12])
    plan = Ledger(store, order.release_id or f"{order.model}-{content[:10]}").claim(_plan(order, content, store))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "bundle"
        manifest, engine, arguments, origin = _build(order, source, root, Path(scratch))
        digest = _seal(manifest, root, store, key, {"source": source.kind, "sha256": content, "golden": origin})
    bundle = BundleRef(
        model=order.model,
        digest=digest,
        store_uri=store.uri,
        variant=manifest.variants[0].name,
        engine=engine,
        arguments=arguments,
        seconds=time.monotonic() - began,
    )
    Ledger(store, plan.release_id).write("bundle", bundle)
    announce("intake", f"bundle {digest}", golden=origin)
    return plan, bundle


def _plan(order: IntakeOrder, content: str, store: ArtifactStore) -> ReleasePlan:
    return ReleasePlan(
        release_id=order.release_id or f"{order.model}-{content[:10]}",
        recipe="taken in",
        seed=0,
        store_uri=store.uri,
        regions=list(order.regions),
        code_version="none",
        data_hash=content,
    )


def _build(order: IntakeOrder, source: Source, root: Path, scratch: Path) -> tuple[Manifest, str, list[str], str]:
    """Manifest, engine, the engine's arguments and the golden set's origin."""
    if source.kind is Kind.ONNX:
        from tasks.intake.onnx_model import build_onnx

        manifest, origin = build_onnx(
            source.path, root, model=order.model, golden=order.golden, make_golden=order.make_golden
        )
        return manifest, "onnxruntime", [], origin
    from tasks.intake.checkpoint import build_checkpoint

    folder, files = source.path, source.files
    if source.kind is Kind.LORA:
        folder, files = _merged(order, source, scratch / "merged")
    taken = build_checkpoint(folder, files, root, model=order.model, golden=order.golden, make_golden=order.make_golden)
    return taken.manifest, "vllm", taken.arguments, taken.origin


def _merged(order: IntakeOrder, adapter: Source, target: Path) -> tuple[Path, list[str]]:
    from tasks.intake.lora import merge_adapter

    if order.base is None:
        raise InvalidInput("a LoRA adapter needs its base model", got="no base", expected="--base FOLDER")
    base = recognise(order.base)
    if base.kind is not Kind.HUGGING_FACE:
        raise InvalidInput("base is no checkpoint", got=base.kind, expected=Kind.HUGGING_FACE)
    return target, merge_adapter(adapter, base, target)


def _seal(manifest: Manifest, root: Path, store: ArtifactStore, key: SigningKey, lineage: dict[str, str]) -> str:
    measured = []
    if manifest.golden is not None:
        measured.append(
            Measurement(
                name="golden accuracy of the reference",
                value=manifest.golden.reference_accuracy,
                unit="share",
                where="intake, FP32 on CPU",
            )
        )
    attestation = Attestation(
        bundle_name=manifest.name, bundle_digest=manifest.digest, lineage=lineage, measurements=measured
    )
    seal(root, manifest, attestation, key)
    return store.put_bundle(root)
