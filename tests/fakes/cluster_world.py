"""A region that Terraform provisions without any provider: terraform_data stands for its resources.

The workflow, the policy, the driver and Terraform itself are real; the cloud is not there.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tasks.clusters.settings import ClusterSettings

PROJECT: Final = Path(__file__).resolve().parents[2]
REGION: Final = "north"

CONFIGURATION: Final = """
variable "size" {
  type    = number
  default = 1
}
variable "name" {
  type    = string
  default = "first"
}
variable "password" {
  type      = string
  sensitive = true
  default   = "none"
}
resource "terraform_data" "nodes" { input = var.size }
resource "terraform_data" "store" {
  input            = var.password
  triggers_replace = var.name
}
output "size" { value = var.size }
"""
POLICY: Final = {
    "schema_version": 1,
    "cost_ceiling_usd": {"least": 0, "most": 0},
    "gpu_quota": {},
    "stateful_types": ["terraform_data"],
}


@dataclass(frozen=True)
class ClusterWorld:
    root: Path

    @classmethod
    def made(cls, root: Path, configuration: str = CONFIGURATION) -> "ClusterWorld":
        world = cls(root)
        world.folder.mkdir(parents=True)
        (world.folder / "main.tf").write_text(configuration)
        world.write_policy(POLICY)
        return world

    @property
    def folder(self) -> Path:
        return self.root / "environments" / REGION

    @property
    def gitops(self) -> Path:
        return self.root / "gitops"

    def write_policy(self, policy: dict[str, Any], waivers: list[dict[str, Any]] | None = None) -> None:
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(policy))
        if waivers is not None:
            (self.folder / "waivers.yaml").write_text(yaml.safe_dump({"waivers": waivers}))

    def write_overlay(self, part: str, *resources: Path) -> None:
        """Kustomize takes folders from anywhere, by a relative path."""
        folder = self.gitops / "overlays" / REGION / part
        folder.mkdir(parents=True)
        paths = [os.path.relpath(path, folder) for path in resources]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": paths}))

    def settings(self, **more: Any) -> ClusterSettings:
        return ClusterSettings(environments=self.root / "environments", gitops=self.gitops, **more)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLIGHTPATH_", "TF_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        folders = {"ENVIRONMENTS": self.root / "environments", "GITOPS": self.gitops}
        mine = {f"FLIGHTPATH_INFRA_{name}": str(folder) for name, folder in folders.items()}
        return {**kept, **mine, "FLIGHTPATH_HOME": str(self.root / "home")}

    def pyflyte(
        self, workflow: str, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", "workflows/clusters.py"]
        return subprocess.run(
            [*command, workflow, *arguments],
            cwd=PROJECT,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
