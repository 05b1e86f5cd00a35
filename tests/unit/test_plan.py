"""A release is refused before anything is computed."""

import importlib.metadata
from dataclasses import asdict
from pathlib import Path

import pytest

from serving.errors import Conflict, FlightpathError
from serving.regions.places.topology import local_topology
from serving.store import ArtifactStore
from tasks.artifacts import ReleasePlan
from tasks.release import plan
from tasks.release.plan import make_plan


def _make(tmp_path: Path, **changed: object) -> ReleasePlan:
    values: dict[str, object] = {"recipe": "resnet-digits", "overrides": "", "launcher": "ray"}
    values |= {"release_id": "", "seed": 1, "regions": ["us-east"], **changed}
    return make_plan(
        topology=local_topology(tmp_path),
        store=ArtifactStore((tmp_path / "store").as_uri()),
        **values,  # type: ignore[arg-type]  # wrong values are the point
    )


def test_the_default_release_id_follows_from_recipe_overrides_seed_data_and_code(tmp_path: Path) -> None:
    first, again, other = _make(tmp_path), _make(tmp_path), _make(tmp_path, seed=2)
    assert first.release_id == again.release_id
    assert first.release_id.startswith("resnet-digits-s1-")
    assert other.release_id != first.release_id
    fewer = _make(tmp_path, overrides='{"workers": 1,  "epochs": 3}')
    assert fewer.overrides == '{"epochs":3,"workers":1}'
    assert fewer.release_id not in (first.release_id, other.release_id)
    assert _make(tmp_path, overrides='{"epochs": 3, "workers": 1}').release_id == fewer.release_id


def test_an_edited_recipe_is_another_release_and_never_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "edited_recipe.py"
    recipe.write_text(
        "from examples.recipe import breast_cancer\nfrom tasks.recipes.recipe import Recipe\n\n"
        "def mine() -> Recipe:\n    return breast_cancer()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    first = _make(tmp_path, recipe="edited_recipe:mine")
    _make(tmp_path, recipe="edited_recipe:mine", release_id="rel")
    recipe.write_text(recipe.read_text() + "# another loss\n")
    assert _make(tmp_path, recipe="edited_recipe:mine").release_id != first.release_id
    with pytest.raises(Conflict, match="already stands for another recipe_sources"):
        _make(tmp_path, recipe="edited_recipe:mine", release_id="rel")


def test_a_plan_of_before_overrides_goes_on(tmp_path: Path) -> None:
    known = _make(tmp_path, release_id="rel")
    store = ArtifactStore((tmp_path / "store").as_uri())
    record = {name: value for name, value in asdict(known).items() if name not in ("overrides", "recipe_sources")}
    store.write_record("releases/rel/plan.json", record)
    assert _make(tmp_path, release_id="rel") == known


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "vgg"}, "unknown recipe, got vgg"),
        ({"regions": []}, "a release needs a region"),
        ({"regions": ["mars"]}, "unknown region, got mars"),
        ({"regions": ["us-east", "us-east"]}, "named twice"),
        ({"seed": -1}, "seed is out of range, got -1"),
        ({"launcher": "slurm"}, "unknown launcher, got slurm, expected ray | elastic"),
        ({"overrides": '{"epoch": 3}'}, "unknown override 'epoch', got 3"),
        ({"overrides": '{"epochs": "3"}'}, "override epochs is of another type"),
        ({"recipe": "sys:exit"}, "reference is no recipe, got sys:exit"),
        ({"release_id": "../x"}, "release id is malformed"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(FlightpathError, match=message):
        _make(tmp_path, **changed)
    assert not (tmp_path / "store").exists()


def test_a_missing_ray_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(plan, "version", version)
    with pytest.raises(FlightpathError, match="Ray is missing"):
        _make(tmp_path)
    assert _make(tmp_path, launcher="elastic").release_id


def test_the_same_id_with_another_seed_is_a_conflict(tmp_path: Path) -> None:
    _make(tmp_path, release_id="rel")
    with pytest.raises(Conflict, match="already stands for another seed, got 2, expected 1"):
        _make(tmp_path, release_id="rel", seed=2)
    with pytest.raises(Conflict, match="already stands for another overrides"):
        _make(tmp_path, release_id="rel", overrides='{"epochs": 3}')
