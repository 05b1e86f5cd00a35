"""Saved plan files: private from their first byte, and applied only while they are what was reviewed."""

import hashlib
import os
import tempfile
from pathlib import Path

from infra.driver.errors import StalePlan
from infra.driver.inputs import configuration_sha256
from infra.driver.plan import Plan


def new_plan_path(working_dir: Path) -> Path:
    """An empty file of mode 0600: Terraform keeps the mode of a file that is there."""
    fd, name = tempfile.mkstemp(dir=working_dir / ".terraform" / "flightpath", suffix=".tfplan")
    os.close(fd)
    return Path(name)


def require_fresh(plan: Plan, working_dir: Path) -> None:
    """Raises StalePlan unless file and configuration are those of the plan; Terraform itself checks the state."""
    if not plan.path.is_file():
        raise StalePlan("the saved plan is gone", got=plan.path, expected="a plan that was not applied yet")
    checks = (
        ("the plan file is another one", sha256(plan.path), plan.sha256),
        ("the configuration changed", configuration_sha256(working_dir), plan.configuration_sha256),
    )
    for what, got, expected in checks:
        if got != expected:
            raise StalePlan(f"{what} since the plan; plan again", got=got[:12], expected=expected[:12])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
