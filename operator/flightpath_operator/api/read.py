"""Reads an object's spec into its model, with defaults, and refuses what no server should have let through.

Servers before CEL (1.25) accept what only rules forbid, so every rule stands in the models as well.
"""

import json
import re
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flightpath_operator.api.fields import MAX_NAME, NAME_PATTERN, Model
from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.api.training_cluster import TrainingClusterSpec
from flightpath_operator.api.training_job import TrainingJobSpec
from flightpath_operator.plan import Object

_MAX_PROBLEMS: Final = 5
_MAX_SHOWN: Final = 80

_Spec = TypeVar("_Spec", bound=Model)


class InvalidSpec(Exception):
    """The spec cannot be carried out, and no retry will mend it: only an edit does."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """CamelCase, for a condition."""
        self.message = message
        """Which field is wrong, what was got, what is expected."""


def read_training_job(obj: Object) -> TrainingJobSpec:
    return _read(obj, TrainingJobSpec)


def read_training_cluster(obj: Object) -> TrainingClusterSpec:
    return _read(obj, TrainingClusterSpec)


def read_model_deployment(obj: Object) -> ModelDeploymentSpec:
    return _read(obj, ModelDeploymentSpec)


def _read(obj: Object, model: type[_Spec]) -> _Spec:
    _check_name(obj["metadata"]["name"])
    try:
        # Through JSON: only there does the strict mode take lists for tuples and whole numbers for floats.
        return model.model_validate_json(json.dumps(obj.get("spec") or {}))
    except ValidationError as refused:
        problems = refused.errors(include_url=False, include_context=False)
        told = [_describe(problem) for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            told.append(f"and {len(problems) - _MAX_PROBLEMS} more")
        raise InvalidSpec("InvalidSpec", "; ".join(told)) from refused


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise InvalidSpec("NameTooLong", f"metadata.name must have at most {MAX_NAME} characters, got {len(name)}")
    if not re.fullmatch(NAME_PATTERN, name):
        expected = "a-z, 0-9 and '-', beginning with a letter"
        raise InvalidSpec("InvalidName", f"metadata.name must be {expected}, got {name}")


def _describe(problem: ErrorDetails) -> str:
    path = "spec"
    for part in problem["loc"]:
        if str(part).startswith("|"):  # which member of a union was tried
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    message = problem["msg"].removeprefix("Value error, ")
    got = problem["input"]
    if problem["type"] in ("value_error", "missing"):
        return f"{path}: {message}"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    return f"{path}: {message}, got {_show(got)}"


def _show(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
