"""Terraform with providers from this machine's disk, and copies of our modules and environments to run it in.

Providers come from a mirror in Terraform's own layout: the first of FLIGHTPATH_TERRAFORM_MIRROR, /opt/tf-plugins and
Terraform's usual folders that holds one. Nothing is downloaded. Copies get files named `*_override.tf`, which Terraform
merges over ours: the endpoints of moto, and what moto gets wrong. The checkout is never written to.
"""

import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from infra.terraform import Limits, TerraformDriver

PROJECT: Final = Path(__file__).resolve().parents[2]
INFRA: Final = PROJECT / "infra"
OVERRIDES: Final = Path(__file__).resolve().parent / "moto_overrides"
MOCKS: Final = Path(__file__).resolve().parent / "mock_overrides"
AWS: Final = "hashicorp/aws"
PROVIDERS: Final = {"aws": AWS, "gcp": "hashicorp/google", "azure": "hashicorp/azurerm"}
"""By cloud."""
_MIRRORS: Final = ("/opt/tf-plugins", "~/.terraform.d/plugins", "/usr/local/share/terraform/plugins")

LIMITS: Final = Limits(
    init=timedelta(minutes=3), plan=timedelta(minutes=5), apply=timedelta(minutes=10), read=timedelta(minutes=2)
)

VALUES: Final[Mapping[str, Any]] = {"cost_center": "research", "notify_emails": ["ml-platform@example.com"]}
"""Variables that every regional environment wants."""


def provider_mirror(provider: str = AWS) -> Path | None:
    """The folder with `registry.terraform.io/<provider>` in it."""
    for name in (os.environ.get("FLIGHTPATH_TERRAFORM_MIRROR", ""), *_MIRRORS):
        folder = Path(name).expanduser()
        if name and any(folder.glob(f"*/{provider}/*/*/terraform-provider-*")):
            return folder
    return None


def provider_binary(provider: str = AWS) -> Path:
    mirror = provider_mirror(provider)
    assert mirror is not None, "use needs_provider()"
    return next(mirror.glob(f"*/{provider}/*/*/terraform-provider-*"))


def needs_provider(provider: str = AWS) -> pytest.MarkDecorator:
    """Skips where Terraform or the provider is not on this machine."""
    if shutil.which("terraform") is None:
        return pytest.mark.skipif(True, reason="needs the terraform binary")
    reason = f"needs the provider {provider} in a mirror on the disk: none in FLIGHTPATH_TERRAFORM_MIRROR, {_MIRRORS}"
    return pytest.mark.skipif(provider_mirror(provider) is None, reason=reason)


class TerraformWorld:
    """A folder with copies of `infra/modules` and `infra/environments`, and the environment that Terraform runs in."""

    def __init__(self, root: Path, *, provider: str = AWS, cloud: Mapping[str, str] | None = None) -> None:
        """`cloud`: variables of the emulated cloud, such as `MotoServer.environment`."""
        self.root = root
        mirror = provider_mirror(provider)
        assert mirror is not None, "use needs_provider()"
        root.mkdir(parents=True, exist_ok=True)
        settings = root / "terraformrc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
        self.environment = {**kept, "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1", **(cloud or {})}
        ignored = shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*", "__pycache__", "*.py")
        shutil.copytree(INFRA / "modules", root / "modules", ignore=ignored)
        shutil.copytree(INFRA / "environments", root / "environments", ignore=ignored)

    def for_moto(self) -> "TerraformWorld":
        """Merges what moto wants into every module and root; docs/infra-proof.md lists it."""
        for override in OVERRIDES.glob("*.tf"):
            shutil.copy(override, self.root / "modules" / "aws" / override.stem / "moto_override.tf")
        for folder in (self.root / "environments").iterdir():
            if 'provider "aws"' in "".join(path.read_text() for path in folder.glob("*.tf")):
                shutil.copy(OVERRIDES / "provider.tf.part", folder / "moto_override.tf")
        return self

    def for_mocks(self) -> "TerraformWorld":
        """Puts in the place of a file what mocks can stand in for; each such file says why."""
        for replacement in MOCKS.glob("*.tf"):
            module, _, name = replacement.name.partition("_")
            shutil.copy(replacement, self.root / "modules" / "aws" / module / name)
        return self

    def driver(
        self, folder: str, *, environment: Mapping[str, str] | None = None, limits: Limits = LIMITS
    ) -> TerraformDriver:
        """Of a folder of the copy, for example environments/us-east. `environment`: more variables for this one."""
        merged = {**self.environment, **(environment or {})}
        return TerraformDriver(self.root / folder, environment=merged, limits=limits)

    def root_of(self, name: str, text: str) -> Path:
        """A root of the test's own beside the environments: its modules are ../../modules/…"""
        folder = self.root / "environments" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.tf").write_text(text)
        shutil.copy(OVERRIDES / "provider.tf.part", folder / "moto_override.tf")
        return folder


def state_in(bucket: str) -> dict[str, str]:
    """`backend_config` of an S3 backend that is moto; the environments leave bucket and region to their caller."""
    skips = ("skip_credentials_validation", "skip_requesting_account_id", "skip_metadata_api_check")
    return {"bucket": bucket, "region": "us-east-1", "use_path_style": "true", "max_retries": "1"} | dict.fromkeys(
        skips, "true"
    )
