"""A Hugging Face folder for vLLM: the trained weights as they are, in float32, with tokenizer and chat template.

Nothing is quantized: at a few million weights there is nothing to win on a CPU. The model is a base model
of source code; it has never seen a chat, and the template only says how one is written down.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from serving.bundle import Measurement
from serving.errors import InvalidInput, PermanentError
from serving.files import canonical_json, write_atomically
from tasks.artifacts import Figure
from tasks.data.dataset import read_split
from tasks.data.tokenizer import BOS, END, EOS, TOKENIZER_FILES, load_tokenizer
from tasks.recipes.family import Judgement
from tasks.recipes.packing import Packed, PackedVariant, PackingJob
from tasks.training.determinism import reproducible_torch
from tasks.training.inference import predict

if TYPE_CHECKING:
    import torch

VARIANT: Final = "vllm"
ENTRY: Final = "model"
MAX_NUM_SEQS: Final = 16
"""Requests that vLLM batches; more only queue on a CPU."""
_COMPARED_SAMPLES: Final = 4
"""Sequences whose logits are compared bit for bit between the trained model and the packed one."""
_LEFT_OUT: Final = ("transformers_version", "_name_or_path")
"""Of config.json: they name what wrote it, not what it is."""


class HuggingFacePacking:
    """For families whose model is a transformers model and whose dataset carries the tokenizer's files."""

    def pack(self, job: PackingJob) -> Packed:
        with reproducible_torch():
            return self._pack(job)

    def _pack(self, job: PackingJob) -> Packed:
        folder = job.folder / ENTRY
        files = write_model_folder(job.model, job.data, folder)
        reloaded = load_packed(folder)
        test = read_split(job.data, "test")
        difference = largest_difference(job.model, reloaded, test["tokens"][:_COMPARED_SAMPLES, :-1])
        if difference != 0.0:
            raise PermanentError("packed model answers differently", got=difference, expected="the same logits")
        _check_tokenizer(folder)
        judgement = job.family.judge(predict(job.family, reloaded, test), test)
        taken = _measurements(judgement)
        sizes = {name: (job.folder / name).stat().st_size for name in files}
        context = reloaded.config.max_position_embeddings
        variant = PackedVariant(
            name=VARIANT,
            runtime="vllm",
            entry=ENTRY,
            files=files,
            requires={"vllm": ">=0.32"},
            arguments=serving_arguments(context),
        )
        return Packed(
            variants=[variant],
            chosen=VARIANT,
            measurements=taken,
            figures=_figures(taken, judgement, sizes, sum(weight.numel() for weight in reloaded.parameters())),
        )


def serving_arguments(context: int) -> list[str]:
    """What `vllm serve` must be told of this model; the launcher adds address, port and served name."""
    return ["--max-model-len", str(context), "--dtype", "float32", "--max-num-seqs", str(MAX_NUM_SEQS)]


def write_model_folder(model: "torch.nn.Module", tokenizer: Path, folder: Path) -> list[str]:
    """Write everything that vLLM opens to `folder`, the same bytes each time.

    Args:
        tokenizer: folder with TOKENIZER_FILES.

    Returns:
        The files, as POSIX paths that begin with the folder's name.

    Raises:
        InvalidInput: `model` is no transformers model, or there is no tokenizer.
    """
    from safetensors.torch import save

    config = getattr(model, "config", None)
    if config is None or (missing := [name for name in TOKENIZER_FILES if not (tokenizer / name).is_file()]):
        got = "no config" if config is None else f"no {missing}"
        raise InvalidInput("model cannot become a Hugging Face folder", got=got, expected="config and tokenizer")
    contents = {name: (tokenizer / name).read_bytes() for name in TOKENIZER_FILES}
    contents["config.json"] = canonical_json(_config(config, type(model).__name__))
    contents["generation_config.json"] = canonical_json(_generation_config(load_tokenizer(tokenizer)))
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    contents["model.safetensors"] = save(weights, metadata={"format": "pt"})
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return sorted(f"{folder.name}/{name}" for name in contents)


def load_packed(folder: Path) -> Any:
    """The model of a Hugging Face folder, as any user of transformers gets it, in evaluation mode.

    Raises:
        PermanentError: transformers does not take it.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
        )
        return model.eval()
    except (OSError, ValueError, RuntimeError, KeyError) as unfit:
        raise PermanentError(f"packed model cannot be loaded ({unfit})", expected="a Hugging Face folder") from unfit


def largest_difference(one: Any, other: Any, tokens: Any) -> float:
    """Largest absolute difference between the logits of two causal models for `tokens` (samples, T)."""
    import torch

    ids = torch.from_numpy(np.ascontiguousarray(tokens)).long()
    with torch.inference_mode():
        return float((one(input_ids=ids).logits - other(input_ids=ids).logits).abs().max())


def _config(config: Any, architecture: str) -> dict[str, Any]:
    described: Mapping[str, Any] = config.to_dict()
    kept = {name: value for name, value in described.items() if name not in _LEFT_OUT}
    return {**kept, "architectures": [architecture], "dtype": "float32", "use_cache": True}


def _generation_config(tokenizer: Any) -> dict[str, Any]:
    """Where generation ends: at the end of a file, or of a turn."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in (BOS, EOS, END)}
    return {"bos_token_id": ids[BOS], "eos_token_id": [ids[EOS], ids[END]], "_from_model_config": False}


def _check_tokenizer(folder: Path) -> None:
    """Text survives the packed tokenizer, and the chat template ends where an answer begins."""
    tokenizer = load_tokenizer(folder)
    text = "def f(x):\n\treturn 'é 世界 \U0001f40d'  \n"
    back = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    if back != text:
        raise PermanentError("packed tokenizer loses text", got=back, expected=text)


def _measurements(judgement: Judgement) -> list[Measurement]:
    """Of the folder as transformers loads it."""
    import transformers

    where = f"{platform.machine()}, transformers {transformers.__version__}, float32"
    figures = {figure.name: figure.value for figure in judgement.figures}
    accuracy = Measurement(
        name=f"{VARIANT} accuracy",
        value=judgement.accuracy,
        unit="share of next tokens",
        where=where,
        interval=list(judgement.interval),
    )
    rest = [
        Measurement(
            name=f"{VARIANT} {name}",
            value=figures[name],
            unit=unit,
            where=where,
            interval=[figures[f"{name}_low"], figures[f"{name}_high"]],
        )
        for name, unit in (("perplexity", "tokens"), ("bits_per_byte", "bits"))
        if name in figures
    ]
    return [accuracy, *rest]


def _figures(taken: list[Measurement], judgement: Judgement, sizes: Mapping[str, int], parameters: int) -> list[Figure]:
    return [
        Figure(name="fp32_accuracy", value=judgement.accuracy, unit="share"),
        *(Figure(name=measured.name, value=measured.value, unit=measured.unit) for measured in taken),
        Figure(name=f"{VARIANT} size", value=float(sum(sizes.values())), unit="bytes"),
        Figure(name="parameters", value=float(parameters), unit="weights"),
        *(Figure(name=f"file {name}", value=float(size), unit="bytes") for name, size in sizes.items()),
    ]
