"""A small Llama on the source text of Python's standard library, served by vLLM."""

from typing import TYPE_CHECKING

from tasks.recipes.recipe import OptimizerConfig, Recipe

if TYPE_CHECKING:
    from tasks.recipes.data_source import DataSource
    from tasks.recipes.family import Family
    from tasks.recipes.packing import Packing


def llama_stdlib() -> Recipe:
    """Perplexity about 52, where a bigram model has 69."""
    return Recipe(
        name="llama-stdlib",
        data=_stdlib_text,
        family=_llama,
        packing=_hugging_face,
        engine="vllm",
        optimizer=OptimizerConfig(
            peak_learning_rate=2.5e-3,
            weight_decay=0.05,
            second_moment_decay=0.99,
            # Rare tokens get few updates in so short a run: let each of them count.
            rate_scales=(("model.embed_tokens", 10.0), ("lm_head", 10.0)),
        ),
        global_batch=8,
        epochs=0.6,
        checkpoint_interval_steps=100,
        validations=6,
        golden_samples=16,
    )


def _stdlib_text() -> "DataSource":
    from tasks.data.stdlib_text import StdlibText

    return StdlibText()


def _llama() -> "Family":
    from tasks.families.llama import Llama

    return Llama()


def _hugging_face() -> "Packing":
    from tasks.compression.hugging_face import HuggingFacePacking

    return HuggingFacePacking()
