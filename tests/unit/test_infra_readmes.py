"""Each module's README says what its files say, and shows an example that runs."""

from pathlib import Path

import pytest

from infra.modules.document import BEGIN, UndocumentedModule, document, main, module_folders

_FOLDERS = [pytest.param(folder, id=f"{folder.parent.name}-{folder.name}") for folder in module_folders()]

_VARIABLE = 'variable "name" {\n  description = "A name | or two."\n  type = string\n  default = "x"\n}\n'


@pytest.mark.parametrize("folder", _FOLDERS)
def test_a_readme_is_current_and_has_an_example(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text == document(folder), "python -m infra.modules.document writes it anew"
    written, _, generated = text.partition(BEGIN)
    assert len(written.split()) > 20, f"{folder}: nobody has said what it is for"
    assert "## Example" in generated


@pytest.mark.parametrize("folder", _FOLDERS)
def test_a_module_has_the_files_that_every_module_has(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.tf")}
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "examples/basic/main.tf"} <= names
    assert list((folder / "tests").glob("*.tftest.hcl")), f"{folder} has no mock tests"


def test_what_people_wrote_stays_and_tables_follow_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "variables.tf").write_text(_VARIABLE)
    (tmp_path / "README.md").write_text("# mine\n\nWritten by hand.\n")
    assert main(["--check", str(tmp_path)]) == 1
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"# mine\n\nWritten by hand.\n\n{BEGIN}")
    assert '| `name` | A name \\| or two. | `string` | `"x"` |' in text
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "variables.tf").write_text(_VARIABLE.replace('"x"', '"y"'))
    assert main(["--check", str(tmp_path)]) == 1
    assert "not current" in capsys.readouterr().out


def test_a_variable_without_a_description_is_refused(tmp_path: Path) -> None:
    (tmp_path / "variables.tf").write_text('variable "name" {\n  type = string\n}\n')
    with pytest.raises(UndocumentedModule, match="name of"):
        document(tmp_path)
