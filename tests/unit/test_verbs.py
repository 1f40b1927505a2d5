"""The verbs are imported one at a time, and all of them are there."""

import subprocess
import sys

import pytest

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
