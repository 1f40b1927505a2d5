"""`flightmode adoptable`: whether a PostgreSQL can become node one of a cluster."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.cli.options import AsJson
from flightmode.cli.show import as_json, out
from flightmode.postgres.adopt import Adoptable, inspect


def adoptable(
    data_dir: Annotated[Path, typer.Argument(help="Its data directory, on this machine.")],
    json: AsJson = False,
) -> None:
    """Whether this PostgreSQL can be taken over as it is. It may run; nothing is changed.

    Exit status: 0 it can; 65 it cannot, and why.
    """
    found = inspect(data_dir.absolute(), may_run=True)
    if json:
        as_json(as_told(found))
        return
    state = "it runs" if found.running else "it was stopped cleanly"
    out.print(f"PostgreSQL {found.data.pg_major} in {data_dir} can be taken over; {state}")
    for note in found.notes:
        out.print(f"  - {note}", soft_wrap=True)


def as_told(found: Adoptable) -> dict[str, Any]:
    """The same in JSON, as `init --adopt` reads it from another machine."""
    return {
        "data_dir": str(found.data_dir),
        "postgres_major": found.data.pg_major,
        "system_identifier": found.data.system_identifier,
        "running": found.running,
        "parameters": found.parameters,
        "hba": list(found.hba),
        "notes": list(found.notes),
    }
