"""Recipes: refused early, found by name or reference, cheap to import."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.errors import InvalidInput
from tasks.recipes.finding import SHIPPED, get_recipe
from tasks.recipes.recipe import OptimizerConfig, Resources, fingerprint
from tasks.training.state import parameter_groups


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="resnet-digits"):
        get_recipe("resnet-digit")


@pytest.mark.parametrize("name", ["no.such.module:f", "tests.fakes.tiny_recipe:absent", "os:getcwd", "a b:c", ""])
def test_a_reference_to_nothing_usable_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        get_recipe(name)


@pytest.mark.parametrize(
    "name", ["sys:exit", "os:abort", "tests.unit.test_recipes:test_nothing_but_a_recipe_is_called"]
)
def test_nothing_but_a_recipe_is_called(name: str) -> None:
    with pytest.raises(InvalidInput, match="annotated `-> Recipe`"):
        get_recipe(name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("def recipe(:", "SyntaxError"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("from tasks.recipes.recipe import Recipe\ndef recipe() -> Recipe: return 1 / 0", "ZeroDivisionError"),
        ("from tasks.recipes.recipe import Recipe\ndef recipe() -> Recipe: return 1", "returned no recipe"),
        ("from tasks.recipes.recipe import Recipe\ndef recipe(epochs: int) -> Recipe: ...", "needs arguments"),
    ],
)
def test_a_recipe_that_cannot_be_made_is_one_clear_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_recipe.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_recipe", raising=False)
    with pytest.raises(InvalidInput, match=said) as refused:
        get_recipe("broken_recipe:recipe")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cpus": 0}, ">= 1"),
        ({"gpus": -1}, ">= 0"),
        ({"memory": "2 GB"}, "16Gi"),
        ({"memory": "0Gi"}, "16Gi"),
        ({"accelerator": "nvidia-l4"}, "gpus >= 1"),
    ],
)
def test_resources_that_no_cluster_understands_are_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        Resources(**change)


def test_a_users_recipe_is_found_by_reference() -> None:
    recipe = get_recipe("examples.recipe:breast_cancer")
    assert (recipe.name, recipe.reference) == ("breast-cancer", "examples.recipe:breast_cancer")


@pytest.mark.parametrize(
    "change",
    [
        {"global_batch": 0},
        {"workers": 3},
        {"precision": "float8"},
        {"min_int8_accuracy_ratio": 1.5},
        {"name": "No Such"},
        {"max_failures": -1},
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"got"):
        replace(get_recipe("resnet-digits"), **change)


def test_every_recipe_that_ships_has_a_fingerprint() -> None:
    found = {fingerprint(get_recipe(name)) for name in SHIPPED}
    assert len(found) == len(SHIPPED)


def test_the_fingerprint_follows_what_shapes_the_weights_and_nothing_else() -> None:
    recipe = get_recipe("resnet-digits")
    assert fingerprint(replace(recipe, workers=1, keep_checkpoints=9)) == fingerprint(recipe)
    assert fingerprint(replace(recipe, optimizer=OptimizerConfig(weight_decay=0.5))) != fingerprint(recipe)
    assert fingerprint(replace(recipe, epochs=13)) != fingerprint(recipe)


def test_a_prefix_makes_its_parameters_learn_faster() -> None:
    import torch

    model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(4, 2), "head": torch.nn.Linear(2, 3)})
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.1, rate_scales=(("embedding", 8.0),)))
    found = {(group["rate_scale"], group["weight_decay"]): len(group["params"]) for group in groups}
    assert found == {(8.0, 0.1): 1, (1.0, 0.1): 1, (1.0, 0.0): 1}


def test_importing_recipes_loads_no_heavy_library() -> None:
    code = (
        "import sys; import tasks.recipes.finding as r; [r.get_recipe(name) for name in r.SHIPPED];"
        "heavy = ('torch', 'numpy', 'sklearn', 'ray', 'onnxruntime', 'flytekit', 'transformers', 'tokenizers');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
