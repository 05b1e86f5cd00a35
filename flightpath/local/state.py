"""Where everything lies in the state root, and which process of it is whose."""

from dataclasses import dataclass
from pathlib import Path

from serving.files import hash_sources
from serving.processes import ProcessRecord, read_records
from serving.settings import Settings

_PROJECT = Path(__file__).resolve().parent.parent.parent


def running_code() -> str:
    """The version of the code that supervisor, agents and gateways run from."""
    return hash_sources(_PROJECT / "serving", _PROJECT / "flightpath")


@dataclass(frozen=True, slots=True)
class StateRoot:
    path: Path

    @classmethod
    def of(cls, settings: Settings) -> "StateRoot":
        return cls(settings.root)

    @property
    def run(self) -> Path:
        """Records of supervisor, gateways and agents."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        return self.path / "supervisor.lock"

    @property
    def retry(self) -> Path:
        """There while the supervisor is to start at once what waits after crashes; it takes the file away."""
        return self.path / "supervisor.retry"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    def record(self, name: str) -> ProcessRecord | None:
        """The record of a living process, or None."""
        for record in read_records(self.run):
            if record.name == name and record.alive:
                return record
        return None

    def server_records(self) -> list[tuple[Path, ProcessRecord]]:
        """Every region's model servers, with the folder their record lies in."""
        folders = sorted((self.path / "regions").glob("*/servers"))
        return [(folder, record) for folder in folders for record in read_records(folder)]
