"""An edit of a user's recipe, or of what it imports of its own, is another recipe."""

import sys
from pathlib import Path

import pytest

from serving.errors import InvalidInput
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import fingerprint
from tasks.recipes.sources import sources_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`acme/recipes.py`, which leans on `acme/models/net.py` (in a function) and on `helpers.py` beside `acme`."""
    for name, text in {
        "acme/__init__.py": "",
        "acme/recipes.py": "import helpers\nfrom . import shapes\ndef family():\n    from acme.models.net import Net\n",
        "acme/shapes.py": "import json\n",
        "acme/models/__init__.py": "",
        "acme/models/net.py": "from ..deeper import more\nclass Net: ...\n",
        "acme/deeper/__init__.py": "from acme import recipes\n",
        "acme/deeper/more.py": "",
        "acme/unrelated.py": "",
        "helpers.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("acme", "helpers")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize(
    "edited",
    [
        "acme/__init__.py",
        "acme/recipes.py",
        "acme/shapes.py",
        "acme/models/__init__.py",
        "acme/models/net.py",
        "acme/deeper/__init__.py",
        "acme/deeper/more.py",
        "helpers.py",
    ],
)
def test_an_edit_of_what_the_recipe_leans_on_is_seen(package: Path, edited: str) -> None:
    before = sources_hash("acme.recipes")
    with (package / edited).open("a") as file:
        file.write("\n# edited\n")
    assert sources_hash("acme.recipes") != before


def test_an_edit_of_something_else_is_not(package: Path) -> None:
    before = sources_hash("acme.recipes")
    (package / "acme/unrelated.py").write_text("x = 1")
    assert sources_hash("acme.recipes") == before


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no source file"):
        sources_hash("sys")


def test_the_fingerprint_of_a_users_recipe_holds_its_source(package: Path) -> None:
    recipe = "from examples.recipe import breast_cancer as made\nfrom tasks.recipes.recipe import Recipe\n"
    (package / "mine.py").write_text(recipe + "def mine() -> Recipe:\n    return made()\n")
    first = get_recipe("mine:mine")
    with (package / "mine.py").open("a") as file:
        file.write("# the loss changed\n")
    second = get_recipe("mine:mine")
    assert first.sources != second.sources
    assert fingerprint(first) != fingerprint(second)
    assert get_recipe("resnet-digits").sources == ""
