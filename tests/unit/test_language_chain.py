"""A language model through every stage, with real transformers: learned, judged, packed and sealed, reproducibly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.bundle import verify_bundle
from serving.credentials import trusted_keys
from serving.errors import InvalidInput, PermanentError
from tasks.artifacts import Checkpoint, CompressedModel, Evaluation
from tasks.compression.hugging_face import load_packed, write_model_folder
from tasks.compression.plots import compression_page
from tasks.compression.stage import compress
from tasks.data.tokenizer import load_tokenizer
from tasks.evaluation.plots import evaluation_page
from tasks.evaluation.stage import evaluate
from tasks.families.llama import LlamaSize
from tasks.training.plots import training_curve
from tests.fakes.language_release import Made, make_language_release, seal_language_model
from tests.fakes.tiny_language import CONTEXT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_language_release(tmp_path_factory.mktemp("language"))


def values(artifact: Checkpoint | Evaluation | CompressedModel) -> dict[str, float]:
    return {figure.name: figure.value for figure in artifact.figures}


def test_the_model_learns_more_than_frequencies(made: Made) -> None:
    found = values(made.evaluation)
    assert found["perplexity"] < 0.6 * found["unigram_perplexity"]
    assert found["perplexity_low"] <= found["perplexity"] <= found["perplexity_high"]
    assert found["bits_per_byte"] < found["unigram_bits_per_byte"]


def test_packing_again_gives_the_same_bytes_and_the_same_digest(made: Made, tmp_path: Path) -> None:
    again = compress(made.recipe, made.dataset, made.checkpoint, made.evaluation, made.store)
    assert again.sha256 == made.compressed.sha256
    assert seal_language_model(made.recipe, again, made.evaluation, made.store, tmp_path).digest == made.bundle.digest


def test_the_bundle_holds_a_vllm_folder_and_says_how_to_serve_it(made: Made) -> None:
    manifest, attestation = verify_bundle(made.folder, digest=made.bundle.digest, keys=trusted_keys(made.root / "keys"))
    (variant,) = manifest.variants
    assert (variant.name, variant.runtime, variant.entry) == ("vllm", "vllm", "model")
    assert sorted(file.path.removeprefix("model/") for file in variant.files) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (manifest.inputs, manifest.outputs, manifest.family) == ([], [], "language-model")
    assert manifest.golden is not None
    assert manifest.golden.kind == "language-model"
    assert made.bundle.engine == "vllm"
    assert made.bundle.arguments[:2] == ["--max-model-len", str(CONTEXT)]
    measured = {figure.name: figure for figure in attestation.measurements}
    assert measured["vllm perplexity"].value == pytest.approx(values(made.evaluation)["perplexity"])
    assert measured["vllm perplexity"].interval is not None


def test_the_golden_set_is_what_the_packed_model_says(made: Made) -> None:
    import torch

    model, tokenizer = load_packed(made.folder / "model"), load_tokenizer(made.folder / "model")
    golden = made.golden
    assert len(golden["texts"]) == made.recipe.golden_samples
    for text in golden["texts"]:
        ids = text["token_ids"]
        assert tokenizer(text["text"])["input_ids"] == ids
        assert len(ids) == len(text["top"]) + 1 == len(text["margins"]) + 1
        with torch.inference_mode():
            scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1).numpy()
        assert scores[np.arange(len(ids) - 1), ids[1:]].sum() == pytest.approx(text["logprob_sum"], abs=1e-3)
        assert scores[:-1].argmax(axis=1).tolist() == text["top"]
    nats = -sum(text["logprob_sum"] for text in golden["texts"])
    assert golden["perplexity"] == pytest.approx(
        np.exp(nats / sum(len(text["top"]) for text in golden["texts"])), rel=1e-5
    )
    assert any(margin >= golden["min_margin"] for text in golden["texts"] for margin in text["margins"])


def test_golden_chats_begin_with_bos_and_end_where_the_answer_begins(made: Made) -> None:
    tokenizer = load_tokenizer(made.folder / "model")
    for chat in made.golden["chats"]:
        rendered = tokenizer.decode(chat["token_ids"])
        assert rendered.startswith("<|bos|>")
        assert rendered.endswith("<|assistant|>")
        assert all(message["content"] in rendered for message in chat["messages"])


def test_a_template_refuses_what_it_cannot_write_down(made: Made) -> None:
    from jinja2 import TemplateError

    tokenizer = load_tokenizer(made.folder / "model")
    for messages in ([{"role": "tool", "content": "x"}], [{"role": "user", "content": "x"}, {"role": "system"}]):
        with pytest.raises(TemplateError):
            tokenizer.apply_chat_template(messages)


def test_weights_that_answer_differently_are_not_packed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(folder: Path) -> Any:
        import torch

        model = load_packed(folder)
        with torch.no_grad():
            model.lm_head.weight[7] += 1.0
        return model

    monkeypatch.setattr("tasks.compression.hugging_face.load_packed", damaged)
    with pytest.raises(PermanentError, match="answers differently"):
        compress(made.recipe, made.dataset, made.checkpoint, made.evaluation, made.store)


def test_a_model_without_a_tokenizer_is_not_packed(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Hugging Face folder"):
        write_model_folder(made.recipe.family().build_model(), tmp_path, tmp_path / "model")


def test_a_golden_set_of_another_evaluation_is_not_sealed(made: Made, tmp_path: Path) -> None:
    fewer = replace(made.recipe, golden_samples=2)
    other = evaluate(fewer, made.dataset, made.checkpoint, made.store)
    with pytest.raises(PermanentError, match="not the evaluation's"):
        seal_language_model(fewer, made.compressed, other, made.store, tmp_path)


def test_pages_show_perplexity_files_and_no_script(made: Made) -> None:
    pages = [training_curve(made.checkpoint), evaluation_page(made.evaluation), compression_page(made.compressed)]
    assert all("<script" not in page for page in pages)
    assert "<svg" in pages[0]
    assert "bigram" in pages[1]
    assert "model/model.safetensors" in pages[2]
    assert "nothing is quantized" in pages[2]


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidInput, match="LlamaSize"):
        LlamaSize(hidden=100, heads=3)
