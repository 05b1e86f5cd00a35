"""The language model family: Llama (Touvron et al., 2023) as transformers defines it, so that vLLM serves it.

Reads `tokens` (samples, context + 1), and `bytes` and `files` for its figures (`tasks/data/stdlib_text.py`).
Shapes: B batch, T context, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from serving.errors import InvalidInput
from tasks.artifacts import Figure
from tasks.data.tokenizer import BOS, EOS, SPECIAL_TOKENS
from tasks.families.golden_texts import language_golden
from tasks.families.language import judge_tokens, ngram_baselines
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement, Loss, Signature

_SCORED_AT_ONCE: Final = 8
"""Sequences whose logits are in memory together: 8 x 256 x 2048 float32 are 17 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaSize:
    """Sizes of the model."""

    vocabulary: int = 2048
    context: int = 256
    """Longest sequence, tokens."""
    hidden: int = 128
    """Small on purpose: in the same minute of two cores 192 sees fewer tokens and ends behind."""
    layers: int = 4
    heads: int = 2
    """Of hidden / heads dimensions each: 64, which every attention kernel of vLLM takes."""
    intermediate: int = 384
    """Width inside the gated feed-forward network; about 8/3 of `hidden`, as in the paper."""

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1 or self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise InvalidInput("LlamaSize is not usable", got=asdict(self), expected="hidden = heads x an even number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama:
    """Next-token prediction with a causal transformer."""

    size: LlamaSize = field(default_factory=LlamaSize)

    @property
    def kind(self) -> str:
        return "language-model"

    @property
    def golden_kind(self) -> str:
        return "language-model"

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "architecture": "llama", **asdict(self.size)}

    def signature(self) -> Signature:
        return Signature(inputs=[], outputs=[])

    def build_model(self) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        size = self.size
        config: Any = LlamaConfig
        build: Any = LlamaForCausalLM  # transformers leaves both untyped
        model: nn.Module = build(
            config(
                vocab_size=size.vocabulary,
                hidden_size=size.hidden,
                intermediate_size=size.intermediate,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                num_key_value_heads=size.heads,
                max_position_embeddings=size.context,
                bos_token_id=SPECIAL_TOKENS.index(BOS),
                eos_token_id=SPECIAL_TOKENS.index(EOS),
                # Untied: from zero and unit weights the head learns pairs of tokens within a few hundred steps.
                tie_word_embeddings=False,
                attn_implementation="sdpa",
            )
        )
        initialise(model)
        return model

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        tokens = batch["tokens"].long()
        logits_BTV = model(input_ids=tokens[:, :-1], use_cache=False).logits
        following = tokens[:, 1:].flatten()
        return functional.cross_entropy(logits_BTV.flatten(0, 1).float(), following, reduction="sum"), len(following)

    def answers(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """(samples, T, 2): log-probability (nats) of the token that follows, and 1 where it was ranked first."""
        with torch.inference_mode():
            return torch.cat([_score(model, tokens.long()) for tokens in torch.split(batch["tokens"], _SCORED_AT_ONCE)])

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        return judge_tokens(answers, split)

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        return ngram_baselines(train["tokens"], split, vocabulary=self.size.vocabulary)

    def golden(self, held_out: HeldOut) -> Golden:
        def log_probabilities(ids: list[int]) -> NDArray[np.float32]:
            with torch.inference_mode():
                logits_TV = held_out.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
                return torch.log_softmax(logits_TV, dim=-1).numpy()

        return language_golden(held_out, log_probabilities, context=self.size.context)


def initialise(model: nn.Module) -> None:
    """Unit embeddings; every residual branch and the head begin at zero, so the first steps learn the frequent tokens.

    Other weights keep transformers' normal(0, 0.02).
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("embed_tokens.weight"):
                parameter.normal_()
            elif name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()


def _score(model: nn.Module, tokens: Tensor) -> Tensor:
    logits_BTV = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
    following_BT1 = tokens[:, 1:, None]
    log_probability_BT = torch.log_softmax(logits_BTV, dim=-1).gather(-1, following_BT1)[..., 0]
    first_BT = logits_BTV.argmax(dim=-1) == following_BT1[..., 0]
    return torch.stack([log_probability_BT, first_BT.to(log_probability_BT.dtype)], dim=-1)
