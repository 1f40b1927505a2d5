"""Nodes that are being exchanged: what was begun is written down beside flightmode.toml.

`leaving/NAME.toml`: another machine comes in the place of NAME; the file as it was before.
`leaving/NAME.anew`: the machine of NAME comes anew; the number of the etcd member that goes.
"""

from pathlib import Path

from flightmode.cli.options import Place
from flightmode.errors import RequestWrong
from flightmode.pki import write_private

_ROOM = "leaving"


def record_of(path: Path, name: str) -> Path:
    """Where the flightmode.toml that still knew the node is kept; `path`: the one of now."""
    return path.parent / _ROOM / f"{name}.toml"


def anew_of(path: Path, name: str) -> Path:
    """Where it is written that the machine of that node comes anew."""
    return path.parent / _ROOM / f"{name}.anew"


def write_down(record: Path, text: str) -> None:
    """Whole and on the disk, or not at all, whatever happens meanwhile."""
    record.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(record, text)


def leaving(path: Path) -> list[Path]:
    """The records of all nodes in whose place others come."""
    return sorted((path.parent / _ROOM).glob("*.toml"))


def coming_anew(path: Path) -> list[Path]:
    """The records of all nodes whose machines come anew."""
    return sorted((path.parent / _ROOM).glob("*.anew"))


def nothing_is_leaving(here: Place, but: Path | None = None) -> None:
    """Raises RequestWrong: an exchange was cut off, another one than that of the record `but`."""
    begun = [*leaving(here.path), *coming_anew(here.path)]
    names = ", ".join(each.stem for each in begun if each != but)
    if names:
        text = f"the exchange of {names} was begun and is not finished"
        raise RequestWrong(text, hint=f"flightmode node finish --config {here.path}")
