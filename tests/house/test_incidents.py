"""The page of others' incidents: each row names tests that are written, each test is on its row."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)
ROWS = {
    int(number): set(re.findall(r"`(test_\w+)`", tests))
    for number, tests in ROW.findall((ROOT / "docs/incidents.md").read_text())
}
DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)
WRITTEN = {
    name
    for path in (ROOT / "tests/simulation").glob("test_*.py")
    for name in DEFINED.findall(path.read_text())
}


@pytest.mark.parametrize("number", sorted(ROWS))
def test_each_incident_is_played(number: int) -> None:
    assert ROWS[number]
    assert ROWS[number] <= WRITTEN


def test_what_is_named_after_an_incident_is_on_its_row() -> None:
    named = {name: int(name.split("_")[2]) for name in WRITTEN if name.startswith("test_row_")}
    assert {1, 2, 3, 4, 8, 17, 20, 25, 28, 59, 60} <= set(named.values())
    assert [name for name, number in named.items() if name not in ROWS.get(number, set())] == []
