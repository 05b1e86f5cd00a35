"""Which variant is served: a pure decision."""

import pytest

from tasks.compression.report import FP32, INT8_CPU, choose_variant


@pytest.mark.parametrize(
    ("fp32", "int8", "bound", "expected"),
    [
        (0.98, 0.98, 0.99, INT8_CPU),
        (0.98, 0.98 * 0.99, 0.99, INT8_CPU),
        (0.98, 0.96, 0.99, FP32),
        (0.90, 0.95, 1.0, INT8_CPU),
        (0.0, 0.0, 0.99, INT8_CPU),
    ],
)
def test_int8_serves_at_or_above_its_bound(fp32: float, int8: float, bound: float, expected: str) -> None:
    assert choose_variant(fp32_accuracy=fp32, int8_accuracy=int8, bound=bound).variant == expected


def test_the_choice_says_by_how_much() -> None:
    choice = choose_variant(fp32_accuracy=0.8, int8_accuracy=0.6, bound=0.99)
    assert (choice.variant, choice.ratio) == (FP32, pytest.approx(0.75))
