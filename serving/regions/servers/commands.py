"""The engines a region can run: their command lines, environment, readiness, and what a release may not ask of them.

A release brings arguments and environment of its own. What decides where a server listens, what it
serves and which code it loads stays with the region: such arguments are refused when the release is
ordered, and the region's own come last, where they win.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.bundle import read_manifest
from serving.errors import InvalidInput, NotFound
from serving.releases import RuntimeSpec

HOST: Final = "127.0.0.1"
_DRAIN_S: Final = 5
"""How long vLLM may finish what runs after SIGTERM; the gateway has drained it before, so this is for the odd one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """How one runtime is started. Words of `before` and `after` may hold places such as `{port}`."""

    before: list[str]
    """The command up to the release's arguments."""
    after: list[str] = field(default_factory=list)
    """What follows the release's arguments and overrides them."""
    ready_path: str = "/v2/health/ready"
    work_metrics: str = ""
    """How the names of metrics begin that move with each run of the model, and only with one; empty: it has none."""
    environment: dict[str, str] = field(default_factory=dict)
    """Overrides the release's environment; may hold `{caches}`."""
    defaults: dict[str, str] = field(default_factory=dict)
    """What the release's environment may override; may hold `{caches}`."""
    refused: frozenset[str] = frozenset()
    """Arguments, without dashes, that a release must not bring."""


_ONNXRUNTIME: Final = Engine(
    before=[sys.executable, "-m", "serving.engines.server"],
    after=[
        *("--model", "{model}", "--version", "{version}", "--bundle", "{bundle}", "--variant", "{variant}"),
        *("--host", "{host}", "--port", "{port}"),
    ],
    # Not its requests: one that is refused by a full queue is counted there too.
    work_metrics="flightpath_engine_batch_rows",
    refused=frozenset({"model", "version", "bundle", "variant", "host", "port"}),
)
_VLLM: Final = Engine(
    before=[
        *(sys.executable, "-m", "serving.engines.verified", "--bundle", "{bundle}", "--variant", "{variant}", "--"),
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "{entry}"),
    ],
    after=[
        *("--served-model-name", "{model}", "--host", "{host}", "--port", "{port}"),
        *("--shutdown-timeout", str(_DRAIN_S)),
    ],
    ready_path="/health",
    # A long prompt is read in many steps, of which the use of the cache tells and no counter of tokens or requests.
    work_metrics="vllm:",
    environment={
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CACHE_ROOT": "{caches}/vllm",
        "HF_HOME": "{caches}/huggingface",
        "XDG_CACHE_HOME": "{caches}/xdg",
        "XDG_CONFIG_HOME": "{caches}/xdg-config",
        "TORCHINDUCTOR_CACHE_DIR": "{caches}/inductor",
    },
    defaults={
        # vLLM on a CPU takes half of the machine's memory for its cache unless told otherwise, in GiB.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # It also pins every server to the same first cores, where a busy one keeps the next from starting.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_LOGGING_LEVEL": "WARNING",
    },
    refused=frozenset(
        {
            *(
                "model",
                "served-model-name",
                "host",
                "port",
                "uds",
                "grpc",
                "grpc-port",
                "root-path",
                "shutdown-timeout",
            ),
            # Files and modules that vLLM would run or read from outside the bundle.
            *("config", "trust-remote-code", "middleware", "tool-parser-plugin", "reasoning-parser-plugin"),
            *("io-processor-plugin", "worker-cls", "worker-extension-cls", "logits-processors", "tokenizer"),
            *("hf-config-path", "download-dir", "lora-modules", "allowed-local-media-path", "scheduler-cls"),
            *("kv-transfer-config", "ec-transfer-config", "kv-events-config", "additional-config"),
            # A key or a certificate would shut the region's own gateway out, or end up in a process list.
            *("api-key", "hf-token", "ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "headless", "api-server-count"),
        }
    ),
)
BUILTIN: Final[Mapping[str, Engine]] = {"onnxruntime": _ONNXRUNTIME, "vllm": _VLLM}


def known_engines(runtimes: Mapping[str, list[str]]) -> frozenset[str]:
    return frozenset({*BUILTIN, *runtimes})


def find_engine(name: str, runtimes: Mapping[str, list[str]]) -> Engine:
    """The topology file's runtime of this name, else the built-in one; raises NotFound."""
    if name in runtimes:
        return Engine(before=runtimes[name])
    if name not in BUILTIN:
        raise NotFound("unknown engine", got=name, expected=" | ".join(sorted(known_engines(runtimes))))
    return BUILTIN[name]


def engine_of(name: str, runtimes: Mapping[str, list[str]]) -> Engine:
    """The engine of a server that runs: it may outlive its topology file's entry, and is then asked as any other."""
    return find_engine(name, runtimes) if name in known_engines(runtimes) else Engine(before=[])


def check_runtime(runtime: RuntimeSpec, runtimes: Mapping[str, list[str]]) -> None:
    """Refuse an unknown engine (NotFound) and arguments that are not a release's to set (InvalidInput)."""
    engine = find_engine(runtime.engine, runtimes)
    for argument in runtime.arguments:
        name = argument.partition("=")[0].lstrip("-").replace("_", "-").partition(".")[0].removeprefix("no-")
        # argparse takes any unambiguous beginning of an option for the option.
        taken = [word for word in sorted(engine.refused) if name and word.startswith(name)]
        if argument == "--" or (argument.startswith("--") and taken):
            expected = (
                f"an argument other than {', '.join(f'--{word}' for word in taken) or '--'}, which the region sets"
            )
            raise InvalidInput(f"argument of engine {runtime.engine} is refused", got=argument, expected=expected)


def command_line(
    runtime: RuntimeSpec, *, model: str, version: int, bundle: Path, port: int, runtimes: Mapping[str, list[str]]
) -> list[str]:
    """The engine's command with its places filled in; raises what `check_runtime` and `read_manifest` raise."""
    check_runtime(runtime, runtimes)
    engine = find_engine(runtime.engine, runtimes)
    places = {
        "{bundle}": str(bundle),
        "{model}": model,
        "{version}": str(version),
        "{variant}": runtime.variant,
        "{host}": HOST,
        "{port}": str(port),
    }
    if "{entry}" in engine.before:
        places["{entry}"] = str(bundle / read_manifest(bundle).variant(runtime.variant).entry)
    before, after = ([_fill(word, places) for word in words] for words in (engine.before, engine.after))
    return [*before, *runtime.arguments, *after]


def engine_environment(runtime: RuntimeSpec, *, caches: Path, runtimes: Mapping[str, list[str]]) -> dict[str, str]:
    """The engine's defaults, the release's environment, and what the engine's own overrides."""
    engine, places = find_engine(runtime.engine, runtimes), {"{caches}": str(caches)}
    own = {name: _fill(value, places) for name, value in engine.environment.items()}
    defaults = {name: _fill(value, places) for name, value in engine.defaults.items()}
    return {**defaults, **runtime.environment, **own}


def _fill(word: str, places: Mapping[str, str]) -> str:
    """One pass, so that a value that looks like a place is not filled again."""
    return re.sub("|".join(map(re.escape, places)), lambda match: places[match.group()], word)
