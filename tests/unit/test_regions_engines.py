"""Command lines and environments of engines: what a release may bring, and what stays the region's."""

import sys
from pathlib import Path

import pytest

from serving.bundle import Attestation, Manifest, Variant, describe_file, seal
from serving.credentials import SigningKey
from serving.errors import InvalidInput, NotFound
from serving.regions.servers.commands import check_runtime, command_line, engine_environment
from serving.releases import Release, RuntimeSpec


def make_command(runtime: RuntimeSpec, bundle: Path, **runtimes: list[str]) -> list[str]:
    return command_line(runtime, model="m", version=1, bundle=bundle, port=4321, runtimes=runtimes)


@pytest.fixture
def llm_bundle(tmp_path: Path, signing_key: SigningKey) -> Path:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    files = [describe_file(folder, "model/config.json")]
    variants = [Variant(name="vllm", runtime="vllm", entry="model", files=files)]
    manifest = Manifest(name="m", family="llama", inputs=[], outputs=[], variants=variants)
    seal(
        folder,
        manifest,
        Attestation(bundle_name="m", bundle_digest=manifest.digest, lineage={}, measurements=[]),
        signing_key,
    )
    return folder


def test_the_onnxruntime_command_is_the_one_of_the_documentation(tmp_path: Path) -> None:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    assert make_command(runtime, tmp_path / "bundle")[1:] == (
        f"-m serving.engines.server --model m --version 1 --bundle {tmp_path}/bundle --variant v "
        "--host 127.0.0.1 --port 4321"
    ).split(" ")


def test_vllm_serves_the_variants_entry_and_the_regions_arguments_come_last(llm_bundle: Path) -> None:
    runtime = RuntimeSpec(engine="vllm", variant="vllm", arguments=["--max-model-len", "512"])
    assert make_command(runtime, llm_bundle) == [
        *(sys.executable, "-m", "serving.engines.verified", "--bundle", str(llm_bundle), "--variant", "vllm", "--"),
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(llm_bundle / "model")),
        *("--max-model-len", "512"),
        *("--served-model-name", "m", "--host", "127.0.0.1", "--port", "4321", "--shutdown-timeout", "5"),
    ]


def test_vllm_is_offline_whatever_its_release_says(tmp_path: Path) -> None:
    given = {"HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "3", "VLLM_CACHE_ROOT": "/elsewhere"}
    runtime = RuntimeSpec(engine="vllm", variant="vllm", environment=given)
    environment = engine_environment(runtime, caches=tmp_path, runtimes={})
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    assert {environment[name] for name in offline} == {"1"}
    assert (environment["OMP_NUM_THREADS"], environment["VLLM_CPU_KVCACHE_SPACE"]) == ("3", "1")
    caches = ("VLLM_CACHE_ROOT", "HF_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
    assert {Path(environment[name]).parent for name in caches} == {tmp_path}


@pytest.mark.parametrize(
    "argument",
    [
        *("--host", "--host=0.0.0.0", "--port", "--hos=0.0.0.0", "--trust-remote-code", "--trust_remote_code", "--"),
        *("--middleware", "--config=x.yaml", "--api-key", "--no-trust-remote-code", "--kv-transfer-config.x=1"),
    ],
)
def test_a_release_cannot_take_the_regions_arguments(argument: str) -> None:
    runtime = RuntimeSpec(engine="vllm", variant="vllm", arguments=[argument])
    with pytest.raises(InvalidInput, match="argument of engine vllm is refused, got --"):
        check_runtime(runtime, {})


def test_arguments_that_only_look_alike_are_allowed() -> None:
    fine = ["--max-model-len", "512", "--tokenizer-mode", "auto", "--model-impl", "vllm", "-O0", "--dtype=float32"]
    check_runtime(RuntimeSpec(engine="vllm", variant="vllm", arguments=fine), {})


def test_an_unknown_engine_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"unknown engine, got abacus, expected onnxruntime \| vllm"):
        make_command(RuntimeSpec(engine="abacus", variant="v"), tmp_path)


def test_a_value_that_looks_like_a_place_is_not_filled_again(tmp_path: Path) -> None:
    runtime = RuntimeSpec(engine="x", variant="{port}", arguments=["{port}"])
    assert make_command(runtime, tmp_path, x=["run", "{variant}:{port}"]) == ["run", "{port}:4321", "{port}"]


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PATH", "BASH_ENV", "FLIGHTPATH_HOME"),
        *("ld_audit", "VLLM_PLUGINS", "GLIBC_TUNABLES", "HTTPS_PROXY", "VLLM_ALLOW_INSECURE_SERIALIZATION"),
    ],
)
def test_a_release_cannot_set_variables_that_decide_which_code_runs(name: str) -> None:
    raw = {"engine": "vllm", "variant": "vllm", "environment": {name: "x"}}
    release = {"id": "r", "model": "m", "bundle_digest": "sha256:0", "store_uri": "memory://s", "runtime": raw}
    with pytest.raises(InvalidInput, match=f"variable of the runtime is refused, got {name}"):
        Release.from_json(release)


@pytest.mark.parametrize(
    "runtime",
    [
        {"arguments": ["x"] * 65},
        {"arguments": ["x" * 4097]},
        {"arguments": "--host"},
        {"arguments": [1]},
        {"environment": {"A": "x" * 4097}},
        {"environment": {"A=B": "x"}},
        {"environment": {f"A{n}": "" for n in range(65)}},
        {"environment": {"A": 1}},
    ],
)
def test_arguments_and_environment_are_bounded(runtime: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        RuntimeSpec(engine="vllm", variant="vllm", **runtime)  # type: ignore[arg-type]
