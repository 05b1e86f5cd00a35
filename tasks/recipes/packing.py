"""How a trained model becomes files that model servers open: the part of compression that depends on the runtime.

A packing writes one folder and says what is in it. The stage around it (fetching, the golden set, naming
by content, sealing) is the same for all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from serving.bundle import Measurement
from tasks.artifacts import Figure
from tasks.recipes.family import Family

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedVariant:
    """The same model for one runtime."""

    name: str
    runtime: str
    """`onnxruntime` | `tensorrt` | `vllm`."""
    entry: str
    """File or folder that the runtime opens, relative to the packed folder."""
    files: list[str]
    """Every file of it, relative to the packed folder."""
    requires: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    """Command-line arguments that the runtime needs to serve this model."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingJob:
    """What a packing works on."""

    calibration_samples: int
    """Training samples that may set the INT8 ranges."""
    min_int8_accuracy_ratio: float
    """INT8 is chosen only at or above this share of the FP32 accuracy."""
    family: Family
    model: "torch.nn.Module"
    """The FP32 reference, in evaluation mode on the CPU."""
    data: Path
    """The fetched dataset."""
    folder: Path
    """Where the files go; empty."""
    scratch: Path
    """For whatever is not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What a packing made."""

    variants: Sequence[PackedVariant]
    chosen: str
    """The variant that a region should serve."""
    measurements: Sequence[Measurement]
    """What was measured on the packed files, for the attestation."""
    figures: Sequence[Figure]
    """For the report: `<variant> accuracy`, `<variant> size`, and whatever else is worth knowing."""
    notes: Sequence[str] = ()
    """What could not be made, and why, in words."""


class Packing(Protocol):
    """Turns a trained model into variants. Packing the same model twice writes the same bytes."""

    def pack(self, job: PackingJob) -> Packed:
        """Write `job.folder`, check that it answers like `job.model`, and describe it.

        Raises:
            PermanentError: the model does not fit the format, or the packed one answers differently.
        """
        ...
