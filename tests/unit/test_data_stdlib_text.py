"""The corpus: the same splits everywhere, another hash for another Python, text that survives its tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.errors import InvalidInput
from tasks.data.stdlib_text import StdlibText, pack
from tasks.data.tokenizer import SPECIAL_TOKENS, token_bytes, train_tokenizer
from tasks.recipes.data_source import SPLITS
from tests.fakes.tiny_language import tiny_text


@pytest.fixture
def library(tmp_path: Path) -> StdlibText:
    """A library of sixty small modules beside things that must be left out."""
    for number in range(60):
        name = f"package/module{number}.py" if number % 2 else f"module{number}.py"
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def function_{number}(value):\n    return value + {number}  # é\n" * 12)
    for name in ("test/test_x.py", "site-packages/other.py", "_sysconfigdata_x.py", "package/tests/y.py"):
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left out\n")
    return StdlibText(root=tmp_path / "lib", vocabulary=300, context=32, test_share=0.2, validation_share=0.2)


def test_loading_twice_gives_the_same_bytes(library: StdlibText) -> None:
    one, two = library.load(1), library.load(2)
    assert one.files == two.files
    for name in SPLITS:
        for key, array in one.splits[name].items():
            assert np.array_equal(array, two.splits[name][key])


def test_no_file_is_in_two_splits_and_adding_one_moves_no_other(library: StdlibText) -> None:
    before = {name: library.split_of(name) for name in library._chosen()}
    (library.root / "added.py").write_text("x = 1\n")
    after = {name: library.split_of(name) for name in library._chosen()}
    assert set(before.values()) == set(SPLITS)
    assert set(after) - set(before) == {"added.py"}
    assert {name: after[name] for name in before} == before


def test_tests_vendored_packages_and_build_files_are_left_out(library: StdlibText) -> None:
    assert len(library._chosen()) == 60


def test_the_fingerprint_follows_content_and_settings_but_not_the_place(library: StdlibText, tmp_path: Path) -> None:
    first = library.fingerprint()
    moved = tmp_path / "moved"
    library.root.rename(moved)
    assert replace(library, root=moved).fingerprint() == first
    assert replace(library, root=moved, context=16).fingerprint() != first
    (moved / "module0.py").write_text("patched = True\n")
    assert replace(library, root=moved).fingerprint() != first


def test_the_bound_holds(library: StdlibText) -> None:
    bounded = replace(library, max_bytes=10_000)
    assert 0 < sum(path.stat().st_size for path in bounded._chosen().values()) <= 10_000


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not there"):
        StdlibText(root=tmp_path / "none").fingerprint()


def test_samples_hold_the_text_they_count(library: StdlibText) -> None:
    texts = ["def f(x):\n    return 'é 世界'\n" * 9, "import os\n" * 40]
    tokenizer = train_tokenizer([*texts, *(text for text in library._texts()["train"])], vocabulary=300)
    split = pack(texts, tokenizer, context=16)
    assert split["tokens"].shape == (len(split["bytes"]), 17)
    assert (split["tokens"][:, 0] == SPECIAL_TOKENS.index("<|bos|>")).all()
    eos = SPECIAL_TOKENS.index("<|eos|>")
    stream = split["tokens"][:, 1:].ravel().tolist()
    first = stream[: stream.index(eos)]
    assert tokenizer.decode(first) == texts[0]
    assert token_bytes(tokenizer)[first].sum() == len(texts[0].encode())
    assert split["files"].tolist() == sorted(split["files"].tolist())
    assert set(split["files"].tolist()) == {0, 1}


def test_this_pythons_library_gives_three_splits() -> None:
    text = tiny_text()
    data = text.load(1)
    for name in SPLITS:
        assert len(data.splits[name]["tokens"]) > 0
    assert len(data.splits["validation"]["tokens"]) <= text.validation_samples
    assert max(int(split["tokens"].max()) for split in data.splits.values()) < text.vocabulary


@pytest.mark.parametrize("vocabulary", [100, 5000])
def test_a_vocabulary_that_cannot_be_learned_is_refused(vocabulary: int) -> None:
    with pytest.raises(InvalidInput, match="vocabulary"):
        train_tokenizer(["a few words only"], vocabulary=vocabulary)
