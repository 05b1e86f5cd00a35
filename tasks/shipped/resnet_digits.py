"""A small residual network on scikit-learn's handwritten digits."""

from typing import TYPE_CHECKING

from tasks.recipes.recipe import Recipe

if TYPE_CHECKING:
    from tasks.recipes.data_source import DataSource
    from tasks.recipes.family import Family


def resnet_digits() -> Recipe:
    """About 98 % in some 20 s on two CPU cores."""
    return Recipe(name="resnet-digits", data=_digits, family=_resnet_8x8, epochs=12)


def _digits() -> "DataSource":
    from tasks.data.digits import Digits

    return Digits()


def _resnet_8x8() -> "Family":
    from tasks.families.image_classifier import ImageClassifier

    return ImageClassifier()
