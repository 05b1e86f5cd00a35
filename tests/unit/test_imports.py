"""What importing costs and must never break."""

import subprocess
import sys
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent.parent


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=_PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_standard_library_keeps_its_operator_module() -> None:
    script = "import sys; sys.path.insert(0, '.'); import collections, operator; print(operator.itemgetter(0)([7]))"
    assert _run(script) == "7"
    assert not (_PROJECT / "operator" / "__init__.py").exists()


def test_importing_the_workflows_loads_nothing_heavy() -> None:
    # flytekit puts a lazy stand-in for `ray` into sys.modules; `ray._raylet` is there once Ray is really loaded.
    script = (
        "import sys, pkgutil, importlib, workflows\n"
        "for module in pkgutil.iter_modules(workflows.__path__):\n"
        "    importlib.import_module(f'workflows.{module.name}')\n"
        "heavy = ['torch', 'ray._raylet', 'onnxruntime', 'onnx', 'vllm', 'transformers', 'sklearn', 'matplotlib']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    assert _run(script) == "[]"


def test_a_gateway_and_an_agent_load_no_machine_learning() -> None:
    script = (
        "import sys, serving.gateway.app, serving.regions.agent\n"
        "heavy = ['torch', 'ray', 'onnxruntime', 'onnx', 'vllm', 'sklearn', 'flytekit', 'pandas']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    assert _run(script) == "[]"
