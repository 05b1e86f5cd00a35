"""Overlays as kubectl builds them. Before 1.27 its Kustomize knows neither components nor replacements."""

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

_OLDEST = 5


@functools.cache
def why_not() -> str:
    """Why nothing can be built here; empty if it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is missing: it builds the overlays"
    asked = ["kubectl", "version", "--client", "--output=json"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    version = json.loads(done.stdout or "{}").get("kustomizeVersion", "v0")
    major = int(version.removeprefix("v").partition(".")[0])
    return "" if major >= _OLDEST else f"kubectl's Kustomize is {version}: kubectl 1.27 or later has v5"


@functools.cache
def build(folder: Path) -> tuple[dict[str, Any], ...]:
    """Every object of an overlay."""
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
