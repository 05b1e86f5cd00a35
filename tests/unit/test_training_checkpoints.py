"""Checkpoints: torn ones are skipped and named, old ones go, whole ones come back."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from serving.errors import PermanentError
from serving.store_files import StoreFiles
from tasks.training import checkpointing
from tasks.training.branches import Branches
from tasks.training.checkpointing import verify_checkpoint
from tests.fakes.runs import look


def save(run: Path, step: int, *, attempt: int = 1, value: float = 0.0) -> Path:
    folder = run / checkpointing.checkpoint_name(step, attempt)
    model = torch.nn.Linear(2, 1)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    optimizer = torch.optim.AdamW(model.parameters())
    snapshot = checkpointing.take_snapshot(model, optimizer, [{"step": float(step), "loss": 1.0}])
    ranks = [{"sampler": {}, "rank": rank} for rank in range(2)]
    files = StoreFiles.of_folder(run)
    checkpointing.write_checkpoint(files, folder.name, snapshot, ranks, step=step, fingerprint="f", seed=1)
    return folder


FILES = ["model.safetensors", "optimizer.pt", "curve.json", "rank-0.json", "rank-1.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_torn_file_is_skipped_and_named(tmp_path: Path, name: str, damage: str) -> None:
    whole, torn = save(tmp_path, 10), save(tmp_path, 20)
    content = (torn / name).read_bytes()
    if damage == "missing":
        (torn / name).unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        (torn / name).write_bytes(content[:middle] if damage == "truncated" else flipped)
    found = look(tmp_path)
    assert found.newest is not None
    assert found.newest.folder == whole
    (skipped,) = found.skipped
    assert skipped.startswith("step-20-a1: ")
    assert ("manifest" in skipped) if name == "manifest.json" else (name in skipped)


def test_a_checkpoint_in_the_making_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 10)
    shutil.copytree(tmp_path / "step-10-a1", tmp_path / "step-20-a2", ignore=shutil.ignore_patterns("manifest.json"))
    found = look(tmp_path)
    assert found.newest is not None
    assert (found.newest.step, found.attempts, len(found.skipped)) == (10, 2, 1)


def test_an_empty_run_has_none(tmp_path: Path) -> None:
    assert look(tmp_path / "absent").newest is None


def test_the_latest_attempt_of_a_step_wins(tmp_path: Path) -> None:
    save(tmp_path, 10, attempt=1)
    later = save(tmp_path, 10, attempt=2)
    newest = look(tmp_path).newest
    assert newest is not None
    assert newest.folder == later


def test_a_step_can_be_asked_for(tmp_path: Path) -> None:
    first, _ = save(tmp_path, 10), save(tmp_path, 20)
    newest = look(tmp_path, "10").newest
    assert newest is not None
    assert newest.folder == first


def test_equal_training_gives_equal_manifests_whatever_the_attempt(tmp_path: Path) -> None:
    first, again = save(tmp_path, 10, attempt=1), save(tmp_path, 10, attempt=2)
    other = save(tmp_path, 11, value=0.5)
    assert verify_checkpoint(first).sha256 == verify_checkpoint(again).sha256 != verify_checkpoint(other).sha256


def test_only_the_newest_are_kept_and_torn_ones_go(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    (tmp_path / "step-20-a1" / "manifest.json").unlink()
    save(tmp_path, 40)
    removed = Branches(StoreFiles.of_folder(tmp_path), tmp_path).remove_old(keep=2, newest=(40, 1))
    assert removed == ["step-10-a1", "step-20-a1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-30-a1", "step-40-a1"]


def test_a_manifest_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["../../secret"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PermanentError, match="outside"):
        verify_checkpoint(folder)


def test_an_optimizer_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    torch.save({"run": Path}, folder / "optimizer.pt")
    with pytest.raises(PermanentError, match=r"optimizer\.pt cannot be read"):
        checkpointing.read_optimizer(folder)


class Tied(torch.nn.Module):
    """Output and input embedding are one, a buffer is a view of another, and a mask holds infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        table = torch.arange(12.0)
        self.register_buffer("table", table)
        self.register_buffer("part", table[2:6])
        self.register_buffer("mask", torch.full((3,), float("-inf")))
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("also_empty", torch.empty(0))


def test_tied_weights_and_shared_buffers_are_saved_once_and_come_back(tmp_path: Path) -> None:
    model, again = Tied(), Tied()
    snapshot = checkpointing.take_snapshot(model, torch.optim.AdamW(model.parameters()), [])
    run, folder = StoreFiles.of_folder(tmp_path), tmp_path / "step-1-a1"
    checkpointing.write_checkpoint(run, folder.name, snapshot, [{}], step=1, fingerprint="f", seed=1)
    read = checkpointing.read_model(folder)
    assert set(read) == set(model.state_dict())
    again.load_state_dict(read)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.head.weight is again.embed.weight
    with safe_open(folder / checkpointing.MODEL, framework="pt") as file:
        assert file.metadata() == {"head.weight": "embed.weight"}
