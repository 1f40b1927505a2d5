"""`flightmode upgrade`: another version of Flightmode, or of Debian's packages, host by host."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import typer

from flightmode.cli.commands.provision import show_plan
from flightmode.cli.commands.rolling import NOTHING_NEW, Rolling
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, out
from flightmode.provision import system as debian
from flightmode.provision.apply import plan_all
from flightmode.provision.plan import Plan
from flightmode.provision.wanted import Wanted
from flightmode.provision.wheels import build
from flightmode.remote.port import Remote

_ROUNDS = 4
"""Packages; then what runs old files, or a reboot; and once more, should that have left some."""


def upgrade(
    config: ConfigPath = DEFAULT_CONFIG,
    system: Annotated[
        bool,
        typer.Option(
            "--system",
            help="Debian's packages instead of Flightmode: security fixes, PostgreSQL's minor "
            "versions; what runs the old ones restarts, and a host reboots if Debian asks for it.",
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done, in which order.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", help="So many seconds for the cluster to be whole again."),
    ] = 300.0,
    json: AsJson = False,
) -> None:
    """Bring the version that you are typing this with to all machines, one after the other.

    The witness first, then the standby, then a switchover, then the old primary; at last the
    proxies, whose clients go over to the new process. Nobody is disconnected; writes pause for
    the switchover, less than a second. Refused while the cluster is not whole. When it stops in
    the middle, type it again: what is done is not done twice.
    With --system an application's machine is never rebooted: that is left to you.
    """
    here = place(config)
    run = _system if system else _flightmode
    asyncio.run(run(here, wait_s=wait_s, only_plan=plan, json=json))


async def _flightmode(here: Place, *, wait_s: float, only_plan: bool, json: bool) -> None:
    began_s = time.monotonic()
    release = await asyncio.to_thread(build)
    planner = partial(plan_all, here.config, release=release, fence_too=True)
    rolling = Rolling(here, planner, release, wait_s=wait_s, json=json)
    if only_plan:
        await _show(rolling, json=json)
        return
    steps = await rolling.all(primary_last=True)
    took_s = time.monotonic() - began_s
    if json:
        as_json({"release": release.name, "steps": steps, "took_s": round(took_s, 1)})
    elif steps == 0:
        out.print(f"nothing to do: all machines have {release.name}")
    else:
        out.print(f"all machines have {release.name}; this took {took_s:.0f} s")


async def _system(here: Place, *, wait_s: float, only_plan: bool, json: bool) -> None:
    began_s = time.monotonic()

    async def planner(hosts: list[Wanted], remotes: Mapping[str, Remote]) -> list[Plan]:
        return await debian.plan_all(here.config, hosts, remotes)

    rolling = Rolling(here, planner, NOTHING_NEW, wait_s=wait_s, json=json, rounds=_ROUNDS)
    if only_plan:
        await _show(rolling, json=json)
        return
    steps = await rolling.all(primary_last=True)
    took_s = time.monotonic() - began_s
    if json:
        as_json({"steps": steps, "took_s": round(took_s, 1)})
    elif steps == 0:
        out.print("nothing to do: no machine has packages to upgrade")
    else:
        out.print(f"all machines have Debian's newest packages; this took {took_s:.0f} s")


async def _show(rolling: Rolling, *, json: bool) -> None:
    primary = await rolling.primary()
    order = rolling.order(primary)
    plans = await rolling.plans(order)
    if not json:
        out.print(f"in this order, with a switchover before {primary}: {', '.join(order)}")
    show_plan(plans, json=json)
