"""The mock tests of the modules of Google Cloud and Azure, where their providers lie on this machine's disk."""

import subprocess
from pathlib import Path

import pytest

from tests.fakes.terraform_world import INFRA, TerraformWorld, needs_provider

_PROVIDERS = {"gcp": "hashicorp/google", "azure": "hashicorp/azurerm"}
_MODULES = [
    pytest.param(cloud, folder.name, marks=needs_provider(provider), id=f"{cloud}-{folder.name}")
    for cloud, provider in _PROVIDERS.items()
    for folder in sorted((INFRA / "modules" / cloud).iterdir())
    if (folder / "tests").is_dir()
]


@pytest.mark.parametrize(("cloud", "module"), _MODULES)
def test_a_module_passes_its_mock_tests(cloud: str, module: str, tmp_path: Path) -> None:
    world = TerraformWorld(tmp_path, provider=_PROVIDERS[cloud])
    folder = world.root / "modules" / cloud / module
    for command in (["init", "-input=false"], ["validate"], ["test"]):
        done = subprocess.run(
            ["terraform", *command, "-no-color"],
            cwd=folder,
            env=world.environment,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
