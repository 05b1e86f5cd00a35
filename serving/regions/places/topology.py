"""Where the regions are: a topology file, or three process groups on loopback by default."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from serving.errors import InvalidInput, NotFound
from serving.releases import check_name
from serving.settings import Settings

LOCAL_REGIONS: Final = ("us-east", "eu-west", "asia-pacific")
_PORTS_PER_REGION: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    name: str
    gateway_url: str
    agent_url: str
    store_uri: str
    """Where this region keeps its own copies of bundles."""
    registry_url: str
    """SQLAlchemy URL of this region's registry."""
    state_folder: Path
    """Working files of the agent and the gateway: fetched bundles, logs, saved routes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """All regions, in the order in which promotions visit them unless told otherwise."""

    regions: list[Region]
    home_region: str
    """Writes promotions and version numbers of every model (one fenced writer)."""
    token_folder: Path
    key_folder: Path
    """Trusted public keys in `trusted/`; the signing key only where bundles are built."""
    local: bool = True
    """Whether `flightpath up` starts the regions on this machine."""
    runtimes: dict[str, list[str]] = field(default_factory=dict)
    """Further engines: command lines with `{bundle}`, `{model}`, `{version}`, `{variant}`, `{host}` and `{port}`."""
    scorers: list[str] = field(default_factory=list)
    """What a policy may name to score mirrored completions: `package.module:function`, importable by the agents."""

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if not names:
            raise InvalidInput("topology has no region", got="[]", expected="at least one region")
        for name in names:
            check_name("region name", name)
        if len(set(names)) != len(names):
            raise InvalidInput("topology names a region twice", got=names, expected="distinct names")
        if self.home_region not in names:
            raise InvalidInput("home_region is not a region", got=self.home_region, expected=" | ".join(names))

    def region(self, name: str) -> Region:
        for region in self.regions:
            if region.name == name:
                return region
        raise NotFound("unknown region", got=name, expected=" | ".join(r.name for r in self.regions))

    @property
    def home(self) -> Region:
        return self.region(self.home_region)


def local_topology(
    root: Path,
    *,
    port_base: int = 8080,
    runtimes: dict[str, list[str]] | None = None,
    scorers: list[str] | None = None,
) -> Topology:
    """Three regions on 127.0.0.1: gateways at port_base, +100 and +200, agents one above."""
    return Topology(
        regions=[
            _local_region(root, name, port_base + _PORTS_PER_REGION * index) for index, name in enumerate(LOCAL_REGIONS)
        ],
        home_region=LOCAL_REGIONS[0],
        token_folder=root / "tokens",
        key_folder=root / "keys",
        runtimes=runtimes or {},
        scorers=scorers or [],
    )


def _local_region(root: Path, name: str, port: int) -> Region:
    folder = root / "regions" / name
    return Region(
        name=name,
        gateway_url=f"http://127.0.0.1:{port}",
        agent_url=f"http://127.0.0.1:{port + 1}",
        store_uri=(folder / "store").as_uri(),
        registry_url=f"sqlite:///{folder / 'registry.db'}",
        state_folder=folder,
    )


def load_topology(settings: Settings) -> Topology:
    """The topology file if one is set, else the local topology of the state root."""
    if settings.topology is None:
        return local_topology(settings.root, port_base=settings.port_base)
    try:
        raw = yaml.safe_load(settings.topology.read_text())
    except FileNotFoundError as missing:
        raise NotFound("topology file is missing", got=str(settings.topology), expected="a YAML file") from missing
    except yaml.YAMLError as broken:
        raise InvalidInput("topology file cannot be read", got=str(broken), expected="YAML") from broken
    return _topology_from_yaml(raw, settings)


def _topology_from_yaml(raw: Any, settings: Settings) -> Topology:
    """`local: true` takes the local regions and may add runtimes; otherwise every region is spelled out."""
    if not isinstance(raw, dict):
        raise InvalidInput("topology file is not a mapping", got=type(raw).__name__, expected="regions, home_region, …")
    runtimes, scorers = raw.get("runtimes") or {}, raw.get("scorers") or []
    if raw.get("local"):
        return local_topology(settings.root, port_base=settings.port_base, runtimes=runtimes, scorers=scorers)
    try:
        return Topology(
            regions=[Region(**{**region, "state_folder": Path(region["state_folder"])}) for region in raw["regions"]],
            home_region=raw["home_region"],
            token_folder=Path(raw["token_folder"]),
            key_folder=Path(raw["key_folder"]),
            local=False,
            runtimes=runtimes,
            scorers=scorers,
        )
    except (KeyError, TypeError) as broken:
        raise InvalidInput(
            "topology file is malformed", got=repr(broken), expected="see docs/architecture.md"
        ) from broken
