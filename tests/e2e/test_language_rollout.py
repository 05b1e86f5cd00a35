"""Real vLLM through a promotion: its golden set, replayed completions, and a killed API server."""

import asyncio
import contextlib
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from serving.bundle import Attestation, GoldenSet, Manifest, Variant, describe_file, seal
from serving.credentials import SigningKey
from serving.processes import read_records
from serving.regions.places.topology import Topology
from serving.regions.servers.server_process import MARK
from serving.store import ArtifactStore
from tests.fakes.language_models import write_llama
from tests.fakes.regions import (
    client,
    finished,
    make_order,
    make_topology,
    part,
    running_regions,
    server_names,
    settled,
)

TEXTS = ("import os\nimport sys\n\ndef main():\n    return 0\n", "class Stack:\n    def push(self, item): ...\n")
ARGUMENTS = ["--max-model-len", "256", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]


def describe_text(text: str, tokenizer: Any, model: LlamaForCausalLM) -> dict[str, Any]:
    """What the FP32 reference makes of a text, as docs/api.md has it."""
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        scores = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].float(), dim=-1)
    best = scores.topk(2, dim=-1).values
    nats = scores.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).sum().item()
    return {
        **{"text": text, "token_ids": ids, "logprob_sum": nats, "bytes": len(text.encode())},
        **{"top": scores.argmax(-1).tolist(), "margins": (best[:, 0] - best[:, 1]).tolist()},
    }


def write_golden(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
    model = LlamaForCausalLM.from_pretrained(folder / "model", local_files_only=True, dtype=torch.float32).eval()
    texts = [describe_text(text, tokenizer, model) for text in TEXTS]
    messages = [{"role": "user", "content": "def add(a, b):"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    nats = -sum(text["logprob_sum"] for text in texts)
    tokens, size = sum(len(text["top"]) for text in texts), sum(text["bytes"] for text in texts)
    figures = {"perplexity": math.exp(nats / tokens), "bits_per_byte": nats / math.log(2) / size}
    chats = [{"messages": messages, "token_ids": list(rendered["input_ids"])}]
    golden = {"schema_version": 1, "texts": texts, "chats": chats, **figures}
    # Random weights lead nowhere by much: a small margin, so that there is something to compare.
    (folder / "golden.json").write_text(json.dumps({**golden, "max_perplexity_ratio": 1.1, "min_margin": 0.05}))


def make_release(root: Path, topology: Topology, id: str) -> dict[str, Any]:
    folder = root / f"bundle-{id}"
    write_llama(folder / "model")
    write_golden(folder)
    files = [describe_file(folder, f"model/{path.name}") for path in sorted((folder / "model").iterdir())]
    manifest = Manifest(
        name="llama-tiny",
        family="llama",
        inputs=[],
        outputs=[],
        variants=[Variant(name="vllm", runtime="vllm", entry="model", files=files)],
        golden=GoldenSet(
            kind="language-model", file=describe_file(folder, "golden.json"), samples=2, reference_accuracy=0.0
        ),
    )
    attestation = Attestation(bundle_name="llama-tiny", bundle_digest=manifest.digest, lineage={}, measurements=[])
    seal(folder, manifest, attestation, SigningKey.ensure(topology.key_folder))
    store = ArtifactStore((root / "store").as_uri())
    runtime = {"engine": "vllm", "variant": "vllm", "arguments": ARGUMENTS, "environment": {"OMP_NUM_THREADS": "1"}}
    return {
        **{"id": id, "model": "llama-tiny", "bundle_digest": store.put_bundle(folder)},
        **{"store_uri": store.uri, "runtime": runtime},
    }


async def complete(topology: Topology) -> tuple[int, str | None]:
    body = {"model": "llama-tiny", "prompt": "import ", "max_tokens": 3}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{topology.home.gateway_url}/v1/completions", json=body) as response,
    ):
        return response.status, response.headers.get("x-flightpath-release")


def marked(topology: Topology) -> list[psutil.Process]:
    """Living processes of model servers, with all that they have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mark = process.environ().get(MARK, "")
            if mark.startswith(str(topology.home.state_folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.timeout(1200)
async def test_a_language_model_goes_live_and_is_back_after_kill_9(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    policy = {"start_timeout_s": 600.0, "step_timeout_s": 120.0}
    async with running_regions(topology):
        good = make_release(tmp_path, topology, "llm-1")
        await client(topology).put_promotion("llm-1", make_order(good, ["home"], **policy))
        promotion = await finished(client(topology), "llm-1", timeout_s=700.0)
        assert promotion["state"] == "live", promotion
        gates = {g["gate"]: g for step in part(promotion, "home")["steps"] for g in step["gates"]}
        assert {gates[name]["status"] for name in ("tokenizer", "chat template", "golden", "golden agreement")} == {
            "passed"
        }
        assert gates["golden"]["measured"] < 1.01 * gates["golden"]["allowed"] / 1.1
        assert await complete(topology) == (200, "llm-1")

        (record,) = read_records(topology.home.state_folder / "servers")
        before = {process.pid for process in marked(topology)}
        assert len(before) > 1, "vLLM computes in a process of its own"
        os.kill(record.pid, signal.SIGKILL)
        async with asyncio.timeout(280):
            while any(process.pid in before for process in marked(topology)):
                await asyncio.sleep(0.1)
            while (await complete(topology))[0] != 200:
                await asyncio.sleep(0.5)

        await settled(client(topology))
        assert server_names(topology, "home") == ["llm-1"]
    # SIGKILL was sent to all of them; the kernel takes its time on a busy machine.
    async with asyncio.timeout(60):
        while marked(topology):
            await asyncio.sleep(0.1)
