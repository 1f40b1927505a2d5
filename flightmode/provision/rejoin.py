"""etcd's members follow the nodes: who is gone is struck off, who comes is announced first.

A member whose disk is gone is both: it gets a new life, and starts empty.

Source: etcd's operations guide, "Runtime reconfiguration": remove first, then add, so that the
quorum is never larger than it has to be.
"""

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from flightmode.config import Config
from flightmode.config.derive import bracketed
from flightmode.errors import RequestRefused, StoreUnknown
from flightmode.provision.plan import Plan, Step
from flightmode.provision.wanted import ETCD, ETCD_DROP_INS, STATE, File, Owned
from flightmode.store.etcd_members import EtcdHealth, EtcdMember, EtcdMembers

DROP_IN = f"{ETCD_DROP_INS}/rejoin.conf"
ETCD_DATA = f"{STATE}-etcd"
_MEMBER = "for etcd's member "
_KNOWN_WITHIN_S = 20.0
_AGAIN_S = 0.5

T = TypeVar("T")


async def announce(
    members: EtcdMembers,
    config: Config,
    name: str,
    *,
    gone: int | None = None,
    held: int | None = None,
) -> int:
    """Make etcd expect this node as a new member; its number.

    `gone`: the member that goes; `held`: the one whose data the node's machine has.  A member that
    has started and whose data are not there may never come back under its number: it would have
    forgotten what it voted.  May be repeated: what is done already is left alone.  Raises
    StoreUnknown, RequestRefused.
    """
    return await _until_known(lambda: _announce(members, config, name, {gone}, held))


async def _announce(
    members: EtcdMembers, config: Config, name: str, gone: set[int | None], held: int | None
) -> int:
    url, ours = _peer_url(config, name), {_peer_url(config, each) for each in config.nodes}

    def is_over(each: EtcdMember) -> bool:
        if not each.name:
            # Announced, and its machine never came.
            return not ours & set(each.peer_urls)
        return each.name == name and (url not in each.peer_urls or each.id != held)

    for each in await members.list():
        if each.id in gone or is_over(each):
            await members.remove(each.id)
    if not any(url in each.peer_urls for each in await members.list()):
        await members.add(url)
    for each in await members.list():
        if url in each.peer_urls:
            return each.id
    raise RequestRefused(f"etcd did not take {url} as a new member", hint="flightmode status")


async def known_as(members: EtcdMembers, name: str) -> int | None:
    """The number of the member of that name; None: none has started.  Raises StoreUnknown."""

    async def look() -> int | None:
        return next((each.id for each in await members.list() if each.name == name), None)

    return await _until_known(look)


async def follow(members: EtcdMembers, config: Config) -> Mapping[str, int]:
    """Make etcd's members those of flightmode.toml; the numbers of those that have yet to start.

    May be repeated.  Raises StoreUnknown, RequestRefused: two have changed at once.
    """
    return await _until_known(lambda: _follow(members, config))


async def _follow(members: EtcdMembers, config: Config) -> Mapping[str, int]:
    urls = {_peer_url(config, name): name for name in config.nodes}
    known = await members.list()
    strays = [each for each in known if not urls.keys() & set(each.peer_urls)]
    if len(strays) > 1:
        text = f"{len(strays)} of etcd's {len(known)} members are not in flightmode.toml"
        raise RequestRefused(text, hint="flightmode status")
    stay = [each for each in known if each.name and each not in strays]
    for stray in strays:
        await _lead_elsewhere(members, stray, stay)
        await members.remove(stray.id)
    there = {url for each in await members.list() for url in each.peer_urls}
    for url in urls.keys() - there:
        await members.add(url)
    new = {url: each.id for each in await members.list() if not each.name for url in each.peer_urls}
    return {name: new[url] for url, name in urls.items() if url in new}


def moved(known: Sequence[EtcdMember], config: Config) -> Mapping[str, str]:
    """The nodes that are another machine by flightmode.toml than by etcd, with how, in words.

    A member that has not started yet has no name, and is known by its address alone.  Of no
    members at all nothing is known.
    """
    if not known:
        return {}
    urls = {_peer_url(config, name): name for name in config.nodes}
    at = {url: each.name for each in known for url in each.peer_urls}
    where = {each.name: ", ".join(each.peer_urls) for each in known if each.name}
    found = {}
    for url, name in urls.items():
        if at.get(url) in (name, ""):
            continue
        if name in where:
            found[name] = f"{name} is at {where[name]} by etcd, and at {url} by flightmode.toml"
        elif url in at:
            found[name] = f"who is at {url} is {at[url]} by etcd, and {name} by flightmode.toml"
        else:
            told = ", ".join(f"{each} at {there}" for each, there in where.items())
            found[name] = f"etcd knows no {name} at {url}; it knows {told}"
    return found


def _peer_url(config: Config, name: str) -> str:
    node = config.nodes[name]
    return f"https://{bracketed(node.host)}:{node.etcd_peer_port}"


async def _lead_elsewhere(members: EtcdMembers, gone: EtcdMember, stay: list[EtcdMember]) -> None:
    """A leader that is struck off takes with it what the others forward to it meanwhile."""
    said = [each for each in (await members.health()).values() if isinstance(each, EtcdHealth)]
    if stay and any(each.leader_id == gone.id for each in said):
        await members.move_leader(stay[0].id)


async def _until_known(act: Callable[[], Awaitable[T]]) -> T:
    """Again, while etcd does not answer: the list tells by then what was done.

    For a moment it elects a leader, or refuses a change ("unhealthy cluster") because a member has
    been connected for less than 5 s.
    """
    until_s = time.monotonic() + _KNOWN_WITHIN_S
    while True:
        try:
            return await act()
        except StoreUnknown:
            if time.monotonic() > until_s:
                raise
        await asyncio.sleep(_AGAIN_S)


def existing(member: int) -> File:
    """Tells etcd, when it starts without data, that the others are there already; and whoever
    comes by later, which member these data are of.

    With data it means nothing to etcd, so it may stay.
    """
    text = f"# {_of(member)}\n[Service]\nEnvironment=ETCD_INITIAL_CLUSTER_STATE=existing\n"
    return File(DROP_IN, text.encode(), Owned(0o644, "root:root"), ())


def clearing(name: str, member: int) -> Plan:
    """Before a member starts anew: data of one that was struck off keep etcd from starting.

    They are kept under another name; those of this very member are left alone, so it may be
    repeated, also once it has started.
    """
    command = f"""set -e
grep -qsx {shlex.quote(f"# {_of(member)}")} {DROP_IN} && exit 0
known=$(systemctl show --property=LoadState --value {ETCD})
[ "$known" = not-found ] || systemctl stop {ETCD}
[ -e {ETCD_DATA}/member ] || exit 0
aside={ETCD_DATA}.old-$(date +%Y%m%dT%H%M%S)
mv -T {ETCD_DATA} "$aside"
echo "$aside"
"""
    return Plan(name, (), (Step("etcd's data of an earlier life go aside", command, tells=True),))


HELD = f"[ ! -e {ETCD_DATA}/member ] || cat {DROP_IN} 2>/dev/null || true"
"""A shell command; `held_in` reads what it prints."""


def held_in(printed: str) -> int | None:
    """The member whose data a machine has, as far as it was announced by a command of ours."""
    first, _, _ = printed.partition("\n")
    _, said, number = first.partition(_MEMBER)
    return int(number, 16) if said else None


def _of(member: int) -> str:
    return f"{_MEMBER}{member:x}"
