"""The verbs are imported one at a time, and all of them are there."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from flightmode.cli.main import app
from flightmode.cli.verbs import VERBS
from tests.unit.commands import flightmode


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_called_by_the_name_that_it_is_found_by(name: str) -> None:
    assert VERBS[name].load().name == name


def test_a_command_that_needs_little_imports_little() -> None:
    """An agent that restarts has as long as its lease runs."""
    asked = (
        "import sys; from flightmode.cli.verbs import VERBS; VERBS['fence'].load();"
        "print(*(name for name in ('asyncssh', 'aiohttp', 'psycopg') if name in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert (loaded.stdout.strip(), loaded.stderr) == ("", "")


def test_a_verb_with_a_slip_of_the_finger_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    done = flightmode(capsys, "swichover")
    assert done.status == 2
    assert "'switchover'" in done.err


LONG_LIVED = {"agent", "fence", "proxy", "proxy check"}
"""What systemd starts, which answers in its log; and what looks at a file for it."""


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for word, each in below.items():
        yield from leaves(f"{name} {word}".strip(), each)


def test_every_verb_that_answers_answers_programs_too() -> None:
    found = dict(leaves("", typer.main.get_command(app)))
    assert "destroy" in found
    without = {
        name
        for name, command in found.items()
        if not any("--json" in each.opts for each in command.params)
    }
    assert without - LONG_LIVED == set()
