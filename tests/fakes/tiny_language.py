"""A language recipe that trains in seconds: 200 KB of the standard library, a model of some 60,000 weights."""

from tasks.compression.hugging_face import HuggingFacePacking
from tasks.data.stdlib_text import StdlibText
from tasks.families.llama import Llama, LlamaSize
from tasks.recipes.family import Family
from tasks.recipes.recipe import OptimizerConfig, Recipe

REFERENCE = "tests.fakes.tiny_language:tiny_llama"
CONTEXT = 96
VOCABULARY = 384


def tiny_text() -> StdlibText:
    return StdlibText(
        vocabulary=VOCABULARY, context=CONTEXT, max_bytes=300_000, max_file_bytes=8_000, validation_samples=8
    )


def tiny_llama() -> Recipe:
    return Recipe(
        name="tiny-llama",
        data=tiny_text,
        family=_family,
        packing=HuggingFacePacking,
        optimizer=OptimizerConfig(peak_learning_rate=5e-3, rate_scales=(("model.embed_tokens", 8.0), ("lm_head", 8.0))),
        global_batch=16,
        epochs=0.6,
        checkpoint_interval_steps=20,
        validations=2,
        max_failures=0,
        golden_samples=6,
    )


def _family() -> Family:
    return Llama(size=LlamaSize(vocabulary=VOCABULARY, context=CONTEXT, hidden=64, layers=1, heads=1, intermediate=128))
