"""What the environment may change, read once at each process's edge and handed in from there."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import InvalidInput


class Settings(BaseSettings):
    """Read from FLIGHTPATH_* variables; every default serves one machine with no cluster."""

    model_config = SettingsConfigDict(env_prefix="FLIGHTPATH_", frozen=True)

    home: Path = Path(".flightpath")
    """State root: stores, registries, logs, process records, keys and tokens."""

    port_base: int = Field(default=8080, ge=1024, le=65000)
    """First port of the local topology: gateways take base, base+100, base+200, agents the port after."""

    topology: Path | None = None
    """A topology file (YAML) in place of the three local regions."""

    store: str | None = None
    """fsspec URI of the artifact store; by default `store/` in the state root."""

    runs: str | None = None
    """fsspec URI of training runs (checkpoints, progress), which every worker reaches; by default `runs/` beside a
    store at a distance, else `runs/` in the state root."""

    listen: str = ""
    """host:port that this gateway or agent listens on where its URL names something in front of it, such as a load
    balancer; by default the gateway listens on its URL's host and the agent on 127.0.0.1."""

    llm_regions: str = ""
    """Regions (comma-separated) that the demo releases language models to; empty: all. The others route to them."""

    @property
    def root(self) -> Path:
        return self.home.expanduser().resolve()

    @property
    def listen_address(self) -> tuple[str, int] | None:
        """`listen` in its two parts, None where it is not set."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InvalidInput("FLIGHTPATH_LISTEN is malformed", got=self.listen, expected="host:port, as 0.0.0.0:8080")
        return host, int(port)

    @property
    def store_uri(self) -> str:
        return self.store or (self.root / "store").as_uri()

    @property
    def runs_uri(self) -> str:
        if self.runs:
            return self.runs.rstrip("/")
        distant = self.store and "://" in self.store and not self.store.startswith(("file://", "local://"))
        return f"{str(self.store).rstrip('/')}/runs" if distant else (self.root / "runs").as_uri()
