"""What the environment may change, read once at each process's edge and handed in from there."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    llm_regions: str = ""
    """Regions (comma-separated) that the demo releases language models to; empty: all. The others route to them."""

    @property
    def root(self) -> Path:
        return self.home.expanduser().resolve()

    @property
    def store_uri(self) -> str:
        return self.store or (self.root / "store").as_uri()
