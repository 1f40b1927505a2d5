"""Every error answers: whose fault, may I try again, what now."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightmode import errors
from flightmode.cli.reference import known_errors
from flightmode.cli.verbs import VERBS
from flightmode.errors import FlightmodeError

ROOT = Path(__file__).parents[2]

BRANCHES = {
    "StoreError": "FM1",
    "PostgresError": "FM2",
    "FenceError": "FM3",
    "ConfigError": "FM4",
    "InterfaceError": "FM5",
    "AgentError": "FM6",
    "ProxyError": "FM7",
    "ProvisionError": "FM8",
}
OURS = re.compile(r"(?:sudo )?flightmode (?P<verb>--help|--version|[a-z]+)( |$)")
# Of Debian; and what it installs for PostgreSQL, for Python and for machines far away.
PROGRAMS = [
    "adduser",
    "apt-get",
    "cat",
    "chmod",
    "chown",
    "df",
    "getent",
    "ip",
    "ls",
    "mkdir",
    "modprobe",
    "pg_upgrade",
    "pip",
    "psql",
    "sensible-editor",
    "ss",
    "ssh",
    "ssh-add",
    "ssh-copy-id",
    "ssh-keygen",
    "systemctl",
    "timedatectl",
    "which",
]
THEIRS = re.compile(rf"(?:sudo (?:-u \w+ )?)?(?:\./dev|{'|'.join(PROGRAMS)})( |$)")
# What a person would have to fill in, or read past.
UNTYPABLE = re.compile(r"\b[A-Z][A-Z_]+\b|[()…<>]|  ")
SOMETHING = "x1"
"""Stands for whatever an f-string puts in."""


def is_a_command(hint: str) -> bool:
    """Whether a person can type it as it stands; what is in quotes is, by them."""
    hint = re.sub(r"'[^']*'", SOMETHING, hint)
    ours = OURS.match(hint)
    known = ours["verb"].startswith("-") or ours["verb"] in VERBS if ours else THEIRS.match(hint)
    return bool(known) and not UNTYPABLE.search(hint)


def every() -> list[type[FlightmodeError]]:
    found = [one for one in vars(errors).values() if isinstance(one, type)]
    # A class that only gathers others is never raised, and needs no code of its own.
    return [
        one
        for one in found
        if issubclass(one, FlightmodeError)
        and one is not FlightmodeError
        and ("code" in vars(one) or not one.__subclasses__())
    ]


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in every()]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("error", every(), ids=lambda error: error.__name__)
def test_an_error_has_a_code_of_its_branch_and_a_command_as_its_hint(
    error: type[FlightmodeError],
) -> None:
    (branch,) = [base.__name__ for base in error.__mro__ if base.__name__ in BRANCHES]
    assert re.fullmatch(BRANCHES[branch] + r"\d\d", error.code)
    assert "code" in vars(error)
    assert error.__doc__
    # sysexits.h, or 1: the question was understood, and its answer is no.
    assert error.exit_status == 1 or 64 <= error.exit_status <= 78
    assert is_a_command(error.hint), error.hint


@pytest.mark.parametrize("error", known_errors(), ids=lambda error: error.__name__)
def test_an_error_of_any_room_has_a_command_as_its_hint(error: type[FlightmodeError]) -> None:
    assert is_a_command(error.hint), error.hint


def literal(value: ast.expr | None) -> str | None:
    """A text as it stands in the source; None: it is made elsewhere."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(literal(part) or SOMETHING for part in parts)
        case _:
            return None


def hints(tree: ast.AST) -> Iterator[ast.expr | None]:
    """Every `hint=…`, `hint = …`, and the third word of a finding of `flightmode check`."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="hint", value=value):
                yield value
            case ast.Assign(targets=[ast.Name(id="hint")], value=value):
                yield value
            case ast.Call(func=ast.Name(id="Finding"), args=[_, _, hint]):
                yield hint


def hints_in(path: Path) -> list[tuple[int, str]]:
    found = ((each, literal(each)) for each in hints(ast.parse(path.read_text())))
    return [(each.lineno, text) for each, text in found if each is not None and text is not None]


def test_every_hint_that_stands_in_the_sources_is_a_command() -> None:
    sources = sorted((ROOT / "flightmode").rglob("*.py"))
    told = [(path, line, text) for path in sources for line, text in hints_in(path)]
    assert len(told) > 100
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path, line, text in told
        if not is_a_command(text)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "hint", ["GET /", "chmod 600 FILE", "flightmode fly", "flightmode why   (again)", "look at it"]
)
def test_what_cannot_be_typed_is_no_command(hint: str) -> None:
    assert not is_a_command(hint)
