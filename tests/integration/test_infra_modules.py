"""Each module passes its own mock tests, and its example and the environments are valid, by the providers' schemas."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.fakes.terraform_provider import shared_provider
from tests.fakes.terraform_world import INFRA, PROVIDERS, TerraformWorld, needs_provider, provider_binary

_MODULES = [
    (cloud, f"modules/{cloud}/{tests.parent.name}")
    for cloud in PROVIDERS
    for tests in sorted((INFRA / "modules" / cloud).glob("*/tests"))
]
_EPHEMERAL = {"modules/gcp/database", "modules/azure/database"}
_ENVIRONMENTS = {"gcp-europe-west": "gcp", "azure-west-europe": "azure"}
_ROOTS = [
    *((cloud, f"{module}/examples/basic") for cloud, module in _MODULES),
    *(
        (_ENVIRONMENTS.get(folder.name, "aws"), f"environments/{folder.name}")
        for folder in sorted((INFRA / "environments").iterdir())
    ),
]


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TerraformWorld]:
    provider = PROVIDERS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    with shared_provider(provider_binary(provider), root) as environment:
        yield TerraformWorld(root / "world", provider=provider, cloud=environment).for_mocks()


_UNMOCKED = pytest.mark.skip(reason="Terraform 1.11 mocks no ephemeral resource, and nothing stands in for this one's")


def of_each(named: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """The cloud's world and a name, skipped where the cloud's provider is not on this machine."""
    params = [pytest.param(cloud, name, marks=needs_provider(PROVIDERS[cloud]), id=name) for cloud, name in named]
    return pytest.mark.parametrize(("world", "name"), params, indirect=["world"])


def run(world: TerraformWorld, folder: str, *command: str) -> None:
    done = subprocess.run(
        ["terraform", *command, "-no-color"],
        cwd=world.root / folder,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@of_each(_MODULES)
def test_a_module_passes_its_mock_tests(world: TerraformWorld, name: str) -> None:
    run(world, name, "init", "-input=false")
    run(world, name, "test")


@of_each(_ROOTS)
def test_an_example_or_environment_is_valid(world: TerraformWorld, name: str) -> None:
    run(world, name, "init", "-input=false", "-backend=false")
    run(world, name, "validate")
