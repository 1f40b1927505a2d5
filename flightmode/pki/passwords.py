"""Passwords and tokens: made by the machine, kept in files, never shown."""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from flightmode.errors import FileMissing
from flightmode.pki.files import make_directory, private_text, write_private

SECRETS: Final = ("replication", "rewind", "monitor", "app", "api-token", "heartbeat")
"""The files of the secrets directory, the same on all nodes."""

_BYTES: Final = 24


def make_secrets(directory: Path, names: Iterable[str] = SECRETS) -> tuple[str, ...]:
    """Make those that are not there yet, and say which; what is there is never changed."""
    make_directory(directory)
    made = tuple(name for name in names if not (directory / name).exists())
    for name in made:
        write_private(directory / name, f"{secrets.token_urlsafe(_BYTES)}\n")
    return made


def read_secret(directory: Path, name: str) -> str:
    """One of them.  Raises FileMissing (also when it holds no single word), FileUnsafe."""
    value = private_text(directory / name)
    if len(value.split()) != 1 or not value.isprintable():
        raise FileMissing(f"{directory / name} does not hold one word")
    return value


def pgpass(entries: Mapping[tuple[str, int, str, str], str]) -> str:
    """The text of a password file: (host, port, database, user) -> password.

    Source: Postgres manual, 34.16 The Password File.
    """
    return "".join(
        ":".join((*(_escaped(str(part)) for part in where), _escaped(password))) + "\n"
        for where, password in entries.items()
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
