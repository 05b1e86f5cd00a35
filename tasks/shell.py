"""A stage as Flyte sees it: one decorator around what the stage does.

The stage's artifact is looked up in the release's ledger and made only if it is not there; its page becomes a Deck.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from flytekit import task

from serving.references import load_reference
from serving.store import ArtifactStore
from tasks.artifacts import ReleasePlan
from tasks.boundary import at_boundary, publish_deck
from tasks.ledger import Ledger


def stage(name: str, *, page: str = "") -> Callable[[Callable[..., Any]], Any]:
    """A Flyte task of a function that takes the plan and earlier artifacts and returns its own."""
    deck: dict[str, Any] = {"enable_deck": True, "deck_fields": ()} if page else {}
    return lambda produce: task(**deck)(at_boundary(recorded(name, page=page)(produce)))


def recorded(name: str, *, page: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the function once per release: its artifact is the record `name` of the ledger. It is called by keywords.

    Args:
        page: `module:function` that draws the artifact as HTML for the Deck; loaded when there is something to draw.
    """

    def decorate(produce: Callable[..., Any]) -> Callable[..., Any]:
        kind = inspect.get_annotations(produce)["return"]

        @functools.wraps(produce)
        def run(**inputs: Any) -> Any:
            plan: ReleasePlan = inputs["plan"]
            ledger = Ledger(ArtifactStore(plan.store_uri), plan.release_id)
            artifact = ledger.once(name, kind, lambda: produce(**inputs))
            if page:
                publish_deck(plan.release_id, name, name.capitalize(), load_reference(page)(artifact))
            return artifact

        return run

    return decorate
