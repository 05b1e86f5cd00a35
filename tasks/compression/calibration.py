"""Which values flow through the model: the ranges that INT8 scales are made of."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import PermanentError
from serving.files import canonical_json, write_atomically
from tasks.recipes.data_source import Split
from tasks.recipes.family import Signature

CALIBRATION: Final = "calibration.json"
CALIBRATION_SEED: Final = 7
"""Fixed, so that two releases differ by their weights and not by the luck of the draw."""
_BATCH: Final = 32


def choose_samples(train: Split, samples: int) -> dict[str, NDArray[Any]]:
    """A fixed random part of the training split; held-out data stays out of the ranges."""
    available = len(next(iter(train.values())))
    generator = np.random.Generator(np.random.PCG64(CALIBRATION_SEED))
    chosen = np.sort(generator.permutation(available)[:samples])
    return {name: array[chosen] for name, array in train.items()}


class CalibrationBatches:
    """Feeds batches to ONNX Runtime's calibrator (its CalibrationDataReader protocol)."""

    def __init__(self, split: Split, signature: Signature) -> None:
        self._batches = self._iterate(split, [spec.name for spec in signature.inputs])

    @staticmethod
    def _iterate(split: Split, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        for start in range(0, len(split[names[0]]), _BATCH):
            yield {name: split[name][start : start + _BATCH] for name in names}

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)


def write_summary(cache: Path, target: Path, *, samples: int) -> None:
    """Turn ONNX Runtime's cache of ranges into `calibration.json`: `{"samples", "ranges": {tensor: [low, high]}}`.

    Raises:
        PermanentError: a tensor takes infinite values, as the mask of a transformer may: no scale fits them.
    """
    from onnxruntime.quantization.calibrate import load_tensors_data

    ranges = {
        name: [float(np.min(data.range_value[0])), float(np.max(data.range_value[1]))]
        for name, data in load_tensors_data(cache).items()
    }
    if endless := [name for name, span in ranges.items() if not all(map(math.isfinite, span))]:
        raise PermanentError("a calibrated range is not finite", got=", ".join(endless[:3]), expected="finite values")
    write_atomically(target, canonical_json({"schema_version": 1, "samples": samples, "ranges": ranges}))


def read_summary(path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(path.read_bytes())
    return summary
