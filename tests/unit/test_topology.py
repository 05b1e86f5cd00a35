"""Regions come from a file or from this machine, and a wrong file is named."""

from pathlib import Path

import pytest

from serving.errors import InvalidInput, NotFound
from serving.regions.places.topology import LOCAL_REGIONS, load_topology, local_topology
from serving.settings import Settings


def test_the_local_topology_gives_each_region_its_ports_and_folders(tmp_path: Path) -> None:
    topology = local_topology(tmp_path, port_base=9000)
    assert [region.name for region in topology.regions] == list(LOCAL_REGIONS)
    assert [region.gateway_url.rpartition(":")[2] for region in topology.regions] == ["9000", "9100", "9200"]
    assert topology.home.agent_url == "http://127.0.0.1:9001"
    assert len({region.state_folder for region in topology.regions}) == 3


def test_an_unknown_region_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"unknown region, got mars, expected us-east \| eu-west \| asia-pacific"):
        local_topology(tmp_path).region("mars")


def test_a_file_may_add_runtimes_to_the_local_regions(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text("local: true\nruntimes:\n  own: [serve, '{bundle}']\n")
    topology = load_topology(Settings(home=tmp_path, topology=path))
    assert topology.runtimes == {"own": ["serve", "{bundle}"]}
    assert topology.local


def test_a_file_may_spell_every_region_out(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(
        "home_region: eu\ntoken_folder: /etc/flightpath/tokens\nkey_folder: /etc/flightpath/keys\nregions:\n"
        "  - {name: eu, gateway_url: 'https://eu', agent_url: 'https://agent.eu', store_uri: 's3://eu',"
        " registry_url: 'postgresql://eu', state_folder: /var/lib/flightpath}\n"
    )
    topology = load_topology(Settings(home=tmp_path, topology=path))
    assert not topology.local
    assert topology.home.store_uri == "s3://eu"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a mapping"),
        ("a: [", "cannot be read"),
        ("regions: []\nhome_region: x\ntoken_folder: t\nkey_folder: k\n", "no region"),
        ("regions: [{name: x}]\nhome_region: x\ntoken_folder: t\nkey_folder: k\n", "malformed"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        load_topology(Settings(home=tmp_path, topology=path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="topology file is missing"):
        load_topology(Settings(home=tmp_path, topology=tmp_path / "none.yaml"))
