"""The pages made from the code are as the code is, and every code has its words."""

import re
from pathlib import Path

import pytest

from flightmode.cli.reference import known_errors, pages
from flightmode.errors import FlightmodeError, from_answer

ROOT = Path(__file__).resolve().parents[2]


PAGES = ("configuration.md", "metrics.md", "errors.md", "exit-codes.md", "cli.md", "api.md")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_fresh(name: str) -> None:
    made = pages()[name]
    kept = (ROOT / "docs" / "reference" / name).read_text()
    assert kept == made, "run: python -m flightmode.cli.reference"


def test_every_page_that_is_made_is_kept() -> None:
    assert set(pages()) == set(PAGES)


def test_no_two_errors_share_a_code() -> None:
    codes = [each.code for each in known_errors()]
    assert len(codes) == len(set(codes))


def test_every_code_that_a_node_shows_has_its_words() -> None:
    known = {each.code for each in known_errors()}
    for path in (ROOT / "flightmode").rglob("*.py"):
        used = set(re.findall(r'"(FM\d{3})', path.read_text()))
        assert used <= known, path


@pytest.mark.parametrize("kind", known_errors(), ids=lambda kind: kind.__name__)
def test_an_error_is_whole(kind: type[FlightmodeError]) -> None:
    assert re.fullmatch(r"FM\d{3}", kind.code)
    assert 1 <= kind.exit_status <= 78
    assert kind.hint
    assert kind.__doc__


@pytest.mark.parametrize("kind", known_errors(), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_through_the_api(kind: type[FlightmodeError]) -> None:
    again = from_answer(kind.code, "a message", "a hint")
    assert (again.code, again.exit_status, again.retry) == (
        kind.code,
        kind.exit_status,
        kind.retry,
    )
    assert (again.message, again.hint_text) == ("a message", "a hint")


def test_an_error_of_a_newer_version_is_still_one() -> None:
    assert from_answer("FM999", "what?", "x").message == "what?"
