"""One region's Terraform: its folder, what it was granted, and the values that a run gives it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.driver.errors import InvalidVariable
from infra.policy import Policy, Waiver, load_policy, load_waivers, rule_names
from infra.terraform import Secret, TerraformDriver
from tasks.clusters.errors import UnknownEnvironment
from tasks.clusters.settings import ClusterSettings

_FROM_ENVIRONMENT: Final = "env:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    name: str
    folder: Path
    policy: Policy
    waivers: tuple[Waiver, ...]

    def driver(self, backend: Mapping[str, str], settings: ClusterSettings) -> TerraformDriver:
        """Initialised: each step may run on another machine."""
        driver = TerraformDriver(self.folder)
        driver.init({**settings.backend, **backend})
        return driver


def open_environment(name: str, settings: ClusterSettings) -> Environment:
    known = names(settings)
    if name not in known:
        expected = f"one of {', '.join(known)}" if known else f"a folder in {settings.environments}"
        raise UnknownEnvironment("the region is not known", got=repr(name), expected=expected)
    folder = settings.environments / name
    waivers = folder / "waivers.yaml"
    return Environment(
        name=name,
        folder=folder,
        policy=load_policy(folder / "policy.yaml"),
        waivers=load_waivers(waivers, rule_names()) if waivers.is_file() else (),
    )


def names(settings: ClusterSettings) -> list[str]:
    found = settings.environments.iterdir() if settings.environments.is_dir() else ()
    return sorted(folder.name for folder in found if any(folder.glob("*.tf")))


def values(variables: Mapping[str, str], settings: ClusterSettings) -> dict[str, Any]:
    """JSON where a text is JSON, so that lists and numbers can be given; `env:NAME` is a secret of this process."""
    given = {**settings.variables, **variables}
    return {name: _value(name, text) for name, text in given.items()}


def _value(name: str, text: str) -> Any:
    if text.startswith(_FROM_ENVIRONMENT):
        source = text.removeprefix(_FROM_ENVIRONMENT)
        if source not in os.environ:
            raise InvalidVariable(f"variable {name} is not there", got=f"no {source}", expected=f"{source} in the task")
        return Secret(os.environ[source])
    try:
        return json.loads(text)
    except ValueError:
        return text
