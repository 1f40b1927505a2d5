"""Whether the nodes of flightmode.toml are the machines that they were.

Two machines with one name could both take themselves for the primary of a term: a node's address is
changed by `flightmode node replace`, and never by an edit of the file.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from flightmode.cli.commands.reaching import etcd_through
from flightmode.cli.options import Place
from flightmode.errors import FlightmodeError, RequestWrong
from flightmode.provision.rejoin import moved
from flightmode.store.etcd_members import EtcdHealth, EtcdMember

_ASK_WITHIN_S = 20.0
"""Longest to reach a host and to be answered by its etcd: most of it is ssh's."""
_AGREE_WITHIN_S = 3.0
"""A member may lag behind a change of the members that has just been made."""
_POLL_S = 0.5


async def nobody_has_moved(here: Place) -> None:
    """Before anything is changed.  Where no etcd answers there is no cluster to be harmed, or
    nobody to tell of it.

    Raises RequestWrong: a node of that name is at another address, or has another name.
    """
    until_s = time.monotonic() + _ASK_WITHIN_S
    agreed_s: float | None = None
    found: Mapping[str, str] = {}
    while True:
        known = await _members(here, until_s)
        if known:
            found = moved(known, here.config)
        now_s = time.monotonic()
        if agreed_s is None:
            agreed_s = now_s + _AGREE_WITHIN_S
        if not found or now_s >= agreed_s:
            break
        await asyncio.sleep(_POLL_S)
    if found:
        name = next(iter(found))
        told = "; ".join(found.values())
        text = (
            f"{told}: nothing was changed. Two machines of one name could both take writes, so an "
            "edit does not move a node: put back what the file said, and exchange it (`node "
            f"replace {name} --by NEW=HOST`; when its machine is dead, `node replace {name}` takes "
            "the file's address)"
        )
        raise RequestWrong(text, hint="flightmode node replace --help")


async def _members(here: Place, until_s: float) -> Sequence[EtcdMember]:
    """etcd's list, by whichever host answers first; nothing is in it where none does."""
    asking = [asyncio.create_task(_of(here, name)) for name in here.config.nodes]
    try:
        for answer in asyncio.as_completed(asking, timeout=max(until_s - time.monotonic(), 0.1)):
            known = await answer
            if known:
                return known
    except TimeoutError:
        pass
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return ()


async def _of(here: Place, name: str) -> Sequence[EtcdMember]:
    """What this host's member says.  Never raises FlightmodeError: who wants the host itself tells
    what is wrong with it."""
    try:
        async with etcd_through(here, [name]) as store:
            # Asked once: a host without etcd refuses at once, and a list would be asked for again.
            (health,) = (await store.members.health()).values()
            return await store.members.list() if isinstance(health, EtcdHealth) else ()
    except FlightmodeError:
        return ()
