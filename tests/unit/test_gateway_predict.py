"""Plain samples become exactly the request that the model's input asks for."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadUpstream, InvalidInput
from serving.gateway.answers import agreement, judge_infer
from serving.gateway.predict import build_infer_request, label_predictions

IMAGE = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}]}


def tensor(samples: Any, metadata: dict[str, Any] = IMAGE) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(build_infer_request(samples, metadata))["inputs"][0]
    return entry


def test_samples_nested_like_the_input_go_through_as_they_are() -> None:
    samples = [[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]]
    assert tensor(samples) == {"name": "image", "shape": [2, 1, 2, 2], "datatype": "FP32", "data": samples}


@pytest.mark.parametrize("samples", [[[1, 2, 3, 4]], [[[1, 2], [3, 4]]]])
def test_samples_of_another_nesting_are_flattened_to_the_inputs_shape(samples: Any) -> None:
    assert tensor(samples) == {"name": "image", "shape": [1, 1, 2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}


def test_an_input_of_dynamic_length_takes_the_samples_shape() -> None:
    metadata = {"inputs": [{"name": "tokens", "datatype": "INT64", "shape": [-1, -1]}]}
    assert tensor([[1, 2, 3]], metadata)["shape"] == [1, 3]


@pytest.mark.parametrize("samples", [None, [], {}, "text", 1])
def test_what_is_no_list_of_samples_is_refused(samples: Any) -> None:
    with pytest.raises(InvalidInput, match="inputs is malformed"):
        build_infer_request(samples, IMAGE)


def test_nesting_without_end_is_refused() -> None:
    samples: list[Any] = [1]
    for _ in range(500):
        samples = [samples]
    with pytest.raises(InvalidInput, match="nested too deeply"):
        build_infer_request(samples, IMAGE)


def test_a_model_of_two_inputs_cannot_be_asked_this_way() -> None:
    with pytest.raises(InvalidInput, match="not one batched input"):
        build_infer_request([[1]], {"inputs": IMAGE["inputs"] * 2})


def test_metadata_that_says_nothing_is_the_backends_fault() -> None:
    with pytest.raises(BadUpstream, match="metadata is malformed"):
        build_infer_request([[1]], {})


@given(st.lists(st.floats(-500, 500), min_size=2, max_size=12))
def test_the_score_is_the_softmax_of_the_first_highest_class(scores: list[float]) -> None:
    body = json.dumps({"outputs": [{"shape": [1, len(scores)], "data": scores}]}).encode()
    (prediction,) = label_predictions(body, [f"c{index}" for index in range(len(scores))])
    exponents = np.exp(np.array(scores) - max(scores))
    assert prediction["label"] == f"c{int(np.argmax(scores))}"
    assert prediction["score"] == pytest.approx(float((exponents / exponents.sum()).max()), rel=1e-9)


def test_agreement_is_a_share_of_rows_and_a_missing_row_agrees_with_nothing() -> None:
    assert agreement([1, 2, 3], [1, 0, 3]) == pytest.approx(2 / 3)
    assert agreement([1, 2, 3], [1, 2]) == pytest.approx(2 / 3)
    assert agreement([1], [1]) == 1.0


@pytest.mark.parametrize(
    ("data", "shape", "classes"),
    [
        ([0.5, 2, 1, 7, 7, 0], [2, 3], [1, 0]),
        ([[0.5, 2, 1], [7, 7, 0]], [2, 3], [1, 0]),
        ([1.0], [1, 1], [0]),
        ([0.1, 0.2, 0.3], [3], None),
        ([1], [1, 1, 1, 1], None),
        (["a", "b"], [1, 2], None),
        ([True, False], [1, 2], None),
        ([[1, 2], [3]], [2, 2], None),
    ],
)
def test_an_answer_tells_the_class_of_each_row_if_it_is_a_table(
    data: list[Any], shape: list[int], classes: list[int] | None
) -> None:
    assert judge_infer(json.dumps({"outputs": [{"shape": shape, "data": data}]}).encode()) == classes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outputs": []}',
        b'{"outputs": {}}',
        b'{"outputs": [1]}',
        b'{"outputs": [{"shape": [1, 2]}]}',
        b'{"outputs": [{"shape": [1, "a"], "data": [1]}]}',
        b'{"outputs": [{"shape": [2, 2], "data": [1, 2]}]}',
        b'{"outputs": [{"shape": [1, 2], "data": [NaN, 2]}]}',
        b'{"outputs": [{"shape": [1, 2], "data": [1, null]}]}',
        b'{"outputs": [{"shape": [1, 2], "data": [1e999, 2]}]}',
        b'{"outputs": [{"shape": [1, 2], "data": [1' + b"0" * 400 + b", 2]}]}",
        b'{"outputs": [{"shape": [1, 2], "data": [1, 2]}], "x": ' + b" " * 300_000 + b"NaN}",
        b'{"outputs": [{"shape": [1, 2], "data": [1, 2' + b" " * 300_000,
    ],
)
def test_an_answer_that_the_protocol_does_not_allow_is_the_backends_fault(body: bytes) -> None:
    with pytest.raises(BadUpstream, match="answer is broken"):
        judge_infer(body)


def test_a_large_answer_is_not_read_and_a_word_in_its_text_is_no_number() -> None:
    padding = '"x": "' + "Infinity" * 40_000 + '"'
    assert judge_infer(b'{"outputs": [' + b" " * 300_000 + b"]}") is None
    assert judge_infer(('{"outputs": [{"shape": [1, 2], "data": [1, 2]}], ' + padding + "}").encode()) == [1]


def test_a_model_without_classes_cannot_be_asked_for_labels() -> None:
    with pytest.raises(InvalidInput, match="no table of scores"):
        label_predictions(b'{"outputs": [{"shape": [3], "data": [1, 2, 3]}]}', [])
