"""`flightmode restart`, `reload`, `reinit`: work on the Postgres of one node."""

import asyncio
from typing import Annotated

import typer

from flightmode.cli.asking import Asking, ask, by_operator
from flightmode.cli.commands.switchover import Wait
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Place,
    TlsDirectory,
    place,
)
from flightmode.errors import NotConfirmed
from flightmode.model.member import NodeKind

Node = Annotated[str, typer.Argument(help="The database node.", metavar="NODE")]


def restart(
    node: Node,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 300,
    json: AsJson = False,
) -> None:
    """Restart Postgres on a node. On the primary writes stop meanwhile.

    Better on the primary: restart the standby, `flightmode switchover`, restart the other one.
    """
    _each(place(config), tls, "/restart", (node,), wait, json=json)


def reload(
    node: Annotated[
        str | None, typer.Argument(help="The database node; without it, all.", metavar="[NODE]")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 60,
    json: AsJson = False,
) -> None:
    """Render the settings of Postgres again and reload them. Nobody is disconnected."""
    here = place(config)
    nodes = _databases(here) if node is None else (node,)
    _each(here, tls, "/reload", nodes, wait, json=json)


def reinit(
    node: Node,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 3600,
    json: AsJson = False,
) -> None:
    """Copy the primary's data to a standby again, from the start.

    For a standby whose data are damaged or too far behind. The old directory is kept beside the
    new one. Until the copy is complete this node can't take over.
    """
    here = place(config)
    name = here.known(node)
    if not yes and not typer.confirm(f"Copy all data to {name} again?", err=True):
        raise NotConfirmed("nothing was done")
    _each(here, tls, "/reinit", (name,), wait, json=json)


def _databases(here: Place) -> tuple[str, ...]:
    nodes = here.config.nodes.items()
    return tuple(name for name, each in nodes if each.kind is NodeKind.DATABASE)


def _each(
    here: Place,
    tls: TlsDirectory,
    path: str,
    nodes: tuple[str, ...],
    wait: float,
    *,
    json: bool,
) -> None:
    async def go() -> None:
        async with by_operator(here, here.tls(tls, None)) as cluster:
            for name in nodes:
                await ask(cluster, Asking(path, {"node": here.known(name)}, wait, json))

    asyncio.run(go())
