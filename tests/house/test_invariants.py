"""The numbered rules: what code cites is written down, what is written down points to files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "invariants.md").read_text()
NUMBER = re.compile(r"\b[IS](?:10|[1-9])\b")
NAMED = re.compile(r"`([a-z_]+/[a-z_/0-9]+(?:\.py)?)`")


def cited() -> set[str]:
    """Every number in a docstring or comment of the package."""
    texts = (path.read_text() for path in (ROOT / "flightmode").rglob("*.py"))
    return {number for text in texts for number in re.findall(r"\(([IS]\d+)[,)]", text)}


def test_every_number_that_code_cites_is_on_the_page():
    assert cited() - set(NUMBER.findall(PAGE)) == set()


def test_every_invariant_is_cited_where_it_is_kept():
    invariants = {number for number in NUMBER.findall(PAGE) if number.startswith("I")}
    assert invariants - cited() <= {"I9"}, "nothing in the code says that it keeps these"


@pytest.mark.parametrize("name", sorted(set(NAMED.findall(PAGE))))
def test_what_the_page_points_to_exists(name):
    assert any((ROOT / start / name).exists() for start in ("", "flightmode"))
