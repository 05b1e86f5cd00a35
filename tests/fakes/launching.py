"""Launchers as a driver's process uses them.

Ray and elastic's rendezvous listen on every interface, so they run in a network namespace of their own where an
ordinary process may make one.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tasks.artifacts import Dataset

ROOT = Path(__file__).resolve().parents[2]

TRAIN_BY_ELASTIC = """
import json, sys
from dataclasses import asdict
from tasks.artifacts import Dataset, ReleasePlan
from tasks.training.elastic_task import train_elastic

store, dataset, recipe, overrides = sys.argv[1:]
plan = ReleasePlan(
    release_id="rel", recipe=recipe, seed=1, store_uri=store, regions=["us-east"], code_version="c", data_hash="d",
    overrides=overrides,
)
print(json.dumps(asdict(train_elastic(plan=plan, dataset=Dataset(**json.loads(dataset))))))
"""
"""Arguments: store, data set, recipe, overrides; prints the checkpoint."""


def isolated(command: list[str]) -> list[str]:
    """The command in a network namespace with nothing but loopback, or the bare command."""
    if shutil.which("unshare") and shutil.which("ip"):
        inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        for flags in (["-n"], ["-rn"]):
            if subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0:
                return ["unshare", *flags, *inside]
    return command


def described(dataset: Dataset) -> str:
    return json.dumps({"uri": dataset.uri, "sha256": dataset.sha256, "samples": dataset.samples})


def run_script(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """A script with arguments, whose state root is `home`."""
    environment = {**os.environ, "FLIGHTPATH_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        isolated([sys.executable, "-c", *arguments]),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
