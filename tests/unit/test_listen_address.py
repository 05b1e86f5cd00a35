"""FLIGHTPATH_LISTEN: gateways and agents behind a name that is not their own."""

from pathlib import Path

import pytest

from serving.credentials import TokenFolder
from serving.errors import InvalidInput
from serving.gateway.app import GatewayConfig, read_config
from serving.regions.agent import Agent
from serving.regions.places.topology import Region, Topology
from serving.settings import Settings
from tests.fakes.ports import free_port


def _region(root: Path) -> Region:
    return Region(
        name="us-east",
        gateway_url="https://gateway.us-east.example",
        agent_url="https://agent.us-east.example",
        store_uri=(root / "store").as_uri(),
        registry_url=f"sqlite:///{root / 'registry.db'}",
        state_folder=root,
    )


def test_the_gateway_listens_where_it_is_told_behind_another_name(tmp_path: Path) -> None:
    tokens = TokenFolder(folder=tmp_path / "tokens")
    assert GatewayConfig(region=_region(tmp_path), tokens=tokens, listen=("0.0.0.0", 8080)).address == ("0.0.0.0", 8080)
    with pytest.raises(InvalidInput, match="gateway_url"):
        _ = GatewayConfig(region=_region(tmp_path), tokens=tokens).address


def test_the_gateway_reads_it_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHTPATH_LISTEN", "0.0.0.0:8080")
    assert read_config(["--region", "us-east"]).address == ("0.0.0.0", 8080)


async def test_the_agent_listens_where_it_is_told_behind_another_name(tmp_path: Path) -> None:
    region, port = _region(tmp_path), free_port()
    TokenFolder(folder=tmp_path / "tokens").ensure()
    topology = Topology(
        regions=[region], home_region="us-east", token_folder=tmp_path / "tokens", key_folder=tmp_path / "keys"
    )
    agent = Agent(topology, "us-east", listen=("127.0.0.1", port))
    with agent._bind() as listener:
        assert listener.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize("listen", ["8080", ":8080", "0.0.0.0:", "0.0.0.0:http", "0.0.0.0:70000"])
def test_a_malformed_address_is_refused(listen: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        _ = Settings(listen=listen).listen_address
