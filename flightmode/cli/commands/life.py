"""`flightmode node` and `flightmode destroy`: the rest of a cluster's life."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from flightmode.cli.commands.anew import begin_anew
from flightmode.cli.commands.exchanging import Exchanging
from flightmode.cli.commands.provision import say
from flightmode.cli.commands.ways import NETWORK, Ways
from flightmode.cli.leaving import anew_of, coming_anew, leaving, nothing_is_leaving
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, out
from flightmode.config import locations_of
from flightmode.config.check import is_address
from flightmode.config.schema import NodeSettings
from flightmode.errors import HostUnreachable, NotConfirmed, RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.apply import Progress, carry_out
from flightmode.provision.bundle import bundle_of
from flightmode.provision.removal import KEPT, removal
from flightmode.provision.succession import Exchange
from flightmode.provision.wanted import ETC, Wanted, wanted
from flightmode.provision.wheels import Release
from flightmode.remote.port import Remote

WaitWhole = Annotated[
    float, typer.Option("--wait", help="So many seconds for each step of the cluster.")
]

node = typer.Typer(name="node", help="Change which machines the nodes are.", no_args_is_help=True)


@node.callback()
def _nodes() -> None:
    """Change which machines the nodes are."""


@node.command()
def add(
    node: Annotated[str, typer.Argument(help="A bare Debian host.", metavar="NAME=HOST")],
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: WaitWhole = 300.0,
    json: AsJson = False,
) -> None:
    """Make it three database nodes: the new one takes the witness's place, and votes for it.

    A cluster has three nodes: a fourth would be one more that may fail, and no more that may be
    lost. The witness's machine is let go; `node remove` brings a witness back.
    """
    here = place(config)
    nothing_is_leaving(here)
    witness = next((n for n, each in here.config.nodes.items() if _is_witness(each)), None)
    if witness is None:
        text = "there are three database nodes already, and a cluster has three nodes"
        raise RequestWrong(text, hint="flightmode node replace --help")
    _exchange(here, witness, node, NodeKind.DATABASE, wait_s=wait_s, json=json)


@node.command()
def remove(
    name: Annotated[str, typer.Argument(help="A database node that shall go.")],
    witness: Annotated[
        str,
        typer.Option("--witness", help="Who votes in its place: bare Debian.", metavar="NAME=HOST"),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: WaitWhole = 300.0,
    json: AsJson = False,
) -> None:
    """Make it two database nodes and a witness, of three database nodes.

    The primary hands over first. The data of the node that goes stay on its disk, under another
    name.
    """
    here = place(config)
    nothing_is_leaving(here)
    if any(_is_witness(each) for each in here.config.nodes.values()):
        text = "there are two database nodes: with one, nobody could take over"
        raise RequestWrong(text, hint="flightmode node replace --help")
    _exchange(here, here.known(name), witness, NodeKind.WITNESS, wait_s=wait_s, json=json)


@node.command()
def replace(
    name: Annotated[str, typer.Argument(help="The node whose machine goes, or is gone for good.")],
    by: Annotated[
        str | None,
        typer.Option("--by", help="The new node. Without it: the same, anew.", metavar="NAME=HOST"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Without --by: although the node is still heard of.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: WaitWhole = 300.0,
    json: AsJson = False,
) -> None:
    """Put a bare Debian host in the place of a node, dead or alive. The cluster serves meanwhile.

    With --by another machine takes its place, under another name; a primary hands over first.
    Without, the node is dead and its new machine is at the address in flightmode.toml already. One
    that is still heard of is left alone. What etcd has on an old disk there is put aside.
    """
    here = place(config)
    nothing_is_leaving(here, anew_of(here.path, name) if by is None else None)
    if by is None:
        name = here.known(name)
        asyncio.run(begin_anew(here, name, NETWORK, force=force, wait_s=wait_s, json=json))
        return
    kind = here.config.nodes[here.known(name)].kind
    _exchange(here, name, by, kind, wait_s=wait_s, json=json)


@node.command()
def finish(
    config: ConfigPath = DEFAULT_CONFIG, wait_s: WaitWhole = 300.0, json: AsJson = False
) -> None:
    """Go on with an exchange of nodes, or a replacement, that was cut off. With none, nothing is
    done.

    When the node that goes has become the primary meanwhile, another one leads first; when none
    can, nothing more is changed until one can.
    """
    path = config
    if not (leaving(path) or coming_anew(path) or json):
        out.print("no node is being exchanged")
    asyncio.run(Exchanging(path, wait_s=wait_s, json=json).finish())


def _is_witness(settings: NodeSettings) -> bool:
    return settings.kind is NodeKind.WITNESS


def _exchange(
    here: Place, gone: str, text: str, kind: NodeKind, *, wait_s: float, json: bool
) -> None:
    name, equals, host = text.partition("=")
    if not (equals and name and host):
        raise RequestWrong(f"{text!r} is not NAME=HOST", hint="flightmode node --help")
    if not is_address(host):
        text = f"{host!r} is not an IP address: etcd does not listen at a name"
        raise RequestWrong(text, hint="flightmode node --help")
    if name in here.config.nodes:
        raise RequestWrong(f"there is a node {name} already: give the new one a name of its own")
    exchange = Exchange(gone, name, NodeSettings(kind=kind, host=host))
    asyncio.run(Exchanging(here.path, wait_s=wait_s, json=json).exchange(exchange))


def destroy(
    config: ConfigPath = DEFAULT_CONFIG,
    name: Annotated[
        str | None, typer.Option("--name", help="The cluster's name, instead of being asked.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without", metavar="NAME", help="A machine that is dead; may be said again."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Take Flightmode off all machines of flightmode.toml. The databases go down.

    The data directories stay there, beside where they were, and so does every older copy of them;
    what stays is printed. Debian's packages stay too. When a machine does not answer nothing is
    done; one that is dead is left out by --without, and what is on it still is said.
    """
    here = place(config)
    known = [*here.config.nodes, *here.config.provision.apps]
    for each in without or ():
        if each not in known:
            raise RequestWrong(f"there is no machine {each!r}; these are: {', '.join(known)}")
    asked = here.config.cluster.name
    said = name or typer.prompt(f"Type the cluster's name ({asked}) to take it down", err=True)
    if said.strip() != asked:
        raise NotConfirmed("that is not its name; nothing was done")
    asyncio.run(take_down(here, NETWORK, without=without or [], json=json))


