"""What a user hands over, recognised and hashed before anything is read into a runtime.

Weights come as ONNX or safetensors only: formats that hold data and no code.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from serving.bundle import hash_file
from serving.errors import InvalidInput, NotFound

MAX_BYTES: Final = 512 * 1024**3
_CODE_FORMATS: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")


class Kind(StrEnum):
    ONNX = "an ONNX file"
    HUGGING_FACE = "a Hugging Face checkpoint folder"
    LORA = "a LoRA adapter folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    kind: Kind
    path: Path
    files: list[str]
    """Relative paths of what is taken in; a file's own name for ONNX."""

    def sha256(self) -> str:
        """Of the names and hashes of all files."""
        digest = hashlib.sha256()
        for name in self.files:
            path = self.path if self.kind is Kind.ONNX else self.path / name
            digest.update(f"{name}\0{hash_file(path)}\n".encode())
        return digest.hexdigest()


def recognise(path: Path) -> Source:
    """Tell what lies at `path`.

    Raises:
        NotFound: nothing is there.
        InvalidInput: it is none of the three kinds, holds weights in a format that can run code, or is too large.
    """
    if not path.exists():
        raise NotFound("model source is missing", got=str(path), expected=" | ".join(Kind))
    if path.is_file() and path.suffix == ".onnx":
        return _bounded(Source(kind=Kind.ONNX, path=path, files=[path.name]), [path])
    if path.is_dir() and (path / "adapter_config.json").is_file():
        return _folder(Kind.LORA, path, weights="adapter_model.safetensors")
    if path.is_dir() and (path / "config.json").is_file():
        return _folder(Kind.HUGGING_FACE, path, weights="*.safetensors")
    raise InvalidInput("model source is of no known kind", got=str(path), expected=" | ".join(Kind))


def _folder(kind: Kind, path: Path, *, weights: str) -> Source:
    if not list(path.glob(weights)):
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in _CODE_FORMATS)
        raise InvalidInput(f"{path} has no safetensors weights", got=pickled or "no weights", expected=weights)
    taken = []
    for file in sorted(path.rglob("*")):
        if not file.resolve().is_relative_to(path.resolve()):
            raise InvalidInput("model source links outside its folder", got=str(file), expected="files of its own")
        relative = file.relative_to(path)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.is_file() and not hidden and file.suffix not in _CODE_FORMATS:
            taken.append(relative.as_posix())
    return _bounded(Source(kind=kind, path=path, files=taken), [path / name for name in taken])


def _bounded(source: Source, files: list[Path]) -> Source:
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
        raise InvalidInput("model source is too large", got=size, expected=f"<= {MAX_BYTES} bytes")
    return source
