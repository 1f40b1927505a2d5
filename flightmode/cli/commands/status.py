"""`flightmode status`: the cluster at a glance."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from flightmode.cli.asking import by_operator, freshness
from flightmode.cli.client import Cluster
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    NodeName,
    TlsDirectory,
    place,
)
from flightmode.cli.show import as_json, concerns, out, status_view
from flightmode.errors import FlightmodeError

_EVERY_S = 0.5


def status(
    config: ConfigPath = DEFAULT_CONFIG,
    node: NodeName = None,
    tls: TlsDirectory = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep looking until Ctrl-C.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 unless all is well; for monitoring.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Who is primary, who is behind, what is wrong.

    Asks all nodes and shows what the best informed one says; --node asks that one only.
    Exit status: 0 writes are accepted; 1 they are not, or with --strict: a node is silent, has a
    problem or a warning, the primary is alone, or the cluster is paused; 69 no node answers.
    """
    here = place(config)
    only = None if node is None else here.known(node)
    cluster_tls = here.tls(tls, node)

    async def look() -> bool:
        async with by_operator(here, cluster_tls, only) as cluster:
            if watch:
                return await _keep_looking(cluster, json=json)
            seen: dict[str, Any] = (await cluster.best("/status", freshness)).body
        if json:
            as_json(seen)
        else:
            out.print(status_view(seen))
        return seen["writes"] is not None and not (strict and concerns(seen))

    if not asyncio.run(look()):
        raise typer.Exit(1)


async def _keep_looking(cluster: Cluster, *, json: bool) -> bool:
    """Until interrupted; nodes that do not answer are waited for."""
    picture: RenderableType
    with Live(console=out, auto_refresh=False) as live:
        while True:
            try:
                seen: dict[str, Any] = (await cluster.best("/status", freshness)).body
            except FlightmodeError as failure:
                seen, picture = {"error": str(failure)}, Text(str(failure), style="red")
            else:
                picture = status_view(seen)
            if json:
                as_json(seen, one_line=True)
            else:
                live.update(picture, refresh=True)
            await asyncio.sleep(_EVERY_S)
