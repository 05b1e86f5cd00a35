"""A recipe that trains in a second: digits, a network of a few thousand weights, eleven steps."""

from tasks.data.digits import Digits
from tasks.families.image_classifier import ImageClassifier
from tasks.families.resnet import ResNetConfig
from tasks.recipes.family import Family
from tasks.recipes.recipe import Recipe

REFERENCE = "tests.fakes.tiny_recipe:tiny_digits"
STEPS = 11


def tiny_digits() -> Recipe:
    return Recipe(
        name="tiny-digits",
        data=Digits,
        family=_family,
        global_batch=32,
        epochs=0.3,
        checkpoint_interval_steps=4,
        max_failures=0,
        calibration_samples=64,
        golden_samples=16,
    )


def _family() -> Family:
    return ImageClassifier(model=ResNetConfig(widths=(8, 16), blocks=1))
