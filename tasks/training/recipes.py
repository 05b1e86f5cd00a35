"""Recipes: everything that decides which model is made, in one value.

A recipe names a data source and a model family by functions, so importing this module loads neither
torch nor numpy: workflows check recipes with it. A new family or data set is one new file with a
function that returns a Recipe (`examples/recipe.py`), named as `package.module:function`; no stage
changes.
"""

import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from serving.errors import InvalidInput
from serving.files import canonical_json
from serving.releases import check_name

if TYPE_CHECKING:
    from tasks.compression.packing import Packing
    from tasks.data.module import DataSource
    from tasks.training.family import Family

PRECISIONS: Final = ("float32", "bfloat16")


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


def _onnx() -> "Packing":
    from tasks.compression.onnx_packing import OnnxPacking

    return OnnxPacking()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What to train, on what, and what is good enough. Every field but `workers` and `reference` decides content."""

    name: str
    """The model's name in every region: a-z, 0-9, '.' and '-'."""
    data: "Callable[[], DataSource]"
    """Makes the data source; imports what it needs when called."""
    family: "Callable[[], Family]"
    """Makes the model family; imports torch when called."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    global_batch: int = 64
    """Samples per optimizer step over all workers."""
    epochs: float = 10.0
    """How often each training sample is seen."""
    precision: str = "float32"
    """Of the forward pass (`float32` | `bfloat16` by autocast); weights and optimizer stay float32."""
    workers: int = 2
    """Data-parallel workers; must divide `global_batch`. Another number gives the same batches, not the same bits."""
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
    """How another process finds this recipe again; set by `get_recipe`."""

    def __post_init__(self) -> None:
        check_name("recipe name", self.name)
        for name in (
            "global_batch",
            "epochs",
            "workers",
            "checkpoint_interval_steps",
            "keep_checkpoints",
            "validations",
            "golden_samples",
            "calibration_samples",
        ):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} of recipe {self.name}", got=getattr(self, name), expected="> 0")
        if self.max_failures < 0:
            raise InvalidInput(f"max_failures of recipe {self.name}", got=self.max_failures, expected=">= 0")
        if self.global_batch % self.workers:
            raise InvalidInput(
                f"workers of recipe {self.name}", got=self.workers, expected=f"a divisor of {self.global_batch}"
            )
        if self.precision not in PRECISIONS:
            raise InvalidInput(f"precision of recipe {self.name}", got=self.precision, expected=" | ".join(PRECISIONS))
        if not 0 < self.min_int8_accuracy_ratio <= 1:
            raise InvalidInput(
                f"min_int8_accuracy_ratio of recipe {self.name}", got=self.min_int8_accuracy_ratio, expected="0 to 1"
            )


def resnet_digits() -> Recipe:
    """A small residual network on handwritten digits: about 98 % in some 20 s on two CPU cores."""
    return Recipe(name="resnet-digits", data=_digits, family=_resnet_8x8, epochs=12)


def _digits() -> "DataSource":
    from tasks.data.digits import Digits

    return Digits()


def _resnet_8x8() -> "Family":
    from tasks.training.models.image_classifier import ImageClassifier
    from tasks.training.models.resnet import ResNetConfig

    return ImageClassifier(model=ResNetConfig())


def llama_stdlib() -> Recipe:
    """A small Llama on Python's standard library, served by vLLM: perplexity about 52, where a bigram model has 69."""
    return Recipe(
        name="llama-stdlib",
        data=_stdlib_text,
        family=_llama,
        packing=_hugging_face,
        engine="vllm",
        optimizer=OptimizerConfig(
            peak_learning_rate=2.5e-3,
            weight_decay=0.05,
            second_moment_decay=0.99,
            # Rare tokens get few updates in so short a run: let each of them count.
            rate_scales=(("model.embed_tokens", 10.0), ("lm_head", 10.0)),
        ),
        global_batch=8,
        epochs=0.6,
        checkpoint_interval_steps=100,
        validations=6,
        golden_samples=16,
    )


def _stdlib_text() -> "DataSource":
    from tasks.data.stdlib_text import StdlibText

    return StdlibText()


def _llama() -> "Family":
    from tasks.training.models.llama import Llama

    return Llama()


def _hugging_face() -> "Packing":
    from tasks.compression.hugging_face import HuggingFacePacking

    return HuggingFacePacking()


RECIPES: Final = MappingProxyType({"llama-stdlib": llama_stdlib, "resnet-digits": resnet_digits})
"""The recipes that ship with Flightpath, by name."""

_REFERENCE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one that `package.module:function` returns.

    Raises:
        InvalidInput: there is none; the message lists those that ship with Flightpath.
    """
    if name in RECIPES:
        return replace(RECIPES[name](), reference=name)
    if not _REFERENCE.fullmatch(name):
        raise InvalidInput(
            "unknown recipe", got=name, expected=f"{' | '.join(sorted(RECIPES))} | package.module:function"
        )
    recipe = _imported(name)()
    if not isinstance(recipe, Recipe):
        raise InvalidInput(f"{name} returned no recipe", got=type(recipe).__name__, expected="Recipe")
    return replace(recipe, reference=name)


def _imported(reference: str) -> Callable[[], Any]:
    module, _, function = reference.partition(":")
    try:
        found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as missing:
        raise InvalidInput(
            f"recipe cannot be imported ({missing})",
            got=reference,
            expected=f"{' | '.join(sorted(RECIPES))} | package.module:function",
        ) from missing
    return found


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 (hex) of everything in the recipe that shapes the weights; a checkpoint carries it."""
    content = {
        "optimizer": {name: getattr(recipe.optimizer, name) for name in OptimizerConfig.__slots__},
        "global_batch": recipe.global_batch,
        "epochs": recipe.epochs,
        "precision": recipe.precision,
        "data": recipe.data().fingerprint(),
        "family": recipe.family().describe(),
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()
