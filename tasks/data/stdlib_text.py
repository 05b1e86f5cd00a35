"""The source text of Python's standard library: a corpus that every machine has, nothing to download.

Files are split by a hash of their path, so that no text is in two splits and every release is judged
on the same held-out files; another patch release of Python is other data, and says so in its hash.
Left out: tests, vendored packages, and modules that are tables (character maps, keyword lists), which
are trivial to predict and would flatter the figures.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidInput
from serving.files import canonical_json
from tasks.recipes.data_source import SPLITS, LoadedData, Split

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LEFT_OUT: Final = frozenset(
    {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "__pycache__"}
    | {"encodings", "pydoc_data", "turtledemo", "ensurepip"}
)
_BUILD_FILES: Final = "_sysconfigdata"
"""What modules begin with that the build of this very machine wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StdlibText:
    """Packed token sequences; settings that shape them.

    Each split holds `tokens` (samples, context + 1) int32: BOS, then `context` consecutive tokens of the
    split's files, which follow one another with EOS between them. `bytes` (samples,) int64 counts the UTF-8
    bytes of the text in a sample, and `files` (samples,) int64 numbers the file that it begins in.
    """

    root: Path = field(default_factory=lambda: Path(sysconfig.get_path("stdlib")))
    """Where the *.py files are."""
    vocabulary: int = 2048
    """Tokens; small, since the softmax over it is a good part of a small model's work."""
    context: int = 256
    """Tokens per sample."""
    max_file_bytes: int = 128 * 1024
    """Larger files are left out: one of them would be a large part of a split."""
    max_bytes: int = 4 * 1024 * 1024
    """Bound on all splits together, bytes; bounds the time that tokenizing takes."""
    test_share: float = 0.06
    """Share of the files that are held out for evaluation."""
    validation_share: float = 0.04
    """Share of the files that are watched in training."""
    validation_samples: int = 32
    """Bound on the validation split: it is judged several times in a run."""

    def fingerprint(self) -> str:
        """Hash of every file's path and content, the settings, and the tokenizer's version."""
        settings: dict[str, Any] = {name: value for name, value in asdict(self).items() if name != "root"}
        files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self._chosen().items()}
        content = {"source": "stdlib-text", **settings, "files": files, "tokenizers": _tokenizers_version()}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def load(self, seed: int) -> LoadedData:
        """The split is fixed by the files' paths; the run's `seed` is not used."""
        from tasks.data.tokenizer import tokenizer_files, train_tokenizer

        texts = self._texts()
        tokenizer = train_tokenizer(texts["train"], vocabulary=self.vocabulary)
        splits = {name: pack(texts[name], tokenizer, context=self.context) for name in SPLITS}
        splits["validation"] = _thin_out(splits["validation"], self.validation_samples)
        return LoadedData(splits=splits, classes=[], files=tokenizer_files(tokenizer, context=self.context))

    def _chosen(self) -> dict[str, Path]:
        """The corpus by relative path, sorted; which files come under the bound is decided by their hash."""
        if not self.root.is_dir():
            raise InvalidInput("standard library's source is not there", got=str(self.root), expected="*.py files")
        chosen, total = {}, 0
        for name, path in sorted(_sources(self.root), key=lambda entry: _position(entry[0], salt="choice")):
            size = path.stat().st_size
            if 0 < size <= self.max_file_bytes and total + size <= self.max_bytes:
                chosen[name] = path
                total += size
        return dict(sorted(chosen.items()))

    def _texts(self) -> dict[str, list[str]]:
        texts: dict[str, list[str]] = {name: [] for name in SPLITS}
        for name, path in self._chosen().items():
            texts[self.split_of(name)].append(path.read_bytes().decode("utf-8", errors="replace"))
        if empty := [name for name, found in texts.items() if not found]:
            raise InvalidInput("too few files for three splits", got=f"none for {empty}", expected="a larger max_bytes")
        return texts

    def split_of(self, name: str) -> str:
        """The split of the file at the relative POSIX path `name`."""
        position = _position(name, salt="split")
        if position < self.test_share:
            return "test"
        return "validation" if position < self.test_share + self.validation_share else "train"


def pack(texts: Sequence[str], tokenizer: "Tokenizer", *, context: int) -> Split:
    """Sequences of equal length: `tokens`, `bytes` and `files` as StdlibText describes them; the rest is dropped."""
    from tasks.data.tokenizer import BOS, EOS, token_bytes

    eos = tokenizer.token_to_id(EOS)
    encoded = [[*coded.ids, eos] for coded in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    stream = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded])
    file_of = np.repeat(np.arange(len(encoded), dtype=np.int64), [len(ids) for ids in encoded])
    samples = len(stream) // context
    if samples == 0:
        raise InvalidInput("too little text for a sample", got=f"{len(stream)} tokens", expected=f">= {context}")
    body = stream[: samples * context].reshape(samples, context)
    first = np.full((samples, 1), tokenizer.token_to_id(BOS), dtype=np.int32)
    lengths: NDArray[np.int64] = token_bytes(tokenizer)[body].sum(axis=1)
    return {
        "tokens": np.concatenate([first, body], axis=1),
        "bytes": lengths,
        "files": file_of[: samples * context : context].copy(),
    }


def _thin_out(split: Split, samples: int) -> Split:
    """At most `samples` of the split, evenly spaced."""
    available = len(split["tokens"])
    kept = np.unique(np.linspace(0, available - 1, num=min(samples, available)).round().astype(np.int64))
    return {name: array[kept] for name, array in split.items()}


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Relative POSIX path and path of every module below `root` that belongs to the corpus."""
    for folder, below, names in os.walk(root):
        # Pruned in place: what is left out may hold tens of thousands of files.
        below[:] = sorted(set(below) - _LEFT_OUT)
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(_BUILD_FILES):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path


def _tokenizers_version() -> str:
    """By metadata: importing the package takes longer than hashing the corpus."""
    try:
        return version("tokenizers")
    except PackageNotFoundError as missing:
        raise InvalidInput(
            "tokenizers is not installed", got="no package `tokenizers`", expected="the extra llm-cpu or llm-gpu"
        ) from missing


def _position(name: str, *, salt: str) -> float:
    """A number in [0, 1) that the name alone decides."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{name}".encode()).digest()[:8]) / 2**64
