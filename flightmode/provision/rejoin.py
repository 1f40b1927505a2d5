"""A member of etcd whose disk is gone gets a new life: struck off, announced again, started empty.

Source: etcd's operations guide, "Runtime reconfiguration": remove first, then add, so that the
quorum is never larger than it has to be.
"""

from flightmode.config import Config
from flightmode.config.derive import bracketed
from flightmode.errors import RequestRefused, StoreUnknown
from flightmode.provision.wanted import File, Owned
from flightmode.store.etcd_members import EtcdMember, EtcdMembers

DROP_IN = "/etc/systemd/system/flightmode-etcd.service.d/rejoin.conf"


async def announce(members: EtcdMembers, config: Config, name: str) -> str:
    """Make etcd expect this node as a new member; what was done, in words.

    May be repeated: what is done already is left alone.  Raises StoreUnknown, RequestRefused.
    """
    node = config.nodes[name]
    url = f"https://{bracketed(node.host)}:{node.etcd_peer_port}"
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
