"""Finding a recipe: by the name of one that ships, or by reference to a user's."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from serving.errors import FlightpathError, InvalidInput
from serving.references import load_reference
from tasks.artifacts import ReleasePlan
from tasks.recipes.overriding import overridden
from tasks.recipes.recipe import Recipe
from tasks.recipes.sources import sources_hash

SHIPPED: Final = MappingProxyType(
    {
        "llama-stdlib": "tasks.shipped.llama_stdlib:llama_stdlib",
        "resnet-digits": "tasks.shipped.resnet_digits:resnet_digits",
    }
)
"""The recipes that ship with Flightpath, by name."""

_EXPECTED: Final = f"{' | '.join(sorted(SHIPPED))} | package.module:function"


def get_recipe(name: str, overrides: str = "") -> Recipe:
    """The recipe called `name`, or the one that `package.module:function` returns, with `overrides` applied.

    Args:
        overrides: a JSON object of field names and values (`overriding.py`).

    Raises:
        InvalidInput: there is none (the message lists those that ship with Flightpath), it cannot be made, or the
            overrides do not fit it.
    """
    if name in SHIPPED:
        return overridden(replace(_made(SHIPPED[name]), reference=name), overrides)
    if ":" not in name:
        raise InvalidInput("unknown recipe", got=name, expected=_EXPECTED)
    found = replace(_made(name), reference=name, sources=sources_hash(name.partition(":")[0]))
    return overridden(found, overrides)


def recipe_of(plan: ReleasePlan) -> Recipe:
    """The recipe of a release, with what the release changes of it."""
    return get_recipe(plan.recipe, plan.overrides)


def _made(reference: str) -> Recipe:
    found = load_reference(reference)
    if isinstance(found, Recipe):
        return found
    make = _recipe_function(found, reference)
    try:
        recipe = make()
    except FlightpathError:
        raise
    except Exception as failed:
        # A user's code, which may raise anything.
        what = f"{type(failed).__name__}: {failed}"
        raise InvalidInput(f"recipe could not be made ({what})", got=reference, expected="a Recipe") from failed
    if not isinstance(recipe, Recipe):
        raise InvalidInput(f"{reference} returned no recipe", got=type(recipe).__name__, expected="Recipe")
    return recipe


def _recipe_function(found: Any, reference: str) -> Callable[[], Any]:
    """Only what says that it returns a Recipe is called: a slip of the pen (`sys:exit`) must not run."""
    annotated = getattr(found, "__annotations__", {}).get("return")
    name = annotated.rpartition(".")[2] if isinstance(annotated, str) else annotated
    if not inspect.isfunction(found) or name not in (Recipe, "Recipe"):
        raise InvalidInput("reference is no recipe", got=reference, expected="a function annotated `-> Recipe`")
    if any(of.default is of.empty for of in inspect.signature(found).parameters.values()):
        raise InvalidInput("recipe function needs arguments", got=reference, expected="a function without arguments")
    return found
