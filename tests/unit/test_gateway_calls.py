"""What a header says is believed from those who may say it, and nobody else's word goes further."""

from pathlib import Path
from typing import Any

import pytest

from serving.credentials import TokenFolder, hop_credential
from serving.gateway.calls import Call, origin_of, read_call
from serving.gateway.peers import Peers
from serving.routes import Backend


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFolder:
    folder = TokenFolder(folder=tmp_path / "tokens")
    folder.ensure()
    return folder


def at(*, remote: bool) -> Backend:
    return Backend(id="b", release="rel-1", version=4, region="eu-west", url="http://h:1", remote=remote, weight=1)


def read(peers: Peers, **headers: str) -> Call:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return read_call({"headers": named}, peers)


def test_a_peer_is_believed_and_a_user_is_not(tokens: TokenFolder) -> None:
    peers = Peers(tokens, region="us-east")
    said = {"x_flightpath_hop": "1", "x_flightpath_synthetic": "1", "x_flightpath_tried": "1"}
    shown = hop_credential(tokens.read("peer"))
    call = read(peers, **said, x_flightpath_credential=shown)
    assert (call.hop, call.synthetic, call.tried) == (True, True, 1)
    for lie in ({}, *({"x_flightpath_credential": text} for text in ("", " ", shown[:-1], shown + "0", "\u00e9"))):
        call = read(peers, **said, **lie)
        assert (call.hop, call.synthetic, call.tried) == (False, False, 0)


@pytest.mark.parametrize("told", ["", "-1", "99", "\u00b2", "1.0", "x"])
def test_a_number_of_servers_that_makes_no_sense_is_none(tokens: TokenFolder, told: str) -> None:
    shown = hop_credential(tokens.read("peer"))
    call = read(Peers(tokens, region="us-east"), x_flightpath_tried=told, x_flightpath_credential=shown)
    assert call.tried == 0


def test_the_token_itself_is_not_shown_and_no_other_role_opens(tokens: TokenFolder) -> None:
    shown = hop_credential(tokens.read("peer"))
    assert tokens.read("peer") not in shown
    for role in ("gateway", "promoter", "operator"):
        other = hop_credential(tokens.read(role))
        call = read(Peers(tokens, region="us-east"), x_flightpath_hop="1", x_flightpath_credential=other)
        assert not call.hop


@pytest.mark.parametrize("content", [None, "", "Authorization: Bearer \n", "Authorization: Bearer \u00e9\n"])
def test_without_a_token_nobody_is_believed_and_nothing_shown(tokens: TokenFolder, content: str | None) -> None:
    path = tokens.path("peer")
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="latin-1")
    peers = Peers(tokens, region="us-east")
    assert peers.credential() is None
    for shown in ("", hop_credential("")):
        assert not read(peers, x_flightpath_hop="1", x_flightpath_credential=shown).hop
    told = read(peers).headers_for(at(remote=True))
    assert (told["x-flightpath-hop"], "x-flightpath-credential" in told) == ("1", False)


def test_a_token_that_was_replaced_is_in_force_within_a_second(tokens: TokenFolder) -> None:
    clock = Clock()
    peers = Peers(tokens, region="us-east", clock=clock)
    before = peers.credential()
    tokens.path("peer").unlink()
    tokens.ensure()
    assert peers.credential() == before
    clock.now += 1
    assert peers.credential() == hop_credential(tokens.read("peer")) != before


def test_model_servers_get_nothing_of_what_gateways_tell_one_another(tokens: TokenFolder) -> None:
    shown = hop_credential(tokens.read("peer"))
    peers = Peers(tokens, region="us-east")
    call = read(peers, x_flightpath_synthetic="1", x_flightpath_tried="1", x_flightpath_credential=shown, via="1.1 a")
    assert set(call.headers_for(at(remote=False))) == {"content-type", "x-request-id"}
    told: dict[str, Any] = call.headers_for(at(remote=True))
    assert told["x-flightpath-credential"] == shown
    assert (told["x-flightpath-synthetic"], told["x-flightpath-tried"]) == ("1", "1")
    assert told["via"] == "1.1 a, 1.1 flightpath-us-east"


def test_the_trace_goes_on_whole(tokens: TokenFolder) -> None:
    peers, trace = Peers(tokens, region="us-east"), "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    headers = read(peers, traceparent=trace, tracestate="v=1").headers_for(at(remote=False))
    assert (headers["traceparent"], headers["tracestate"]) == (trace, "v=1")
    assert "tracestate" not in read(peers, tracestate="v=1").headers_for(at(remote=False))
    assert "tracestate" not in read(peers, traceparent=trace, tracestate="v=\u00e9").headers_for(at(remote=False))


@pytest.mark.parametrize(
    "told",
    [
        {"x-flightpath-version": "9" * 5000},
        {"x-flightpath-version": "\u0663"},
        {"x-flightpath-region": "\udcff\udcfe"},
        {"x-flightpath-region": ""},
        {"x-flightpath-release": "a\tb"},
    ],
)
def test_what_an_answer_says_of_its_giver_must_hold(told: dict[str, str]) -> None:
    origin = origin_of(at(remote=True), told)
    assert (origin.region, origin.version, origin.release) == ("eu-west", 4, "rel-1")


def test_a_local_servers_answer_says_nothing_of_its_giver() -> None:
    origin = origin_of(at(remote=False), {"x-flightpath-version": "9", "x-flightpath-region": "mars"})
    assert (origin.region, origin.version) == ("eu-west", 4)
