"""Nodes that are being exchanged: what was begun is written down beside flightmode.toml."""

from pathlib import Path

from flightmode.cli.options import Place
from flightmode.errors import RequestWrong

_ROOM = "leaving"


def record_of(path: Path, name: str) -> Path:
    """Where the flightmode.toml that still knew the node is kept; `path`: the one of now."""
    return path.parent / _ROOM / f"{name}.toml"


def leaving(path: Path) -> list[Path]:
    """The records of all nodes that are being exchanged."""
    return sorted((path.parent / _ROOM).glob("*.toml"))


def nothing_is_leaving(here: Place) -> None:
    """Raises RequestWrong: an exchange was cut off."""
    names = ", ".join(each.stem for each in leaving(here.path))
    if names:
        text = f"the exchange of {names} was begun and is not finished"
        raise RequestWrong(text, hint=f"flightmode node finish --config {here.path}")
