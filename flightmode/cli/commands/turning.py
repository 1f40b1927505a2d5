"""The restarts of a run of `provision`, on a cluster that serves meanwhile."""

import time
from collections.abc import Awaitable, Callable, Sequence

from flightmode.cli.commands.wholeness import answers, as_found, etcd_is_well, quiet
from flightmode.cli.options import Place
from flightmode.provision.apply import Progress, Say
from flightmode.provision.plan import Plan
from flightmode.provision.turns import etcd_apart, one_by_one, order, restarts_etcd, worse

_FOUND_WITHIN_S = 15.0
"""Longest to learn who is primary: one that is just being replaced has a successor by then."""
_ETCD_WITHIN_S = 60.0
"""Longest that a restart of etcd waits for other members; without them it is done all the same: the
database nodes hold each other's promise through an outage of etcd, and it may be the remedy."""


async def in_turn(
    here: Place,
    plans: Sequence[Plan],
    does: Callable[[Sequence[Plan]], Awaitable[None]],
    say: Say,
    *,
    wait_s: float,
) -> None:
    """The restarts.  Raises RequestUnfinished, and what `carry_out` does."""
    if not any(each.steps for each in plans):
        return
    found = await as_found(here, _FOUND_WITHIN_S)
    primary = None if found is None else found["writes"]
    nodes = [each.name for each in plans if each.name in here.config.nodes]
    if found is None or not found["store_reachable"]:
        # As after certificates that were over: a member alone would wait for the others' turn.
        apart = [etcd_apart(each) for each in plans]
        await does([etcd for etcd, _ in apart])
        plans = [others for _, others in apart]

    async def ordered() -> list[str]:
        now = await as_found(here, 0.0) or {"writes": None}
        return order(here.config, now["writes"] or primary)

    async def turn(plan: Plan) -> None:
        # One that has just been started for the first time may still be joining.
        if restarts_etcd(plan):
            await etcd_is_well(here, nodes, _ETCD_WITHIN_S)
        await does([plan])

    async def back(name: str) -> None:
        began_s = time.monotonic()
        await answers(here, name, wait_s)
        if primary is not None:
            await quiet(here, wait_s, lambda now: worse(found, now))
        (of,) = (each.of for each in plans if each.name == name)
        told = "it answers, and the cluster lacks nothing that it had before"
        took_s = time.monotonic() - began_s
        say(Progress(name, of, of, told, ended=True, took_s=took_s))

    await one_by_one(plans, ordered, turn, back)