async def take_down(here: Place, ways: Ways, *, without: Sequence[str], json: bool) -> None:
    """Off all machines but those.  Raises HostUnreachable: of all others that do not answer."""
    config, toml = here.config, here.path.absolute()
    names = [*config.nodes, *config.provision.apps]
    known = [wanted(config, each, bundle_of(config, toml, each)) for each in names]
    hosts = [each for each in known if each.name not in without]
    plans = [removal(each, _data_dir(here, each.name)) for each in hosts]
    kept: dict[str, list[str]] = {}

    def heard(step: Progress) -> None:
        if step.ended and step.title == KEPT:
            kept[step.host] = step.said.splitlines()
        say(out, step, quiet=json)

    async with _all_of(here, hosts, ways, without) as remotes:
        await carry_out(plans, remotes, Release(""), heard)
    if json:
        steps = {each.name: [step.title for step in each.steps] for each in plans}
        as_json({"steps": steps, "kept": kept, "left_out": list(without)})
        return
    _tell_end(here, [each for each in known if each.name in without])


def _tell_end(here: Place, left: Sequence[Wanted]) -> None:
    there = " there" if left else ""
    out.print(f"nothing of it runs any more{there}; what is kept is named above, host by host")
    for host in left:
        data = f", PostgreSQL's data in {host.data_dir}" if host.data_dir else ""
        out.print(
            f"{host.name} ({host.host}) was left out, and has all of it still: "
            f"{', '.join(host.units)}, which start when it does; certificates and passwords in "
            f"{ETC}{data}",
            soft_wrap=True,
            markup=False,
        )
    if left:
        out.print(f"when it is there again: flightmode destroy --config {here.path}")


@asynccontextmanager
async def _all_of(
    here: Place, hosts: Sequence[Wanted], ways: Ways, without: Sequence[str]
) -> AsyncIterator[Mapping[str, Remote]]:
    """A link to each.  Raises HostUnreachable with all that do not answer."""
    links: dict[str, Remote] = {}
    silent: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for host in hosts:
            try:
                links |= await stack.enter_async_context(ways.remotes(here, [host]))
            except HostUnreachable as away:
                silent[host.name] = away.message
        if silent:
            left_out = " ".join(f"--without {name}" for name in (*without, *silent))
            text = "\n  ".join(("nothing was done:", *silent.values()))
            hint = f"flightmode destroy {left_out} --config {here.path}"
            raise HostUnreachable(text, hint=hint)
        yield links


def _data_dir(here: Place, name: str) -> str:
    path: Path = locations_of(here.config, name).data_dir
    return str(path)
