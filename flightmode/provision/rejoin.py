"""etcd's members follow the nodes: who is gone is struck off, who comes is announced first.

A member whose disk is gone is both: it gets a new life, and starts empty.

Source: etcd's operations guide, "Runtime reconfiguration": remove first, then add, so that the
quorum is never larger than it has to be.
"""

from flightmode.config import Config
from flightmode.config.derive import bracketed
from flightmode.errors import RequestRefused, StoreUnknown
from flightmode.provision.wanted import ETCD_DROP_INS, File, Owned
from flightmode.store.etcd_members import EtcdHealth, EtcdMember, EtcdMembers

DROP_IN = f"{ETCD_DROP_INS}/rejoin.conf"


async def announce(members: EtcdMembers, config: Config, name: str) -> str:
    """Make etcd expect this node as a new member; what was done, in words.

    May be repeated: what is done already is left alone.  Raises StoreUnknown, RequestRefused.
    """
    url = _peer_url(config, name)
    known = await members.list()
    if any(not each.name and url in each.peer_urls for each in known):
        return "etcd expects it already"
    old = next((each for each in known if each.name == name), None)
    if old is not None:
        await _strike_off(members, old)
    await members.add(url)
    if not any(url in each.peer_urls for each in await members.list()):
        raise RequestRefused(f"etcd did not take {url} as a new member", hint="flightmode status")
    return "etcd expects a new member in its place"


async def follow(members: EtcdMembers, config: Config) -> frozenset[str]:
    """Make etcd's members those of flightmode.toml; who of them has yet to start.

    May be repeated.  Raises StoreUnknown, RequestRefused: two have changed at once.
    """
    urls = {_peer_url(config, name): name for name in config.nodes}
    known = await members.list()
    strays = [each for each in known if not urls.keys() & set(each.peer_urls)]
    if len(strays) > 1:
        text = f"{len(strays)} of etcd's {len(known)} members are not in flightmode.toml"
        raise RequestRefused(text, hint="flightmode status")
    stay = [each for each in known if each.name and each not in strays]
    for stray in strays:
        await _lead_elsewhere(members, stray, stay)
        await _strike_off(members, stray)
    there = {url for each in await members.list() for url in each.peer_urls}
    for url in urls.keys() - there:
        await members.add(url)
    started = {url for each in await members.list() if each.name for url in each.peer_urls}
    return frozenset(name for url, name in urls.items() if url not in started)


def _peer_url(config: Config, name: str) -> str:
    node = config.nodes[name]
    return f"https://{bracketed(node.host)}:{node.etcd_peer_port}"


async def _lead_elsewhere(members: EtcdMembers, gone: EtcdMember, stay: list[EtcdMember]) -> None:
    """A leader that is struck off takes with it what the others forward to it meanwhile."""
    said = [each for each in (await members.health()).values() if isinstance(each, EtcdHealth)]
    if stay and any(each.leader_id == gone.id for each in said):
        await members.move_leader(stay[0].id)


async def _strike_off(members: EtcdMembers, old: EtcdMember) -> None:
    try:
        await members.remove(old.id)
    except StoreUnknown:
        # Done or not: the list says which.
        if any(each.id == old.id for each in await members.list()):
            raise


def existing() -> File:
    """Tells etcd, when it starts without data, that the others are there already.

    With data it means nothing, so it may stay.
    """
    text = "[Service]\nEnvironment=ETCD_INITIAL_CLUSTER_STATE=existing\n"
    return File(DROP_IN, text.encode(), Owned(0o644, "root:root"), ())
