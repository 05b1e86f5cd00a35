"""What comes in over the Open Inference Protocol is either exactly a tensor of the model or a 400."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.bundle import TensorSpec
from serving.engines.protocol import DATATYPES, InferRequest, encode_infer_response, parse_infer_request, parse_tensor
from serving.errors import InvalidInput, Unprocessable

X = TensorSpec(name="x", datatype="FP32", shape=[-1, 4])
Y = TensorSpec(name="y", datatype="FP32", shape=[-1, 2])


def parse(entry: dict[str, Any], **changes: Any) -> InferRequest:
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", **entry}], **changes})
    return parse_infer_request(body.encode(), inputs=[X], outputs=[Y], max_rows=8)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    kind = DATATYPES[datatype]
    if kind.kind == "f":
        return st.floats(allow_nan=False, allow_infinity=False, width=8 * kind.itemsize)  # type: ignore[arg-type]
    return arrays.from_dtype(kind)


@given(st.data(), st.sampled_from(sorted(DATATYPES)), st.booleans())
def test_every_tensor_survives_json_nested_or_flat(data: st.DataObject, datatype: str, nested: bool) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    tensor = data.draw(arrays.arrays(DATATYPES[datatype], shape, elements=elements(datatype)))
    values = tensor.tolist() if nested else tensor.ravel().tolist()
    entry = json.loads(json.dumps({"shape": list(shape), "datatype": datatype, "data": values}))
    parsed = parse_tensor(entry, TensorSpec(name="x", datatype=datatype, shape=[-1] * len(shape)))
    assert parsed.dtype == DATATYPES[datatype]
    np.testing.assert_array_equal(parsed, tensor)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, JSON, JSON)
def test_no_json_does_worse_than_invalid_input(shape: Any, datatype: Any, data: Any) -> None:
    try:
        request = parse({"shape": shape, "datatype": datatype, "data": data})
    except InvalidInput:
        return
    assert request.inputs["x"].shape == (request.rows, 4)
    assert np.isfinite(request.inputs["x"]).all()


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_invalid_input(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_infer_request(body, inputs=[X], outputs=[Y], max_rows=8)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"data": [1, 2, 3]}, "wrong amount of data, got 3"),
        ({"data": [[1, 2], [3, 4]]}, "nested unlike its shape"),
        ({"data": [[1, 2], [3]]}, "ragged"),
        ({"data": ["1", "2", "3", "4"]}, "wrong type or range"),
        ({"data": [True, True, False, False]}, "wrong type or range"),
        ({"data": [1, 2, 3, None]}, "wrong type or range"),
        ({"data": [1, 2, 3, 1e39]}, "not finite"),
        ({"shape": [1, 5], "data": [1] * 5}, r"wrong shape, got \[1, 5\], expected \[-1, 4\]"),
        ({"shape": [0, 4], "data": []}, "wrong shape"),
        ({"shape": [True, 4], "data": [1] * 4}, "wrong shape"),
        ({"shape": [9, 4], "data": [1] * 36}, "too many rows, got 9"),
        ({"datatype": "INT8", "data": [1] * 4}, "wrong datatype, got INT8, expected FP32"),
        ({"name": "z", "data": [1] * 4}, "wrong names"),
        ({}, "has no data"),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(entry: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        parse(entry)


@pytest.mark.parametrize("body", [b'{"inputs": [NaN]}', b"[]", b"", b'{"inputs": {}}', b"[" * 100_000])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_infer_request(body, inputs=[X], outputs=[Y], max_rows=8)


@pytest.mark.parametrize(("datatype", "data"), [("INT8", [128]), ("UINT8", [-1]), ("INT32", [2**31]), ("INT64", [1.5])])
def test_integers_that_would_lose_their_value_are_refused(datatype: str, data: list[float]) -> None:
    with pytest.raises(InvalidInput, match="wrong type or range"):
        parse_tensor(
            {"shape": [1], "datatype": datatype, "data": data}, TensorSpec(name="x", datatype=datatype, shape=[-1])
        )


def test_inputs_of_different_batch_sizes_are_refused() -> None:
    entries = [{"name": n, "shape": [r, 1], "datatype": "FP32", "data": [0] * r} for n, r in (("a", 1), ("b", 2))]
    specs = [TensorSpec(name=name, datatype="FP32", shape=[-1, 1]) for name in "ab"]
    with pytest.raises(InvalidInput, match="different batch sizes"):
        parse_infer_request(json.dumps({"inputs": entries}).encode(), inputs=specs, outputs=[Y], max_rows=8)


def test_the_response_carries_id_and_only_the_outputs_asked_for() -> None:
    request = InferRequest(id="7", inputs={}, rows=1, outputs=["y"])
    outputs = {"y": np.array([[1.5, -2.0]], dtype=np.float32), "other": np.zeros(1)}
    assert json.loads(encode_infer_response(request=request, model="m", version="3", outputs=outputs)) == {
        "id": "7",
        "model_name": "m",
        "model_version": "3",
        "outputs": [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [1.5, -2.0]}],
    }


@pytest.mark.parametrize(("value", "named"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf")])
def test_an_input_that_makes_the_model_overflow_is_refused(value: float, named: str) -> None:
    request = InferRequest(id=None, inputs={}, rows=1, outputs=["y"])
    with pytest.raises(Unprocessable, match=f"output y is not finite, got {named}") as raised:
        encode_infer_response(request=request, model="m", version="3", outputs={"y": np.array([value])})
    assert raised.value.http_status == 422
