"""Every later agent reads what each recorded one said and kept, and leaves out what it does not know.

`tests/fakes/recording.py` says how a version is recorded.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from serving.counters import parse_snapshot
from serving.errors import InvalidInput
from serving.gateway.route_table import parse_routes
from serving.processes import read_records
from serving.regions.deciding import promotion_state, rollback_order, rollback_state, rollout_document
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region
from serving.regions.servers.server_process import ServerSpec
from serving.releases import RuntimeSpec
from serving.routes import parse_route
from tests.fakes.recording import FOLDER, recorded

REGIONS = ["home", "away"]
NEW = "of_a_younger_agent"
_MAPS = {"parts", "used"}
"""Values by region or by bucket: their keys are no fields."""
_NOT_TO_ADD_TO = {"environment"}


class _Peer:
    """Another region's agent that says what was recorded."""

    def __init__(self, models: list[dict[str, Any]]) -> None:
        self._models = models

    def __call__(self, *_: Any, **__: Any) -> Self:
        return self

    async def peer_models(self) -> list[dict[str, Any]]:
        return self._models


def read_models(document: dict[str, Any], _: Path) -> Any:
    urls = {"gateway_url": "http://127.0.0.1:1", "agent_url": "http://127.0.0.1:2", "store_uri": "", "registry_url": ""}
    peers = Peers([Region(name="away", state_folder=Path(), **urls)], str, connect=_Peer(document["models"]))
    asyncio.run(peers.ask())
    assert peers.reachable() == {"away": True}
    return {model: peers.serving(model) for model in sorted(peers.models())}


def read_part(document: dict[str, Any], _: Path) -> Any:
    """A region's answer, as the home agent keeps, shows and judges it."""
    promotion = promotion_state.read_promotion(recorded(FOLDER / FIRST)["stored-promotions"][0])
    parts = {document["region"]: document}
    promotion = promotion_state.read_promotion({**promotion.to_json(), "parts": parts})
    shown = promotion_state.show_promotion(promotion)
    evidence = rollout_document.read_windows(promotion_state.evidence_for(promotion, "nobody"))
    return shown, evidence, promotion_state.is_taken_back(document)


def read_rollback_part(document: dict[str, Any], _: Path) -> Any:
    order = rollback_order.read_rollback_order(recorded(FOLDER / FIRST)["stored-rollback-orders"][0])
    noted = rollback_order.note_part(order, document, now=1.0)
    return noted.to_json(), noted.open


def read_record(document: dict[str, Any], folder: Path) -> Any:
    (folder / "server.json").write_text(json.dumps(document))
    (record,) = read_records(folder)
    return record.pid, record.command, record.born, ServerSpec.from_json(record.detail["spec"])


READERS: dict[str, Callable[[dict[str, Any], Path], Any]] = {
    "peer-rollouts-put-order": lambda d, _: rollout_document.read_order("p-1", "away", d, now=1.0).to_json(),
    "peer-rollouts-put-answer": read_part,
    "peer-rollouts-get-answer": read_part,
    "peer-rollouts-revert-post-answer": read_part,
    "peer-rollbacks-put-order": lambda d, _: rollback_state.read_region_order(d),
    "peer-rollbacks-put-answer": read_rollback_part,
    "peer-rollbacks-get-answer": read_rollback_part,
    "peer-rollbacks-report-put-order": lambda d, _: rollback_order.read_report("b", d, REGIONS).to_json(),
    "peer-models-get-answer": read_models,
    "stored-promotions": lambda d, _: promotion_state.read_promotion(d).to_json(),
    "stored-rollouts": lambda d, _: rollout_document.read_rollout(d).to_json(),
    "stored-rollbacks": lambda d, _: rollback_state.read_rollback(d).to_json(),
    "stored-rollback-orders": lambda d, _: rollback_order.read_rollback_order(d).to_json(),
    "stored-runtime": lambda d, _: RuntimeSpec.from_document(d),
    "stored-server-record": read_record,
    "stored-routes": lambda d, _: [route.to_json() for route in parse_routes(json.dumps(d).encode())],
    "gateway-routes-put-order": lambda d, _: parse_route(d, model=d["model"]).to_json(),
    "gateway-stats-get-answer": lambda d, _: parse_snapshot(d).to_json(),
}
"""What agents and gateways read of one another, or of their own of another age."""
ORDERED_BY_PEOPLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "promotions-put-order": lambda d: promotion_state.read_order(d, REGIONS),
    "rollbacks-put-order": lambda d: rollback_order.read_asked(d, REGIONS),
}
FOLDERS = sorted(path.name for path in FOLDER.iterdir())
FIRST = FOLDERS[0]


