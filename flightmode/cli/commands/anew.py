"""A node's machine comes anew: under the same name, bare, at the address of flightmode.toml.

That it has begun is written down (leaving.py), with the member of etcd that goes: from then on
only `flightmode node finish`, or the same command, goes on.
"""

from collections.abc import Mapping
from typing import Any

from flightmode.cli.commands.provision import say
from flightmode.cli.commands.reaching import login_of
from flightmode.cli.commands.rolling import NOTHING_NEW
from flightmode.cli.commands.ways import Ways
from flightmode.cli.leaving import anew_of, write_down
from flightmode.cli.options import Place
from flightmode.cli.show import out
from flightmode.errors import RequestWrong
from flightmode.provision.apply import carry_out, plan_all
from flightmode.provision.bundle import bundle_of, end_soon
from flightmode.provision.rejoin import HELD, announce, clearing, existing, held_in, known_as
from flightmode.provision.wanted import Wanted, wanted
from flightmode.remote.ssh import forget_key

_NONE = "none"


async def begin_anew(
    here: Place, name: str, ways: Ways, *, force: bool, wait_s: float, json: bool
) -> None:
    """Begin it, or go on with it, and bring it to its end.

    Nothing is changed before it is known that the machine fits; all that is lost by then is the
    host key that was pinned for the one before.  Raises RequestWrong, CertificateInvalid,
    HostUnfit, HostUnreachable, and what `provision` documents.
    """
    record = anew_of(here.path, name)
    if not record.exists():
        may_be_replaced(await ways.status(here), name, force=force)
    end_soon(here.config, here.path.absolute(), here.config.nodes)
    login = login_of(here)
    forget_key(login.known_hosts, here.config.nodes[name].host, login.port)
    await fits(ways, here, name)
    if not record.exists():
        async with ways.etcd(here, _others(here, name)) as members:
            gone = await known_as(members, name)
        write_down(record, _NONE if gone is None else f"{gone:x}")
    await finish_anew(here, name, ways, wait_s=wait_s, json=json)


async def finish_anew(here: Place, name: str, ways: Ways, *, wait_s: float, json: bool) -> None:
    """Bring what was begun to its end.  May be repeated after any failure."""
    host = _wanted(here, here.known(name))
    record = anew_of(here.path, name)
    said = record.read_text().strip()
    gone = None if said == _NONE else int(said, 16)
    async with ways.remotes(here, [host]) as remotes:
        held = held_in((await remotes[name].run(HELD)).out)
    async with ways.etcd(here, _others(here, name)) as members:
        if gone is not None and gone == await known_as(members, name):
            # It may have taken over since it was asked for.
            may_be_replaced(await ways.status(here), name, force=True)
        member = await announce(members, here.config, name, gone=gone, held=held)
    if not json:
        out.print(f"{name}: etcd expects a new member in its place", soft_wrap=True)
    await cleared(ways, here, {name: member}, json=json)
    names = [*here.config.nodes, *here.config.provision.apps]
    await ways.bring(here, names, extra={name: (existing(member),)}, wait_s=wait_s, json=json)
    record.unlink()


async def fits(ways: Ways, here: Place, name: str) -> None:
    """Look at the machine.  Raises HostUnfit, HostUnreachable."""
    host = _wanted(here, name)
    async with ways.remotes(here, [host]) as remotes:
        await plan_all(here.config, [host], remotes, None)


async def cleared(ways: Ways, here: Place, newcomers: Mapping[str, int], *, json: bool) -> None:
    """Nothing of an earlier life is in the way of these members of etcd."""
    hosts = [_wanted(here, name) for name in newcomers]
    plans = [clearing(name, member) for name, member in newcomers.items()]
    async with ways.remotes(here, hosts) as remotes:
        await carry_out(plans, remotes, NOTHING_NEW, lambda step: say(out, step, quiet=json))


def may_be_replaced(status: dict[str, Any], name: str, *, force: bool) -> None:
    """Raises RequestWrong: that would take something away from a cluster that is well, or not."""
    if status["writes"] is None:
        text = f"nobody accepts writes now ({status['route']}): there is nothing to copy from"
        raise RequestWrong(text, hint="flightmode why")
    if status["writes"] == name:
        text = f"{name} is the primary; if its machine shall go, let another one lead first"
        raise RequestWrong(text, hint="flightmode switchover")
    if not force and any(node["name"] == name and node["heard"] for node in status["nodes"]):
        text = (
            f"{name} is still heard of: its etcd would be struck off while it runs. --by takes "
            "another machine in its place; --force takes this one, and its etcd begins anew"
        )
        raise RequestWrong(text, hint="flightmode node replace --help")


def _others(here: Place, name: str) -> list[str]:
    return [each for each in here.config.nodes if each != name]


def _wanted(here: Place, name: str) -> Wanted:
    return wanted(here.config, name, bundle_of(here.config, here.path.absolute(), name))
