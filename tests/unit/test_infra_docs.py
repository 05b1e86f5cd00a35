"""docs/infra.md says what the code does: its figures, rules, environments, launch plans and links are current."""

import re
from pathlib import Path

import pytest

from infra.policy import load_waivers, rule_names
from tests.fakes.cost_table import PAGE, ROOT, with_tables

TEXT = PAGE.read_text()


def test_the_cost_tables_are_those_of_the_price_file_and_show_its_day() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.fakes.cost_table"
    assert TEXT.count("prices of 2026-11-01") == 2


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    section = TEXT.partition("## Policy")[2].partition("An exception is a waiver")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE) == [
        "no-public-endpoint",
        "encryption",
        "mandatory-tags",
        "cost-ceiling",
        "stateful-kept",
        "gpu-quota",
    ]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == set(rule_names())


def test_every_environment_is_told() -> None:
    section = TEXT.partition("## Environments")[2].partition("## Provisioning")[0]
    names = {folder.name for folder in (ROOT / "infra" / "environments").iterdir()}
    assert {name for name in names if name not in section} == set()


@pytest.mark.parametrize("page", ["infra.md", *(f.name for f in sorted((ROOT / "docs" / "adr").glob("002[3-6]-*.md")))])
def test_links_lead_to_files(page: str) -> None:
    path = next(iter((ROOT / "docs").rglob(page)))
    links = re.findall(r"\]\(([^)#][^)]*?)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_the_example_of_a_waiver_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(waivers:.*?)```", TEXT, re.DOTALL)
    (tmp_path / "waivers.yaml").write_text(example)
    (waiver,) = load_waivers(tmp_path / "waivers.yaml", rule_names())
    assert waiver.rule == "no-public-endpoint"
