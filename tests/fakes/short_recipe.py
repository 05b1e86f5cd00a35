"""The repository's own recipe resnet-digits with fewer epochs: long enough to be killed in the middle."""

from dataclasses import replace

from tasks.recipes.recipe import Recipe
from tasks.shipped.resnet_digits import resnet_digits

REFERENCE = "tests.fakes.short_recipe:short_digits"
STEPS = 73


def short_digits() -> Recipe:
    return replace(resnet_digits(), epochs=4)
