"""`flightmode move`: the whole cluster onto other machines, while it serves."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.cli.commands.exchanging import Exchanging
from flightmode.cli.commands.ways import NETWORK, Ways
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place, text_of
from flightmode.cli.show import out
from flightmode.config import Config, parse
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
    text = text_of(to)
    asyncio.run(move_to(here, text, str(to), NETWORK, wait_s=wait_s, json=json))


async def move_to(
    here: Place, text: str, name: str, ways: Ways, *, wait_s: float, json: bool
) -> None:
    """Until flightmode.toml is `text`, as the file `name` had it when it was begun: whatever
    becomes of that file meanwhile was never looked at.  Raises ConfigInvalid, RequestWrong, and
    what an exchange documents.
    """
    # It will stand in the place of flightmode.toml: its relative paths count from there.
    target = parse(text, base=here.path.absolute().parent, name=name)
    if target.cluster.name != here.config.cluster.name:
        wrong = f"{name} is of another cluster, {target.cluster.name}"
        raise RequestWrong(wrong, hint="flightmode move --help")
    moving = Exchanging(here.path, wait_s=wait_s, json=json, ways=ways)
    await _exchange_all(moving, target, ways, wait_s=wait_s, json=json)
    moving.rewrite(lambda _: text)
    await _bring(moving, ways, wait_s=wait_s, json=json)


async def _exchange_all(
    moving: Exchanging, target: Config, ways: Ways, *, wait_s: float, json: bool
) -> None:
    """Until the nodes are those of `target`."""
    await moving.finish()
    apps = {n: app for n, app in target.provision.apps.items() if n not in _apps(moving)}
    if apps:
        moving.rewrite(lambda text: with_apps(text, apps))
        await _bring(moving, ways, wait_s=wait_s, json=json)
    while True:
        here = moving.here
        status = await ways.status(here)
        exchange = next_exchange(here.config.nodes, target.nodes, str(status["writes"]))
        if exchange is None:
            break
        await moving.exchange(exchange)
    for name in _apps(moving).keys() - target.provision.apps.keys():
        out.print(f"{name} is no machine of an application any more: its proxy is left running")


async def _bring(moving: Exchanging, ways: Ways, *, wait_s: float, json: bool) -> None:
    here = moving.here
    names = [*here.config.nodes, *here.config.provision.apps]
    await ways.bring(here, names, extra={}, wait_s=wait_s, json=json)


def _apps(moving: Exchanging) -> dict[str, Any]:
    return dict(moving.here.config.provision.apps)
