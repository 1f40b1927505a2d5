"""Run a command line in process, as a shell would see it."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from flightmode.cli.main import run


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


def flightmode(capsys: pytest.CaptureFixture[str], *words: object) -> Ran:
    """Exit status and output; what was captured before is dropped."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([str(word) for word in words])
    captured = capsys.readouterr()
    code = ended.value.code
    return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)
