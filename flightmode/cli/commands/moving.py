"""`flightmode move`: the whole cluster onto other machines, while it serves."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.cli.asking import by_operator, freshness
from flightmode.cli.commands.exchanging import Exchanging, replace_text
from flightmode.cli.commands.provision import bring
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, place
from flightmode.cli.show import out
from flightmode.config import Config
from flightmode.config.edit import with_apps
from flightmode.errors import RequestWrong
from flightmode.provision.succession import next_exchange


def move(
    to: Annotated[
        Path, typer.Option("--to", help="A flightmode.toml with the nodes as they shall be.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: Annotated[
        float, typer.Option("--wait", help="So many seconds for each step of the cluster.")
    ] = 600.0,
    json: AsJson = False,
) -> None:
    """Move the cluster to other machines, at another provider too, while it serves.

    One machine makes room for another, three times at most; two complete copies of the data exist
    all the while, and writes move once, by a switchover. The machines of applications are added
    first. In the end flightmode.toml is what the new file says. The new nodes need names of their
    own, bare Debian, and the same ssh login. When it stops in the middle, type it again.
    """
    here = place(config)
    target = place(to)
    if target.config.cluster.name != here.config.cluster.name:
        text = f"{to} is of another cluster, {target.config.cluster.name}"
        raise RequestWrong(text, hint="flightmode move --help")
    moving = Exchanging(here.path, wait_s=wait_s, json=json)
    asyncio.run(_move(moving, target.config, wait_s=wait_s, json=json))
    replace_text(here.path, to.read_text())
    names = [*target.config.nodes, *target.config.provision.apps]
    asyncio.run(bring(moving.here, names, wait_s=wait_s, json=json))


async def _move(moving: Exchanging, target: Config, *, wait_s: float, json: bool) -> None:
    """Until the nodes are those of `target`."""
    await moving.finish()
    apps = {n: app for n, app in target.provision.apps.items() if n not in _apps(moving)}
    if apps:
        moving.rewrite(lambda text: with_apps(text, apps))
        names = [*moving.here.config.nodes, *moving.here.config.provision.apps]
        await bring(moving.here, names, wait_s=wait_s, json=json)
    while True:
        here = moving.here
        async with by_operator(here, here.tls(None, None)) as cluster:
            status: dict[str, Any] = (await cluster.best("/status", freshness)).body
        exchange = next_exchange(here.config.nodes, target.nodes, str(status["writes"]))
        if exchange is None:
            break
        await moving.exchange(exchange)
    for name in _apps(moving).keys() - target.provision.apps.keys():
        out.print(f"{name} is no machine of an application any more: its proxy is left running")


def _apps(moving: Exchanging) -> dict[str, Any]:
    return dict(moving.here.config.provision.apps)
