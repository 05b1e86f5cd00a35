"""What passes between stages: immutable, addressed in the artifact store, named by content.

All of them are dataclasses of plain types, so Flyte carries them and the console shows them.
"""

from dataclasses import dataclass, field

from serving.bundle import Attestation, Manifest, Measurement
from serving.releases import Release, RuntimeSpec

__all__ = [
    "Attestation",
    "BundleRef",
    "Checkpoint",
    "CompressedModel",
    "Dataset",
    "Evaluation",
    "Figure",
    "Manifest",
    "Measurement",
    "Release",
    "ReleasePlan",
    "RuntimeSpec",
]


@dataclass(kw_only=True)
class Figure:
    """One measured number for the report."""

    name: str
    value: float
    unit: str


@dataclass(kw_only=True)
class ReleasePlan:
    """What a release is about to do; made first, checked first, the same for the same id."""

    release_id: str
    recipe: str
    seed: int
    store_uri: str
    regions: list[str]
    code_version: str
    """SHA-256 over the sources that decide a model's content."""
    data_hash: str
    overrides: str = ""
    """What this release changes of its recipe, as JSON; empty if nothing."""
    recipe_sources: str = ""
    """SHA-256 (hex) of a user's recipe's modules; empty for a recipe that ships."""


@dataclass(kw_only=True)
class Dataset:
    """Train, validation and test arrays in the store."""

    uri: str
    """Folder in the store: {train,validation,test}.safetensors, dataset.json and whatever the source adds."""
    sha256: str
    """Hash of `dataset.json`, which holds the hash of each file."""
    samples: dict[str, int]
    seconds: float = 0.0
    classes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Checkpoint:
    """A committed checkpoint folder (model.safetensors, optimizer.pt, rank-<r>.json, manifest.json)."""

    uri: str
    sha256: str
    """SHA-256 of the checkpoint's manifest.json."""
    step: int
    seconds: float
    """Wall-clock time that training took, start-up included."""
    figures: list[Figure] = field(default_factory=list)


@dataclass(kw_only=True)
class Evaluation:
    """Held-out figures and the golden set made from the FP32 reference."""

    golden_uri: str
    """`golden.safetensors` (inputs, labels, reference) or `golden.json` (a language model's) in the store."""
    golden_sha256: str
    accuracy: float
    """FP32 accuracy on the whole held-out test set, 0 to 1."""
    golden_accuracy: float
    seconds: float
    figures: list[Figure] = field(default_factory=list)


@dataclass(kw_only=True)
class CompressedModel:
    """A folder in the store: the golden set, compressed.json (files, variants), and what model servers open.

    For `onnxruntime` that is model.onnx (FP32), model.int8-cpu.onnx and model.int8-tensorrt.onnx; for `vllm` a
    Hugging Face folder, `model/`.
    """

    uri: str
    sha256: str
    """SHA-256 of compressed.json, which holds the hash of each file."""
    chosen_variant: str
    """The variant that a CPU region should serve; for ONNX: INT8 unless its accuracy fell below the recipe's bound."""
    seconds: float
    figures: list[Figure] = field(default_factory=list)
    """`fp32_accuracy`, `<variant> accuracy`, `<variant> size`, …; `int8_accuracy` where there is an INT8 variant."""
    notes: list[str] = field(default_factory=list)
    """What could not be made, and why."""


@dataclass(kw_only=True)
class BundleRef:
    """A sealed bundle in the store."""

    model: str
    digest: str
    store_uri: str
    variant: str
    engine: str
    seconds: float
    arguments: list[str] = field(default_factory=list)
    """Command-line arguments that the engine needs for this variant (`RuntimeSpec.arguments`)."""
    figures: list[Figure] = field(default_factory=list)
