"""The page of the field's mistakes: each of the 56 has a row and a test with its number."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/proxy-pitfalls.md"
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[int, list[str]]:
    found = ROW.findall(PAGE.read_text())
    return {int(number): re.findall(r"`(\w+)`", tests) for number, tests in found}


def written() -> set[str]:
    sources = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("rust/**/*.rs")]
    defined = re.compile(r"^\s*(?:async def|def|fn) (\w+)", re.MULTILINE)
    return {name for source in sources for name in defined.findall(source.read_text())}


@pytest.mark.parametrize("number", range(1, 57))
def test_each_mistake_has_a_test_with_its_number(number: int) -> None:
    named = [name for name in rows()[number] if re.search(rf"_0*{number}_", name)]
    assert named
    assert set(named) <= written()


def test_the_page_names_every_test_of_a_mistake() -> None:
    of_mistakes = {name for name in written() if re.match(r"(test_)?pitfall_\d", name)}
    named = {name for names in rows().values() for name in names}
    assert of_mistakes <= named
