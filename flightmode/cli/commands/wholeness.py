"""When a cluster is whole: nodes, etcd and proxies.  Green means that a loss costs nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from flightmode.cli.asking import by_operator, freshness
from flightmode.cli.commands.reaching import etcd_through, remotes_of
from flightmode.cli.options import Place
from flightmode.errors import FlightmodeError, RequestUnfinished
from flightmode.provision.serving import read, script
from flightmode.provision.wanted import Wanted
from flightmode.store.etcd_members import EtcdHealth

QUIET_S = 2.0
"""So long the cluster has to be whole without a break before the next machine's turn: a standby
that has just begun to restart is in the sync set for a moment still."""
_POLL_S = 0.5
_ASK_WITHIN_S = 30.0


def lacks(status: dict[str, Any]) -> tuple[str, ...]:
    """What a cluster of that status lacks, in words; nothing: its nodes are whole."""
    if status["writes"] is None:
        return (str(status["route"]),)
    found = []
    if not status["store_reachable"]:
        found.append(f"etcd does not answer {status['node']}")
    found += [f"nothing is heard of {n['name']}" for n in status["nodes"] if not n["heard"]]
    databases = [node for node in status["nodes"] if node["kind"] != "witness"]
    standbys = [node for node in databases if node["name"] != status["writes"]]
    found += [f"{node['name']} does not follow" for node in standbys if not node["streaming"]]
    if standbys and not any(node["sync"] for node in standbys):
        found.append("no standby holds every commit")
    return tuple(found)


def is_whole(status: dict[str, Any]) -> bool:
    """Its nodes are."""
    return not lacks(status)


Lacking = Callable[[dict[str, Any]], tuple[str, ...]]
"""What a cluster of that status lacks, in words."""


async def status_of(here: Place) -> dict[str, Any]:
    """As the node that knows best has it.  Raises NodeUnreachable and its like."""
    async with by_operator(here, here.tls(None, None)) as cluster:
        status: dict[str, Any] = (await cluster.best("/status", freshness)).body
    return status


async def whole(here: Place, wait_s: float, lacking: Lacking = lacks) -> dict[str, Any]:
    """Wait until its nodes are whole, or as `lacking` has it.  Raises RequestUnfinished."""
    found: dict[str, Any] = {}

    async def look() -> tuple[str, ...]:
        found.update(await status_of(here))
        return lacking(found)

    await _until(here, look, wait_s)
    return found


async def answers(here: Place, name: str, wait_s: float) -> None:
    """Until that node's agent answers for itself: what others have heard of it is older than its
    restart, and systemd knows only that a process is there.  Raises RequestUnfinished."""
    async with by_operator(here, here.tls(None, None), name) as cluster:

        async def look() -> tuple[str, ...]:
            # Any answer: that it knows of no state is for others to judge.
            await cluster.get(name, "/status")
            return ()

        await _until(here, look, wait_s)


async def serving(here: Place, hosts: Sequence[Wanted], wait_s: float) -> None:
    """Wait until every unit of these machines runs, etcd's members are well, and proxies answer.

    Raises RequestUnfinished; HostUnreachable, HostRefused.
    """

    async def look() -> tuple[str, ...]:
        async with remotes_of(here, hosts) as remotes:
            answers = await asyncio.gather(
                *(
                    remotes[each.name].run(script(here.config, each), within_s=_ASK_WITHIN_S)
                    for each in hosts
                )
            )
        told = [
            f"{host.name}: {words}"
            for host, answer in zip(hosts, answers, strict=True)
            for words in read(answer.out)
        ]
        return (*told, *await _ailing(here, [h.name for h in hosts if h.name in here.config.nodes]))

    await _until(here, look, wait_s)


async def etcd_is_well(here: Place, nodes: Sequence[str], wait_s: float) -> bool:
    """Whether all members of these nodes are, at the end of that time at the latest."""
    try:
        await _until(here, partial(_ailing, here, nodes), wait_s)
    except RequestUnfinished:
        return False
    return True


async def quiet(here: Place, wait_s: float, lacking: Lacking = lacks) -> dict[str, Any]:
    """Wait until the nodes have been whole for a while, or as `lacking` has it.

    Raises RequestUnfinished.
    """
    began_s = time.monotonic()
    status = await whole(here, wait_s, lacking)
    since_s = time.monotonic()
    while time.monotonic() - since_s < QUIET_S:
        await asyncio.sleep(_POLL_S)
        try:
            status = await status_of(here)
            is_so = not lacking(status)
        except FlightmodeError:
            # The next look tells, or that there was none in time.
            is_so = False
        if not is_so:
            left_s = max(wait_s - (time.monotonic() - began_s), 0.0)
            status = await whole(here, left_s, lacking)
            since_s = time.monotonic()
    return status


async def as_found(here: Place, wait_s: float) -> dict[str, Any] | None:
    """The status, as soon as there is one that names who takes writes; else the last one.

    None: nobody said anything in that time.
    """
    found: dict[str, Any] | None = None
    until_s = time.monotonic() + wait_s
    while True:
        try:
            found = await status_of(here)
        except FlightmodeError:
            found = None
        if (found is not None and found["writes"] is not None) or time.monotonic() > until_s:
            return found
        await asyncio.sleep(_POLL_S)


async def _ailing(here: Place, nodes: Sequence[str]) -> tuple[str, ...]:
    """Which members of etcd are not well, in words, of those of these nodes."""
    if not nodes:
        return ()
    async with etcd_through(here, nodes) as store:
        health = await store.members.health()
        members = await store.members.list()
    well = sum(isinstance(each, EtcdHealth) and each.leader_id != 0 for each in health.values())
    found = [f"an etcd member has not started: {m.peer_urls}" for m in members if not m.name]
    if well < len(nodes):
        found.append(f"of the etcd members of {', '.join(nodes)}, {len(nodes) - well} are not well")
    if len(members) != len(here.config.nodes):
        found.append(f"etcd has {len(members)} members for {len(here.config.nodes)} nodes")
    return tuple(found)


async def _until(
    here: Place, look: Callable[[], Awaitable[tuple[str, ...]]], wait_s: float
) -> None:
    """Until nothing is lacking.  Raises RequestUnfinished with what still is."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            lacking = await look()
        except FlightmodeError as failure:
            lacking = (failure.message,)
        if not lacking:
            return
        if time.monotonic() > until_s:
            text = f"the cluster is not whole after {wait_s:.0f} s: {'; '.join(lacking)}"
            raise RequestUnfinished(text, hint=f"flightmode status --config {here.path}")
        await asyncio.sleep(_POLL_S)
