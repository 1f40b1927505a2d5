"""Pages for people: the tests and the files that they name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "ARCHITECTURE.md"]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
DEFINED = re.compile(r"^\s*(?:async def|def|fn) (\w+)", re.MULTILINE)


BAD_DAYS = ROOT / "docs" / "bad-days.md"
WITHOUT = "## Shown without real processes"
ON_REAL_PROCESSES = ("tests/integration", "tests/contract", "tests/hosts")


def names_in(text: str) -> set[str]:
    return set(re.findall(r"`(?:\w+::)?(test_\w+)`", text))


def named_tests(*pages: Path) -> set[str]:
    return {name for page in pages for name in names_in(page.read_text())}


def written_tests(*places: str) -> set[str]:
    sources = [source for place in places for source in (ROOT / place).rglob("*.[pr][ys]")]
    return {name for source in sources for name in DEFINED.findall(source.read_text())}


def test_every_test_that_a_page_names_is_written() -> None:
    assert named_tests(*PAGES) - written_tests("tests", "rust") == set()


def test_every_bad_day_is_made_to_happen_on_real_processes() -> None:
    real, heading, _ = BAD_DAYS.read_text().partition(WITHOUT)
    assert heading, "the page says which are not"
    named = names_in(real)
    assert named
    assert named - written_tests(*ON_REAL_PROCESSES) == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
