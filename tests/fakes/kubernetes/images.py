"""What stands in for container images: local commands, and pulls that fail on order."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class ImagePullFailed(Exception):
    """No such image, or one that a test made fail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    path: tuple[Path, ...] = ()
    """Folders before PATH: a virtual environment's bin."""
    prefix: tuple[str, ...] = ()
    """Words before every command of a container, whether its own or the image's."""
    entrypoint: tuple[str, ...] = ()
    """Runs where the container names no command."""
    arguments: tuple[str, ...] = ()
    """Follow the entrypoint where the container names neither command nor arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Working directory; None: an empty one of the container's own."""

    def search_path(self) -> str:
        return os.pathsep.join([*map(str, self.path), os.environ.get("PATH", os.defpath)])

    def argv(self, command: list[str], arguments: list[str]) -> list[str]:
        """The words to run; FileNotFoundError where the program is not to be found."""
        words = [*command, *arguments] if command else [*self.entrypoint, *(arguments or self.arguments)]
        words = [*self.prefix, *words]
        if not words:
            raise FileNotFoundError("no command specified: neither the container nor the image has one")
        program = shutil.which(words[0], path=self.search_path())
        if program is None:
            raise FileNotFoundError(f'exec: "{words[0]}": executable file not found in $PATH')
        return [program, *words[1:]]


class Registry:
    """The images of a test by their reference."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self._images = dict(images)
        self._failing: set[str] = set()

    def fail(self, name: str) -> None:
        self._failing.add(name)

    def mend(self, name: str) -> None:
        self._failing.discard(name)

    def pull(self, name: str) -> Image:
        image = self._images.get(name)
        if image is None or name in self._failing:
            raise ImagePullFailed(f'failed to pull and unpack image "{name}": not found')
        return image
