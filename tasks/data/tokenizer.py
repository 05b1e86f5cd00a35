"""A byte-level BPE tokenizer, trained here, as the files that any Hugging Face runtime reads.

Trained twice on the same texts it has the same bytes. Every text can be tokenized and comes back
unchanged, since the alphabet is all 256 bytes. The five special tokens are enough for a chat.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from serving.errors import InvalidInput
from serving.files import canonical_json

BOS: Final = "<|bos|>"
EOS: Final = "<|eos|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
SPECIAL_TOKENS: Final = (BOS, EOS, USER, ASSISTANT, END)
"""Their ids are their positions."""

TOKENIZER: Final = "tokenizer.json"
CHAT_TEMPLATE: Final = "chat_template.jinja"
TOKENIZER_FILES: Final = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE)

_BYTES: Final = 256
_TEMPLATE: Final = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{%- if not loop.first %}{{ raise_exception('a system message must come first') }}{% endif %}
{{- message['content'] + '\\n' }}
{%- elif message['role'] == 'user' %}
{{- '<|user|>' + message['content'] + '<|end|>' }}
{%- elif message['role'] == 'assistant' %}
{{- '<|assistant|>' + message['content'] + '<|end|>' }}
{%- else %}{{ raise_exception('no such role: ' + message['role']) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
"""Jinja, as transformers and vLLM render it: `<|user|>…<|end|><|assistant|>…<|end|>`, system text bare."""


def train_tokenizer(texts: Sequence[str], *, vocabulary: int) -> Tokenizer:
    """Learn merges from `texts` until there are `vocabulary` tokens; tokenizing a text puts BOS before it.

    Raises:
        InvalidInput: `vocabulary` does not hold all bytes and the special tokens, or the texts are too few for it.
    """
    if vocabulary < _BYTES + len(SPECIAL_TOKENS):
        raise InvalidInput(
            "vocabulary is too small", got=vocabulary, expected=f">= {_BYTES + len(SPECIAL_TOKENS)} (every byte)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if (learned := tokenizer.get_vocab_size()) != vocabulary:
        raise InvalidInput("too little text for the vocabulary", got=learned, expected=vocabulary)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))]
    )
    return tokenizer


def tokenizer_files(tokenizer: Tokenizer, *, context: int) -> dict[str, bytes]:
    """The tokenizer as a folder's content: file names (TOKENIZER_FILES) to bytes.

    Args:
        context: longest sequence that the model takes, tokens.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "extra_special_tokens": [USER, ASSISTANT, END],
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos_token": BOS, "eos_token": EOS, "additional_special_tokens": [USER, ASSISTANT, END]}
    return {
        TOKENIZER: tokenizer.to_str().encode(),
        "tokenizer_config.json": canonical_json(config),
        "special_tokens_map.json": canonical_json(names),
        CHAT_TEMPLATE: _TEMPLATE.encode(),
    }


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Bytes of text that each token stands for, (vocabulary,); 0 for special tokens."""
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        # Each character of a byte-level token is one byte.
        lengths[index] = 0 if token in SPECIAL_TOKENS else len(token)
    return lengths


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a dataset or model folder, as transformers and vLLM read it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
