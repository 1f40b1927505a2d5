"""`flightmode node replace` and `flightmode destroy`: the rest of a cluster's life."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.cli.asking import by_operator, freshness
from flightmode.cli.commands.provision import bring, login_of, remotes_of
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import out
from flightmode.config import locations_of
from flightmode.errors import NotConfirmed, RequestWrong
from flightmode.pki import client_context
from flightmode.provision.apply import Progress, carry_out
from flightmode.provision.bundle import bundle_of
from flightmode.provision.rejoin import announce, existing
from flightmode.provision.removal import removal
from flightmode.provision.wanted import wanted
from flightmode.provision.wheels import Release
from flightmode.remote.ssh import Login, SshHost, forget_key
from flightmode.store.etcd import EtcdStore

_ETCD_DEADLINE_S = 5.0

node = typer.Typer(name="node", help="Change which machines the nodes are.", no_args_is_help=True)


@node.callback()
def _nodes() -> None:
    """Change which machines the nodes are."""


@node.command()
def replace(
    name: Annotated[str, typer.Argument(help="The node whose machine is gone for good.")],
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: Annotated[
        float, typer.Option("--wait", help="So many seconds for the cluster to be whole.")
    ] = 300.0,
    json: AsJson = False,
) -> None:
    """Put a fresh machine in a dead one's place: bare Debian, at the address in flightmode.toml.

    With another address: change it in flightmode.toml first, and run `flightmode init DIR --renew`.
    The new machine gets everything, a copy of the data too; the cluster serves all the while.
    Refused while the node is the primary, and while nobody else accepts writes.
    """
    here = place(config)
    asyncio.run(_replace(here, here.known(name), wait_s=wait_s, json=json))


async def _replace(here: Place, name: str, *, wait_s: float, json: bool) -> None:
    async with by_operator(here, here.tls(None, None)) as cluster:
        status: dict[str, Any] = (await cluster.best("/status", freshness)).body
    if status["writes"] is None:
        text = f"nobody accepts writes now ({status['route']}): there is nothing to copy from"
        raise RequestWrong(text, hint="flightmode why")
    if status["writes"] == name:
        text = f"{name} is the primary; if its machine shall go, let another one lead first"
        raise RequestWrong(text, hint="flightmode switchover")
    login = login_of(here)
    forget_key(login.known_hosts, here.config.nodes[name].host, login.port)
    words = await _announced(here, login, name, through=status["writes"])
    if not json:
        out.print(f"{name}: {words}")
    names = [*here.config.nodes, *here.config.provision.apps]
    await bring(here, names, extra={name: (existing(),)}, wait_s=wait_s, json=json)


async def _announced(here: Place, login: Login, name: str, *, through: str) -> str:
    """Tell etcd, by way of the primary's machine: the firewall lets nobody else ask it."""
    node = here.config.nodes[through]
    link = await SshHost.connect(through, node.host, login)
    try:
        async with link.forwarded(node.host, node.etcd_client_port) as port:
            store = EtcdStore(
                (f"https://127.0.0.1:{port}",),
                client_context(*here.tls(None, None)),
                clock=time.monotonic,
                deadline_s=_ETCD_DEADLINE_S,
            )
            try:
                return await announce(store.members, here.config, name)
            finally:
                await store.close()
    finally:
        await link.close()


def destroy(
    config: ConfigPath = DEFAULT_CONFIG,
    name: Annotated[
        str | None, typer.Option("--name", help="The cluster's name, instead of being asked.")
    ] = None,
) -> None:
    """Take Flightmode off all machines of flightmode.toml. The databases go down.

    The data directories stay there, beside where they were; Debian's packages stay too.
    """
    here = place(config)
    asked = here.config.cluster.name
    said = name or typer.prompt(f"Type the cluster's name ({asked}) to take it down", err=True)
    if said.strip() != asked:
        raise NotConfirmed("that is not its name; nothing was done")
    asyncio.run(_destroy(here))


async def _destroy(here: Place) -> None:
    config, toml = here.config, here.path.absolute()
    names = [*config.nodes, *config.provision.apps]
    hosts = [wanted(config, each, bundle_of(config, toml, each)) for each in names]
    plans = [removal(each, _data_dir(here, each.name)) for each in hosts]
    async with remotes_of(here, hosts) as remotes:
        await carry_out(plans, remotes, Release(""), _say)
    out.print("nothing of it runs any more; the data are kept where they were, under a new name")


def _data_dir(here: Place, name: str) -> str:
    path: Path = locations_of(here.config, name).data_dir
    return str(path)


def _say(step: Progress) -> None:
    if step.ended:
        out.print(f"{step.host:>10}  {step.title}")
