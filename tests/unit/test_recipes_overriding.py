"""Overrides: typed by the recipe's dataclasses, refused by name, part of what a run is."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from serving.errors import InvalidInput
from tasks.families.image_classifier import ImageClassifier
from tasks.recipes.finding import get_recipe
from tasks.recipes.overriding import overridden
from tasks.recipes.recipe import Recipe, fingerprint


def test_fields_and_fields_of_parts_change_and_the_rest_stays() -> None:
    recipe = get_recipe(
        "resnet-digits", '{"optimizer.peak_learning_rate": 1e-2, "epochs": 3, "resources.memory": "1Gi"}'
    )
    plain = get_recipe("resnet-digits")
    assert (recipe.epochs, recipe.optimizer.peak_learning_rate, recipe.resources.memory) == (3, 1e-2, "1Gi")
    assert recipe.optimizer == replace(plain.optimizer, peak_learning_rate=1e-2)
    assert recipe.overrides == '{"epochs":3,"optimizer.peak_learning_rate":0.01,"resources.memory":"1Gi"}'


def test_what_the_recipe_makes_is_changed_each_time_it_is_made() -> None:
    recipe = get_recipe("resnet-digits", '{"family.shift_pixels": 0, "family.model.channels": 1, "data.split_seed": 7}')
    family = recipe.family()
    assert isinstance(family, ImageClassifier)
    assert (family.shift_pixels, recipe.family().describe()) == (0, family.describe())
    assert recipe.data().fingerprint() != get_recipe("resnet-digits").data().fingerprint()


def test_what_shapes_the_weights_is_another_run_and_how_they_are_made_is_not() -> None:
    plain = fingerprint(get_recipe("resnet-digits"))
    assert fingerprint(get_recipe("resnet-digits", '{"epochs": 13}')) != plain
    assert fingerprint(get_recipe("resnet-digits", '{"family.shift_pixels": 0}')) != plain
    assert fingerprint(get_recipe("resnet-digits", '{"workers": 1, "resources.cpus": 2}')) == plain


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_no_change_is_the_recipe_itself(text: str) -> None:
    recipe = get_recipe("resnet-digits")
    assert overridden(recipe, text) is recipe


def test_tuples_come_as_lists() -> None:
    recipe = get_recipe("resnet-digits", '{"optimizer.rate_scales": [["stem", 2.0]]}')
    assert recipe.optimizer.rate_scales == (("stem", 2.0),)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "no object"),
        ('{"epochs": NaN}', "no number"),
        ('{"epochs": 1e999}', "another type"),
        ('{"epochs": 1, "epochs": 2}', "a name twice"),
        ('{"epoch": 3}', "unknown override 'epoch'.*epochs"),
        ('{"optimizer.rate": 1}', "unknown override 'optimizer.rate'.*peak_learning_rate"),
        ('{"epochs": "3"}', "override epochs is of another type"),
        ('{"epochs": true}', "override epochs is of another type"),
        ('{"workers": 2.5}', "override workers is of another type"),
        ('{"epochs": 0}', "epochs of recipe resnet-digits, got 0"),
        ('{"workers": 3}', "a divisor of 64"),
        ('{"epochs.more": 3}', "epochs, which has no fields"),
        ('{"optimizer": {"weight_decay": 1.0}, "optimizer.weight_decay": 1.0}', "fields of it"),
        ('{"family": "os:abort"}', "family is code"),
        ('{"reference": "os:abort"}', "unknown override 'reference'"),
        ('{"family.model.depth.x": 1}', "unknown override 'family.model.depth'"),
        ('{"": 1}', "unknown override ''"),
        ('{"optimizer.": 1}', "fields of it|another type|unknown"),
        ("{" + '"a":' * 40_000, "too long"),
        ("[" * 5000, "no JSON"),
    ],
)
def test_what_does_not_fit_is_named(overrides: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        get_recipe("resnet-digits", overrides)


def test_a_part_without_fields_is_refused() -> None:
    class Plain:
        pass

    recipe = replace(get_recipe("resnet-digits"), data=lambda: Plain())  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidInput, match="data, which has no fields"):
        overridden(recipe, '{"data.split_seed": 1}')


class _Sealed:
    """Nothing that JSON could be."""


@dataclass(frozen=True, kw_only=True)
class _Named:
    hidden: int = 4
    sealed: _Sealed = field(default_factory=_Sealed)
    other: "NoSuchType" = None  # type: ignore[name-defined]  # noqa: F821

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ValueError("hidden is negative")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ('{"data.other": 1}', "type of other is unknown"),
        ('{"data.hidden": -1}', "ValueError: hidden is negative"),
        ('{"data.sealed": 1}', "do not fit the recipe"),
    ],
)
def test_what_a_users_part_refuses_is_one_clear_line(overrides: str, said: str) -> None:
    def named() -> Any:
        return _Named()

    recipe: Recipe = replace(get_recipe("resnet-digits"), data=named)
    with pytest.raises(InvalidInput, match=said):
        overridden(recipe, overrides)
