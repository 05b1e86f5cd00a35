"""Routes as they are planned: shares, stand-ins, and what is said when nothing serves."""

from typing import Any

from serving.regions.places.peers import RemoteModel
from serving.regions.traffic.gateway_traffic import Beside, LocalServer, plan_route
from serving.routes import Mirror, Route, parse_route

LIVE = LocalServer(release="rel-1", version=1, url="http://127.0.0.1:1001")
NEW = LocalServer(release="rel-2", version=2, url="http://127.0.0.1:1002")
AWAY = RemoteModel(
    model="m", region="away", release="rel-1", version=1, gateway_url="http://127.0.0.1:2000", classes=["a", "b"]
)


def plan(
    live: LocalServer | None = None,
    candidate: LocalServer | None = None,
    percent: int = 0,
    *,
    remotes: tuple[RemoteModel, ...] = (),
    reason: str | None = None,
    **shares: Any,
) -> Route:
    route = plan_route(
        "m",
        region="here",
        live=live,
        beside=None if candidate is None else Beside(server=candidate, percent=percent, **shares),
        remotes=remotes,
        reason=reason,
        classes=[],
    )
    assert parse_route(route.to_json(), model="m") == route
    return route


def weights(route: Route) -> dict[str, int]:
    return {backend.id: backend.weight for backend in route.backends}


def test_a_canary_shares_with_the_live_server_and_is_compared_with_it() -> None:
    route = plan(LIVE, NEW, 5, mirror_share=1.0, completions_share=0.25)
    assert weights(route) == {"rel-2@here": 5, "rel-1@here": 95}
    assert route.mirror == Mirror(
        candidate="rel-2@here", live="rel-1@here", candidate_share=1.0, live_share=0.0, completions_share=0.25
    )
    assert plan(LIVE, NEW, 5).mirror is None


def test_a_shadow_has_no_users_and_sees_copies_of_all() -> None:
    route = plan(LIVE, NEW, 0, shadow_share=1.0)
    assert weights(route) == {"rel-2@here": 0, "rel-1@here": 100}
    assert route.mirror is not None
    assert (route.mirror.candidate, route.mirror.live_share) == ("rel-2@here", 1.0)


def test_a_watched_version_is_compared_with_the_one_before() -> None:
    route = plan(NEW, LIVE, 0, mirror_share=0.5, is_candidate=False)
    assert weights(route) == {"rel-1@here": 0, "rel-2@here": 100}
    assert route.mirror is not None
    assert (route.mirror.candidate, route.mirror.live) == ("rel-2@here", "rel-1@here")
    assert route.mirror.candidate_share == 0.5


def test_at_100_percent_the_live_server_stands_by() -> None:
    assert weights(plan(LIVE, NEW, 100)) == {"rel-2@here": 100, "rel-1@here": 0}


def test_without_a_live_server_another_region_gets_the_rest() -> None:
    route = plan(None, NEW, 25, remotes=(AWAY,), mirror_share=1.0)
    assert weights(route) == {"rel-2@here": 25, "rel-1@away": 75}
    assert route.mirror is None
    assert [backend.remote for backend in route.backends] == [False, True]


def test_other_regions_stand_by_behind_a_live_server() -> None:
    assert weights(plan(LIVE, remotes=(AWAY,))) == {"rel-1@here": 100, "rel-1@away": 0}


def test_a_region_without_the_model_sends_everything_to_one_that_has_it() -> None:
    route = plan(remotes=(AWAY,))
    assert weights(route) == {"rel-1@away": 100}
    assert route.classes == ["a", "b"]


def test_a_route_without_backends_says_why() -> None:
    assert plan(reason="here, canary 100 %: gate errors failed").reason == "here, canary 100 %: gate errors failed"
    assert plan().reason == "no region serves this model"
    assert plan(LIVE, reason="its server does not answer").reason is None
