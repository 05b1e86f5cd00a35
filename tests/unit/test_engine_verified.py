"""A server that does not check by itself starts on a bundle that holds, or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.bundle import Attestation, Manifest, Variant, describe_file, seal
from serving.credentials import SigningKey

SHOW = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], os.environ['MARK']]))"


@pytest.fixture
def bundle(tmp_path: Path, signing_key: SigningKey) -> Path:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    files = [describe_file(folder, "model/config.json")]
    variant = Variant(name="vllm", runtime="vllm", entry="model", files=files)
    manifest = Manifest(name="m", family="llama", inputs=[], outputs=[], variants=[variant])
    attestation = Attestation(bundle_name="m", bundle_digest=manifest.digest, lineage={}, measurements=[])
    seal(folder, manifest, attestation, signing_key)
    return folder


def start(bundle: Path, *command: str) -> subprocess.Popen[bytes]:
    own = [sys.executable, "-m", "serving.engines.verified", "--bundle", str(bundle), "--variant", "vllm"]
    return subprocess.Popen(
        [*own, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "MARK": "ours"}
    )


def test_the_command_takes_the_process_over_with_its_arguments_as_given(bundle: Path) -> None:
    arguments = ["--dtype", "float32", "--", "a b", "--bundle=x"]
    process = start(bundle, sys.executable, "-c", SHOW, *arguments)
    out, _ = process.communicate(timeout=50)
    assert json.loads(out) == [process.pid, arguments, "ours"]


@pytest.mark.parametrize("damage", ["flip", "add"])
def test_a_bundle_that_does_not_hold_is_one_line_and_no_server(bundle: Path, tmp_path: Path, damage: str) -> None:
    name, content = ("config.json", "[]") if damage == "flip" else ("chat_template.jinja", "evil")
    (bundle / "model" / name).write_text(content)
    process = start(bundle, "touch", str(tmp_path / "started"))
    _, err = process.communicate(timeout=50)
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith("error: ")
    assert name in line
    assert not (tmp_path / "started").exists()


def test_a_command_that_is_not_there_is_one_line(bundle: Path) -> None:
    process = start(bundle, "/nowhere/vllm")
    _, err = process.communicate(timeout=50)
    assert (process.returncode, len(err.splitlines())) == (1, 1)


def test_no_command_is_an_error_of_usage(bundle: Path) -> None:
    process = start(bundle)
    _, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert b"no command after --" in err
