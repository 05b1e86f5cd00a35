"""A Hugging Face checkpoint that was never trained here becomes a bundle's content for vLLM."""

import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import tasks.data.offline  # noqa: F401  # before transformers: no look-ups on a hub
from serving.bundle import GoldenSet, Manifest, Variant, describe_file
from serving.errors import InvalidInput
from serving.files import write_atomically
from tasks.compression.hugging_face import ENTRY, VARIANT, load_packed
from tasks.data.tokenizer import load_tokenizer
from tasks.families.golden_texts import golden_of

_MAX_TEXTS: Final = 32
_SHORTEST, _LONGEST = 16, 200
"""Tokens of a golden text: enough to say something, and room in the context for an answer."""
_MAX_TEXT_FILE_BYTES: Final = 4 * 1024 * 1024
_OWN_TEXTS: Final = ("json/decoder.py", "textwrap.py", "heapq.py", "bisect.py", "shlex.py", "string.py", "queue.py")
"""Of Python's standard library: prose and code that every installation has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenIn:
    """What a checkpoint became."""

    manifest: Manifest
    origin: str
    """Where the golden set's texts come from, or `none`."""
    arguments: list[str]
    """For `vllm serve`."""


def build_checkpoint(
    folder: Path, files: list[str], root: Path, *, model: str, golden: Path | None, make_golden: bool
) -> TakenIn:
    """Fill `root` with the checkpoint's files and its golden set.

    Args:
        golden: a UTF-8 text file, one text per paragraph, or None.
        make_golden: without `golden`, take texts of Python's standard library.

    Raises:
        InvalidInput: there is no tokenizer, or the golden texts are too short.
        PermanentError: transformers does not load it.
    """
    for name in files:
        target = root / ENTRY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)
    loaded = load_packed(root / ENTRY)
    tokenizer = _tokenizer(root / ENTRY)
    context = int(getattr(loaded.config, "max_position_embeddings", 2048))
    texts, origin = _texts(golden, make_golden)
    variant = Variant(
        name=VARIANT,
        runtime="vllm",
        entry=ENTRY,
        files=[describe_file(root, f"{ENTRY}/{name}") for name in files],
        requires={"vllm": ">=0.32"},
    )
    manifest = Manifest(
        name=model,
        family="language-model",
        inputs=[],
        outputs=[],
        variants=[variant],
        golden=_golden(texts, loaded, tokenizer, context, root) if texts else None,
    )
    return TakenIn(manifest=manifest, origin=origin, arguments=["--max-model-len", str(min(context, 4096))])


def _tokenizer(folder: Path) -> Any:
    try:
        return load_tokenizer(folder)
    except (OSError, ValueError, KeyError) as missing:
        raise InvalidInput(
            f"checkpoint has no usable tokenizer ({missing})",
            got=folder.name,
            expected="tokenizer.json",
        ) from missing


def _texts(golden: Path | None, make: bool) -> tuple[list[str], str]:
    if golden is not None:
        if not golden.is_file() or golden.stat().st_size > _MAX_TEXT_FILE_BYTES:
            raise InvalidInput("golden texts cannot be read", got=str(golden), expected="a text file of at most 4 MiB")
        paragraphs = golden.read_text(encoding="utf-8", errors="strict").split("\n\n")
        return [text for text in paragraphs if text.strip()], f"given: {golden.name}"
    if not make:
        return [], "none"
    library = Path(sysconfig.get_path("stdlib"))
    return [text for name in _OWN_TEXTS for text in _paragraphs(library / name)], "made: Python's standard library"


def _paragraphs(path: Path) -> Iterator[str]:
    """Some paragraphs of a file, a few hundred characters each."""
    text = path.read_text(encoding="utf-8")
    for start in range(0, min(len(text), 4000), 1000):
        yield text[start : start + 500]


def _golden(texts: list[str], model: Any, tokenizer: Any, context: int, root: Path) -> GoldenSet:
    import torch

    def log_probabilities(ids: list[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits_TV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
            return np.asarray(torch.log_softmax(logits_TV, dim=-1).numpy(), dtype=np.float32)

    longest = min(_LONGEST, context - 1)
    tokenized = [(text, [int(token) for token in tokenizer(text)["input_ids"]]) for text in texts]
    picked = [(text, ids) for text, ids in tokenized if _SHORTEST <= len(ids) <= longest][:_MAX_TEXTS]
    if not picked:
        raise InvalidInput(
            "no golden text fits the model",
            got=[len(ids) for _, ids in tokenized][:8],
            expected=f"{_SHORTEST} to {longest} tokens",
        )
    made = golden_of(picked, tokenizer, log_probabilities)
    write_atomically(root / made.file, made.content)
    return GoldenSet(
        kind="language-model",
        file=describe_file(root, made.file),
        samples=made.samples,
        reference_accuracy=made.accuracy,
    )
