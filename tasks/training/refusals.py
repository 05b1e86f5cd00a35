"""What no restart can mend, left beside the run for the launcher: Ray and PyTorch elastic try again whatever raises."""

from serving.errors import PermanentError
from serving.store_files import StoreFiles

_MAX_BYTES = 65536


class Refusal:
    """The place of one launch, which its workers and whoever launched them know."""

    def __init__(self, run: StoreFiles, launch: str) -> None:
        self._run = run
        self._name = f"refusal-{launch}.txt"

    def leave(self, refused: PermanentError) -> None:
        self._run.write(self._name, str(refused).encode())

    def clear(self) -> None:
        self._run.remove(self._name)

    def read(self) -> PermanentError | None:
        """What a worker of this launch has left."""
        if not self._run.has(self._name):
            return None
        return PermanentError(self._run.read(self._name, limit_bytes=_MAX_BYTES).decode())
