"""Every error answers: whose fault, may I try again, what now."""

import re

import pytest

from flightmode import errors
from flightmode.errors import FlightmodeError

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
# A command of ours, or of Debian, that a person can type as it stands.
COMMAND = re.compile(r"^(sudo )?(flightmode|\./dev|systemctl|ls|df|ss|chmod)\b")


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
    assert COMMAND.match(error.hint), error.hint
