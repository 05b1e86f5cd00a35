"""Recipes: everything that decides which model is made, in one value.

A recipe names a data source and a model family by functions, so importing this module loads neither
torch nor numpy: workflows check recipes with it. A new family or data set is one new file with a
function that returns a Recipe (`examples/recipe.py`), named as `package.module:function`; no stage
changes.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from serving.errors import InvalidInput
from serving.files import canonical_json
from serving.references import load_reference
from serving.releases import check_name

if TYPE_CHECKING:
    from tasks.recipes.data_source import DataSource
    from tasks.recipes.family import Family
    from tasks.recipes.packing import Packing

PRECISIONS: Final = ("float32", "bfloat16")

_POSITIVE: Final = (
    "global_batch",
    "epochs",
    "workers",
    "accumulation",
    "checkpoint_interval_steps",
    "keep_checkpoints",
    "validations",
    "golden_samples",
    "calibration_samples",
)
_MEMORY: Final = re.compile(r"[1-9]\d*(Mi|Gi|Ti|M|G|T)")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero; the rate is a pure function of the step."""

    peak_learning_rate: float = 3e-3
    """Reached after the warm-up."""
    weight_decay: float = 0.02
    """Applied to matrices and kernels; biases and norms are left alone."""
    warmup_share: float = 0.1
    """Share of all steps spent warming up, 0 to 1."""
    second_moment_decay: float = 0.999
    """AdamW's beta2; shorter memory (0.95 to 0.99) suits runs of a few hundred steps over rare tokens."""
    rate_scales: tuple[tuple[str, float], ...] = ()
    """Parameters whose name begins with the prefix learn at this multiple of the rate; the first match counts."""
    max_gradient_norm: float = 1.0
    """Global norm that gradients are clipped to: one bad batch cannot throw the run away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What each training worker needs. Where a launcher has a cluster to ask, this is what it asks for."""

    cpus: int = 1
    """Cores; a worker computes with as many threads."""
    memory: str = "2Gi"
    """As Kubernetes writes it."""
    gpus: int = 0
    accelerator: str = ""
    """Kind of GPU as the cluster's nodes are labelled with it, for example `nvidia-tesla-a100`; any unless named."""

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise InvalidInput("resources.cpus", got=self.cpus, expected=">= 1")
        if self.gpus < 0:
            raise InvalidInput("resources.gpus", got=self.gpus, expected=">= 0")
        if not _MEMORY.fullmatch(self.memory):
            raise InvalidInput("resources.memory", got=self.memory, expected="a quantity such as 512Mi or 16Gi")
        if self.accelerator and not self.gpus:
            raise InvalidInput("resources.accelerator without GPUs", got=self.accelerator, expected="gpus >= 1")


def _onnx() -> "Packing":
    packing: Packing = load_reference("tasks.compression.onnx_packing:OnnxPacking")()
    return packing


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What to train, on what, and what is good enough. Every field but `workers`, `resources` and what says where the
    recipe came from (`reference`, `overrides`, `sources`) decides content."""

    name: str
    """The model's name in every region: a-z, 0-9, '.' and '-'."""
    data: "Callable[[], DataSource]"
    """Makes the data source; imports what it needs when called."""
    family: "Callable[[], Family]"
    """Makes the model family; imports torch when called."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    global_batch: int = 64
    """Samples per optimizer step over all workers."""
    accumulation: int = 1
    """Parts that each worker's share of a batch is computed in, one after the other, where it does not fit into memory
    at once; `global_batch` must be divisible by it times `workers`."""
    epochs: float = 10.0
    """How often each training sample is seen."""
    precision: str = "float32"
    """Of the forward pass (`float32` | `bfloat16` by autocast); weights and optimizer stay float32."""
    workers: int = 2
    """Data-parallel workers; must divide `global_batch`. Another number gives the same batches, not the same bits."""
    resources: Resources = field(default_factory=Resources)
    """Of each worker."""
    checkpoint_interval_steps: int = 100
    """A killed run loses at most this many steps."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay in the run folder; two, so that a torn newest one leaves another."""
    max_failures: int = 2
    """Worker failures that a launcher restarts from the newest checkpoint."""
    validations: int = 12
    """How often a run is judged on the validation split."""
    golden_samples: int = 128
    """Held-out samples that each region replays before it serves."""
    packing: "Callable[[], Packing]" = _onnx
    """Makes what turns the trained model into files that model servers open; ONNX and INT8 unless named."""
    engine: str = "onnxruntime"
    """What will serve it (`onnxruntime` | `vllm`): known before anything is imported or trained."""
    calibration_samples: int = 256
    """Training samples that set the INT8 ranges."""
    min_int8_accuracy_ratio: float = 0.99
    """INT8 is served only at or above this share of the FP32 accuracy (MLPerf's bound)."""
    reference: str = ""
    """How another process finds this recipe again; set by `get_recipe`, as the next two are."""
    overrides: str = ""
    """What was changed of it, as JSON with sorted keys; empty if nothing was."""
    sources: str = ""
    """SHA-256 (hex) of the modules that a user's recipe is written in; empty for those that ship, whose sources
    `code_version` holds."""

    def __post_init__(self) -> None:
        check_name("recipe name", self.name)
        for name in _POSITIVE:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InvalidInput(f"{name} of recipe {self.name}", got=value, expected="> 0")
        if self.max_failures < 0:
            raise InvalidInput(f"max_failures of recipe {self.name}", got=self.max_failures, expected=">= 0")
        if self.global_batch % self.workers:
            raise InvalidInput(
                f"workers of recipe {self.name}", got=self.workers, expected=f"a divisor of {self.global_batch}"
            )
        if self.global_batch % (self.workers * self.accumulation):
            got = f"{self.workers} workers x {self.accumulation}"
            raise InvalidInput(
                f"accumulation of recipe {self.name}", got=got, expected=f"a divisor of {self.global_batch}"
            )
        if self.precision not in PRECISIONS:
            raise InvalidInput(f"precision of recipe {self.name}", got=self.precision, expected=" | ".join(PRECISIONS))
        if not 0 < self.min_int8_accuracy_ratio <= 1:
            raise InvalidInput(
                f"min_int8_accuracy_ratio of recipe {self.name}", got=self.min_int8_accuracy_ratio, expected="0 to 1"
            )


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 (hex) of everything in the recipe that shapes the weights, but for the data, which has a hash of its own:
    workers need the prepared data and never its source. A checkpoint carries it."""
    content = {
        "optimizer": {of.name: getattr(recipe.optimizer, of.name) for of in fields(recipe.optimizer)},
        "global_batch": recipe.global_batch,
        "accumulation": recipe.accumulation,
        "epochs": recipe.epochs,
        "precision": recipe.precision,
        "family": recipe.family().describe(),
        "sources": recipe.sources,
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()
