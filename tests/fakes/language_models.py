"""A tiny Llama with random weights, made on the spot, and the real `vllm serve` that serves it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.fakes.models import wait_until_ready

SPECIAL = ("<s>", "</s>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CONTEXT_TOKENS = 8192
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte and two special ones: any text can be said."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1])
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def write_llama(
    folder: Path, *, seed: int = 0, hidden: int = 64, layers: int = 2, context_tokens: int = CONTEXT_TOKENS
) -> None:
    """A Hugging Face checkpoint, float32; about 100,000 parameters by default."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=context_tokens,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


QUICK = ("--dtype", "float32", "--enforce-eager")
"""Arguments for a server of the tests' own models."""


class VllmServer:
    """`vllm serve` in a session of its own, which `end` kills whole."""

    def __init__(self, model: Path, name: str, port: int, log: Path, arguments: Sequence[str] = QUICK) -> None:
        command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model), "--served-model-name", name]
        command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**environment, **_OFFLINE}, start_new_session=True
            )

    def wait(self, *, timeout_s: float = 180.0) -> None:
        """Until it is ready; what it logged is in the error if it never is."""
        try:
            wait_until_ready(f"{self.url}/health", self.process, timeout_s=timeout_s)
        except AssertionError as failed:
            raise AssertionError(f"{failed}: {self._log.read_text()[-3000:]}") from failed

    def engines(self) -> list[psutil.Process]:
        """The processes that compute; the one that speaks HTTP is not among them."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if _is_engine(child)]

    def requests_running(self) -> float:
        """How many the engine works on, by what it told last."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 10
        while _group_lives(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_engine(process: psutil.Process) -> bool:
    try:
        return "EngineCore" in f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return False


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