def younger(value: Any, *, key: str = "", skip: frozenset[str] = frozenset()) -> Any:
    """The document with a field more in every object of it."""
    if isinstance(value, list):
        return [younger(item, skip=skip) for item in value]
    if not isinstance(value, dict) or key in _NOT_TO_ADD_TO | skip:
        return value
    is_map = key in _MAPS or (key == "backends" and all(isinstance(item, dict) for item in value.values()))
    told = {name: younger(item, key=name, skip=skip) for name, item in value.items()}
    return told if is_map else {**told, NEW: {"of": "tomorrow"}}


def without_new(value: Any) -> Any:
    if isinstance(value, list):
        return [without_new(item) for item in value]
    if isinstance(value, dict):
        return {name: without_new(item) for name, item in value.items() if name != NEW}
    if isinstance(value, tuple):
        return tuple(map(without_new, value))
    return value


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_recorded_agent_said_or_kept_is_read_and_what_is_new_is_left_out(
    folder: str, kind: str, tmp_path: Path
) -> None:
    documents = recorded(FOLDER / folder)[kind]
    assert documents
    for document in documents:
        # A release that is ordered is taken as it is or refused: see below.
        skip = frozenset({"release"}) if kind == "peer-rollouts-put-order" else frozenset()
        known = READERS[kind](document, tmp_path)
        assert without_new(READERS[kind](younger(document, skip=skip), tmp_path)) == without_new(known)


@pytest.mark.parametrize("kind", ORDERED_BY_PEOPLE)
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_people_ordered_of_a_recorded_agent_may_be_ordered_today(folder: str, kind: str) -> None:
    for document in recorded(FOLDER / folder)[kind]:
        ORDERED_BY_PEOPLE[kind](document)
        with pytest.raises(InvalidInput, match="is malformed"):
            ORDERED_BY_PEOPLE[kind]({**document, NEW: 1})


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_release_that_says_more_than_this_agent_knows_is_refused_by_name(folder: str) -> None:
    order = recorded(FOLDER / folder)["peer-rollouts-put-order"][0]
    runtime = {**order["release"]["runtime"], "isolation": "gvisor"}
    with pytest.raises(InvalidInput, match=r"fields that are not known here, got runtime\.isolation, expected .*young"):
        rollout_document.read_order(
            "p", "away", {**order, "release": {**order["release"], "runtime": runtime}}, now=1.0
        )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recorded_kind_has_a_reader_or_none_reads_it(folder: str) -> None:
    answers_to_people = {
        *("promotions-put-answer", "promotions-get-answer", "promotions-delete-answer", "promotions-pause-post-answer"),
        *("rollbacks-put-answer", "rollbacks-get-answer", "region-get-answer", "peer-rollbacks-report-put-answer"),
        *("gateway-routes-put-answer", "gateway-routes-get-answer", "stored-clock"),
        *("peer-rollouts-revert-post-order", "peer-rollouts-delete-order"),
    }
    assert set(recorded(FOLDER / folder)) <= {*READERS, *ORDERED_BY_PEOPLE, *answers_to_people}


def test_recordings_are_small_and_tell_no_secret_and_no_place() -> None:
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in (FOLDER / folder).iterdir()) < 200_000
    for path in FOLDER.glob("*/*"):
        text = path.read_text()
        for secret in ("Bearer", "PRIVATE", "/tmp/", "/home/", "/root/", 'token"'):
            assert secret not in text, (path, secret)
