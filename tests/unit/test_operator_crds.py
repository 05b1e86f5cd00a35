"""The checked-in CRDs: they match the models, are structural, bounded and explained."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flightpath_operator.api import crd
from flightpath_operator.api.crd import KINDS, Kind, definition, render
from flightpath_operator.api.schema import structural_schema
from flightpath_operator.training.state import Group, JobState, Phase, Stage, write_state
from pydantic import BaseModel

from tests.fakes.operator_specs import SMALLEST, live, schema_problems

Json = dict[str, Any]
CRDS = Path(__file__).parents[2] / "operator" / "crds"
ALLOWED = {
    *("type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "multipleOf", "not"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties", "required"),
    *("properties", "items", "additionalProperties"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
"""Keywords that a structural schema of apiextensions.k8s.io/v1 may use."""


def _schema(kind: Kind) -> Json:
    schema: Json = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from _nodes(schema[key], f"{path}[]")


KUSTOMIZATION = "kustomization.yaml"
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def _fields(kind: Kind) -> list[tuple[str, Json]]:
    parts = _schema(kind)["properties"]
    return [*_nodes(parts["spec"], "spec"), *_nodes(parts["status"], "status")]


@each_kind
def test_checked_in_crds_match_the_models(kind: Kind) -> None:
    path = CRDS / f"{kind.plural}.yaml"
    assert path.read_text() == render(kind), "run: cd operator && python -m flightpath_operator.api.crd crds"


def test_no_other_file_lies_among_the_crds() -> None:
    files = {f"{kind.plural}.yaml" for kind in KINDS}
    assert {path.name for path in CRDS.iterdir()} == files | {KUSTOMIZATION}
    assert set(yaml.safe_load((CRDS / KUSTOMIZATION).read_text())["resources"]) == files


def test_the_command_writes_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", str(tmp_path / "new" / "crds")])
    crd.main()
    assert {path.name: path.read_text() for path in (tmp_path / "new" / "crds").iterdir()} == {
        path.name: path.read_text() for path in CRDS.iterdir() if path.name != KUSTOMIZATION
    }


@each_kind
def test_nodes_use_only_what_structural_schemas_allow(kind: Kind) -> None:
    for path, node in _fields(kind):
        assert set(node) <= ALLOWED, path
        typeless = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
        assert "type" in node or typeless, path
        assert not ("properties" in node and "additionalProperties" in node), path


@each_kind
def test_strings_lists_and_maps_are_bounded(kind: Kind) -> None:
    for path, node in _fields(kind):
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "object" and "properties" not in node:
            assert "maxProperties" in node, path


@each_kind
def test_keys_of_list_maps_are_required(kind: Kind) -> None:
    for path, node in _fields(kind):
        if node.get("x-kubernetes-list-type") == "map":
            assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path


@each_kind
def test_every_field_is_explained(kind: Kind) -> None:
    for path, node in _fields(kind):
        if not path.endswith("[]"):
            assert node.get("description", "").endswith("."), path


@each_kind
def test_printer_columns_and_scale_point_at_fields_that_exist(kind: Kind) -> None:
    paths = {path for path, _ in _nodes(_schema(kind))}
    shown = [column[2] for column in kind.columns] + list((kind.scale or {}).values())
    for path in shown:
        assert path.partition("[?")[0] in paths


@each_kind
def test_names_and_subresources(kind: Kind) -> None:
    spec = definition(kind)["spec"]
    assert spec["names"]["categories"] == ["flightpath"]
    assert spec["versions"][0]["subresources"]["status"] == {}
    assert ("scale" in spec["versions"][0]["subresources"]) == (kind.name == "ModelDeployment")


def test_short_names_are_those_that_people_type() -> None:
    assert [definition(kind)["spec"]["names"]["shortNames"] for kind in KINDS] == [["tj"], ["tcl"], ["md"]]


@each_kind
def test_crds_survive_yaml(kind: Kind) -> None:
    assert yaml.safe_load(render(kind)) == definition(kind)


@each_kind
def test_defaults_of_the_crd_are_those_of_the_reader(kind: Kind) -> None:
    filled = _fill(SMALLEST[kind.name], _schema(kind)["properties"]["spec"])
    assert kind.spec.model_validate_json(_json(filled)) == kind.spec.model_validate_json(_json(SMALLEST[kind.name]))
    assert len(filled) > len(SMALLEST[kind.name])


def _json(value: Any) -> str:
    return json.dumps(value)


def _fill(value: Json, schema: Json) -> Json:
    """What a server makes of an object before it stores it."""
    defaults = {name: node["default"] for name, node in schema["properties"].items() if "default" in node}
    return defaults | value


def test_fields_of_a_running_job_are_fixed_one_by_one() -> None:
    rules = {rule["message"].split()[0]: rule["rule"] for rule in _rules("TrainingJob") if "oldSelf" in rule["rule"]}
    changeable = {"workers", "suspend", "activeDeadlineSeconds", "startupDeadlineSeconds", "ttlSecondsAfterFinished"}
    fields = set(_schema(KINDS[0])["properties"]["spec"]["properties"])
    assert set(rules) == fields - changeable
    assert rules["image"] == "self.suspend || oldSelf.suspend || self.image == oldSelf.image"
    assert rules["managedBy"] == "self.managedBy == oldSelf.managedBy"
    assert "!has(oldSelf.queue)" in rules["queue"]


def test_kserve_of_a_deployment_is_fixed_for_ever() -> None:
    assert [rule["rule"] for rule in _rules("ModelDeployment")] == ["self.kserve == oldSelf.kserve"]


def _rules(name: str) -> list[dict[str, str]]:
    [kind] = [kind for kind in KINDS if kind.name == name]
    rules: list[dict[str, str]] = _schema(kind)["properties"]["spec"]["x-kubernetes-validations"]
    return rules


def test_a_union_that_no_crd_can_express_is_an_error_when_the_crds_are_made() -> None:
    class Bad(BaseModel):
        field: int | str

    with pytest.raises(TypeError, match="cannot express"):
        structural_schema(Bad)


def test_status_that_training_writes_fits_the_schema() -> None:
    group = Group(stage=Stage.ACTIVE, size=2)
    state = JobState(
        phase=Phase.RUNNING,
        attempt=2,
        spec_hash="ab",
        started_at=1.5e9,
        group=group,
        environment={"NCCL_DEBUG": "WARN"},
    )
    assert (
        schema_problems(live("TrainingJob", SMALLEST["TrainingJob"]) | {"status": write_state(state)}, "status") == []
    )


def test_unknown_status_fields_are_pruned() -> None:
    status = {"phase": "Running", "surprise": 1}
    problems = schema_problems(live("TrainingJob", SMALLEST["TrainingJob"]) | {"status": status}, "status")
    assert "surprise" in problems[0]
