"""INT8 that cannot be made costs the release nothing but INT8: FP32 ships, and the report says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from examples.recipe import classifier
from serving.errors import PermanentError
from tasks.artifacts import CompressedModel
from tasks.compression import onnx_packing, report
from tasks.compression.onnx_packing import OnnxPacking
from tasks.compression.plots import variant_table
from tasks.recipes.packing import Packed, PackingJob


class AddMm(torch.nn.Module):
    """Becomes a Gemm whose bias has two dimensions, which the quantizer does not survive."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.randn(30, 2)), torch.nn.Parameter(torch.randn(1, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.b, features, self.w)


@pytest.fixture
def job(tmp_path: Path) -> PackingJob:
    for folder in ("data", "out", "scratch"):
        (tmp_path / folder).mkdir()
    generator = np.random.default_rng(0)
    for name in ("train", "validation", "test"):
        features = generator.standard_normal((64, 30)).astype(np.float32)
        save_file({"features": features, "labels": generator.integers(0, 2, 64)}, tmp_path / f"data/{name}.safetensors")
    torch.manual_seed(0)
    return PackingJob(
        calibration_samples=32,
        min_int8_accuracy_ratio=0.99,
        family=classifier(),
        model=AddMm().eval(),
        data=tmp_path / "data",
        folder=tmp_path / "out",
        scratch=tmp_path / "scratch",
    )


def assert_float32_ships(packed: Packed, job: PackingJob, why: str) -> None:
    assert packed.chosen == report.FP32
    assert [variant.name for variant in packed.variants] == [report.FP32]
    assert [path.name for path in job.folder.iterdir()] == ["model.onnx"]
    assert {note.partition(": ")[0] for note in packed.notes} == {
        f"no {report.INT8_CPU}", f"no {report.INT8_TENSORRT}",
    }  # fmt: skip
    assert all(why in note for note in packed.notes)
    assert "int8_accuracy" not in {figure.name for figure in packed.figures}
    compressed = CompressedModel(
        uri="", sha256="", chosen_variant=packed.chosen, seconds=0.0, figures=list(packed.figures),
        notes=list(packed.notes),
    )  # fmt: skip
    assert why in variant_table(compressed, [variant.to_json() for variant in packed.variants])


def test_a_graph_that_the_quantizer_does_not_survive(job: PackingJob) -> None:
    assert_float32_ships(OnnxPacking().pack(job), job, "cannot be quantized")


def test_ranges_without_an_end(job: PackingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any, **__: Any) -> None:
        raise PermanentError("a calibrated range is not finite", got="mask", expected="finite values")

    monkeypatch.setattr(onnx_packing, "quantize", lambda *_, **__: None)
    monkeypatch.setattr(onnx_packing, "write_summary", endless)
    assert_float32_ships(OnnxPacking().pack(job), job, "range is not finite")


def test_an_int8_graph_that_does_not_run(job: PackingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path, *_: Any, **__: Any) -> None:
        target.write_bytes(b"no graph")

    monkeypatch.setattr(onnx_packing, "quantize", broken)
    monkeypatch.setattr(onnx_packing, "write_summary", lambda *_, **__: None)
    assert_float32_ships(OnnxPacking().pack(job), job, "INVALID_PROTOBUF")


def test_no_int8_is_no_reason_to_divide() -> None:
    choice = report.choose_variant(fp32_accuracy=0.0, int8_accuracy=None, bound=0.99)
    assert (choice.variant, choice.ratio) == (report.FP32, None)
