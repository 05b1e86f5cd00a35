"""Plans of the AWS regions as Terraform made them against moto, cut to what policies and costs read.

They stand beside this file, so that tests of both need neither Terraform nor a provider; a long test makes them anew
and compares. `python -m tests.fakes.recorded_plans.recording` writes them.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
REGIONS: Final = ("us-east", "eu-west", "asia-pacific")
_CHANGE: Final = ("actions", "before", "after", "after_unknown", "replace_paths")
_LOCAL: Final = 'terraform {\n  backend "local" {}\n}\n'


def recorded(region: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HERE / f"{region}.json").read_text())
    return document


def planned_now(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from tests.fakes.moto import MotoServer
    from tests.fakes.terraform_world import VALUES, TerraformWorld

    with MotoServer(folder / "moto.log") as aws:
        world = TerraformWorld(folder / "world", cloud=aws.environment).for_moto()
        for region in REGIONS:
            (world.root / "environments" / region / "state_override.tf").write_text(_LOCAL)
            driver = world.driver(f"environments/{region}")
            driver.init()
            plan = driver.plan(VALUES)
            plan.discard()
            yield region, cut(plan.document)


def cut(document: dict[str, Any]) -> dict[str, Any]:
    """Without the state, the outputs, the expressions of outputs and variables, and what is null."""
    managed = (raw for raw in document["resource_changes"] if raw["mode"] == "managed")
    return {
        "format_version": document["format_version"],
        "resource_changes": [_cut_change(raw) for raw in managed],
        "configuration": {
            "provider_config": document["configuration"]["provider_config"],
            "root_module": _cut_module(document["configuration"]["root_module"]),
        },
    }


def _cut_change(raw: dict[str, Any]) -> dict[str, Any]:
    change = {name: _known(raw["change"][name]) for name in _CHANGE if raw["change"].get(name) is not None}
    change["after_unknown"] = _true(change.get("after_unknown", {}))
    kept = {name: raw[name] for name in ("address", "module_address", "mode", "type") if name in raw}
    return {**kept, "change": change}


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items() if item is not None}
    return [_known(item) for item in value] if isinstance(value, list) else value


def _true(marks: Any) -> Any:
    """Of the marks of unknown values those that are true; places in lists stay."""
    if isinstance(marks, dict):
        return {key: _true(item) for key, item in marks.items() if item not in (False, {}, [])}
    return [_true(item) for item in marks] if isinstance(marks, list) else marks


def _cut_module(module: dict[str, Any]) -> dict[str, Any]:
    managed = (raw for raw in module.get("resources", ()) if raw["mode"] == "managed")
    return {
        "resources": [{"address": raw["address"], "expressions": raw.get("expressions", {})} for raw in managed],
        "module_calls": {
            name: {"module": _cut_module(call["module"])} for name, call in module.get("module_calls", {}).items()
        },
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for region, document in planned_now(Path(folder)):
            (HERE / f"{region}.json").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
