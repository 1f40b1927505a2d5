"""Pages for people: the tests and the files that they name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "ARCHITECTURE.md"]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
DEFINED = re.compile(r"^\s*(?:async def|def|fn) (\w+)", re.MULTILINE)


def named_tests() -> set[str]:
    return {
        name for page in PAGES for name in re.findall(r"`(?:\w+::)?(test_\w+)`", page.read_text())
    }


def written_tests() -> set[str]:
    sources = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("rust/**/*.rs")]
    return {name for source in sources for name in DEFINED.findall(source.read_text())}


def test_every_test_that_a_page_names_is_written() -> None:
    assert named_tests() - written_tests() == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
