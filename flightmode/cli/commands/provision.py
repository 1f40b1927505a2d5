"""`flightmode provision`: from bare Debian hosts to a running cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.console import Console

from flightmode.cli.asking import Asking, by_operator, carry
from flightmode.cli.commands.reaching import remotes_of
from flightmode.cli.commands.wholeness import answers, as_found, etcd_is_well, quiet, serving, whole
from flightmode.cli.leaving import nothing_is_leaving
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, err, out, status_view
from flightmode.config import Config
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.apply import Progress, carry_out, plan_all
from flightmode.provision.bundle import bundle_of, end_soon
from flightmode.provision.plan import Plan, reads_again, summary
from flightmode.provision.turns import in_two, one_by_one, order, restarts_etcd, worse
from flightmode.provision.wanted import File, Owned, Wanted, wanted
from flightmode.provision.wheels import build

_FOUND_WITHIN_S = 15.0
"""Longest to learn who is primary: one that is just being replaced has a successor by then."""
_ETCD_WITHIN_S = 60.0
"""Longest that a restart of etcd waits for other members; without them it is done all the same: the
database nodes hold each other's promise through an outage of etcd, and it may be the remedy."""


def provision(
    config: ConfigPath = DEFAULT_CONFIG,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Only this machine; may be said again."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done. Changes nothing.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", help="So many seconds for the cluster to be whole.")
    ] = 120.0,
    json: AsJson = False,
) -> None:
    """Bring the machines of flightmode.toml to what it says, over SSH.

    They need Debian 12 or 13, sshd, and your key. What is right already is left alone, so run it
    again after an edit, or after it was cut off: it goes on where it stopped. A host that shows
    another key than at first contact is refused. What runs and has to restart does so node by
    node, the primary last, each when the one before is back. PostgreSQL reads changed settings
    again; those that wait for a restart are named, and `flightmode config apply` sees to it.
    Exit status: 0 done; 69 a host can't be reached; 75 a step failed; 78 a host does not fit.
    """
    here = place(config)
    nothing_is_leaving(here)
    names = _chosen(here.config, only)
    asyncio.run(bring(here, names, only_plan=plan, wait_s=wait_s, json=json))


def _chosen(config: Config, only: list[str] | None) -> list[str]:
    known = [*config.nodes, *config.provision.apps]
    for name in only or ():
        if name not in known:
            raise RequestWrong(f"there is no machine {name!r}; these are: {', '.join(known)}")
    return [name for name in known if not only or name in only]


async def bring(
    here: Place,
    names: list[str],
    *,
    extra: Mapping[str, tuple[File, ...]] = MappingProxyType({}),
    only_plan: bool = False,
    wait_s: float,
    json: bool,
) -> None:
    """Bring these machines to what flightmode.toml says, and wait until the cluster is whole.

    `extra`: files that a machine shall have besides.  Raises what `provision` documents.
    """
    began_s = time.monotonic()
    config, toml = here.config, here.path.absolute()
    hosts = [_with(wanted(config, n, bundle_of(config, toml, n)), extra.get(n, ())) for n in names]
    for words in end_soon(config, toml, names):
        # Also with --json, which is on the other stream.
        err.print(f"{words}: flightmode certs renew --config {here.path}", soft_wrap=True)
    async with remotes_of(here, hosts) as remotes:
        if not json:
            out.print(f"looking at {', '.join(names)}, and making the wheels of Flightmode")
        # A host that does not fit is told of at once; the wheels may take a minute.
        await plan_all(config, hosts, remotes, None)
        release = await asyncio.to_thread(build)
        plans = await plan_all(config, hosts, remotes, release)
        if only_plan:
            show_plan(plans, json=json)
            return
        halves = [in_two(each) for each in plans]

        async def does(some: Sequence[Plan]) -> None:
            await carry_out(some, remotes, release, lambda step: say(out, step, quiet=json))

        await does([at_once for at_once, _ in halves])
        await _in_turn(here, [later for _, later in halves], does, wait_s=wait_s, json=json)
    steps = sum(len(each.steps) for each in plans)
    if not json:
        out.print(f"{steps} steps done" if steps else "nothing to do: all is as it should be")
    status = await _settled(here, plans, wait_s)
    await serving(here, hosts, wait_s)
    took_s = time.monotonic() - began_s
    if json:
        as_json({"steps": steps, "took_s": round(took_s, 1), "status": status})
        return
    out.print(status_view(status))
    out.print(f"the cluster is whole; this took {took_s:.0f} s")
    if any(node["pending_restart"] for node in status["nodes"]):
        told = f"for what waits for a restart: flightmode config apply --config {here.path}"
        out.print(told, soft_wrap=True)


async def _in_turn(
    here: Place,
    plans: Sequence[Plan],
    does: Callable[[Sequence[Plan]], Awaitable[None]],
    *,
    wait_s: float,
    json: bool,
) -> None:
    """The restarts.  Raises RequestUnfinished, and what `carry_out` does."""
    if not any(each.steps for each in plans):
        return
    found = await as_found(here, _FOUND_WITHIN_S)
    primary = None if found is None else found["writes"]
    nodes = [each.name for each in plans if each.name in here.config.nodes]

    async def ordered() -> list[str]:
        now = await as_found(here, 0.0) or {"writes": None}
        return order(here.config, now["writes"] or primary)

    async def turn(plan: Plan) -> None:
        # One that has just been started for the first time may still be joining.  Where etcd did
        # not answer before, this restart may be what mends it.
        if restarts_etcd(plan) and found is not None and found["store_reachable"]:
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
        say(out, Progress(name, of, of, told, ended=True, took_s=took_s), quiet=json)

    await one_by_one(plans, ordered, turn, back)


async def _settled(here: Place, plans: Sequence[Plan], wait_s: float) -> dict[str, Any]:
    """The status, once all nodes are whole and each PostgreSQL goes by its new settings."""
    status = await whole(here, wait_s)
    again = [each.name for each in plans if reads_again(each) and _has_postgres(here, each.name)]
    if not again:
        return status
    async with by_operator(here, here.tls(None, None)) as cluster:
        for name in again:
            await carry(cluster, Asking("/reload", {"node": name}, wait_s, True))
    return await quiet(here, wait_s)


def _has_postgres(here: Place, name: str) -> bool:
    node = here.config.nodes.get(name)
    return node is not None and node.kind is NodeKind.DATABASE


def _with(host: Wanted, files: tuple[File, ...]) -> Wanted:
    rooms = {str(Path(file.path).parent): Owned(0o755, "root:root") for file in files}
    return replace(host, files=(*files, *host.files), directories={**host.directories, **rooms})


def show_plan(plans: list[Plan], *, json: bool) -> None:
    if json:
        as_json({each.name: [step.title for step in each.steps] for each in plans})
        return
    lines = summary(plans)
    for line in lines:
        out.print(f"  {line}", soft_wrap=True)
    out.print(f"{len(lines)} things to do" if lines else "nothing to do: all is as it should be")


def say(console: Console, step: Progress, *, quiet: bool) -> None:
    """One line for a step; and what it printed, where that is for who reads this."""
    if quiet:
        return
    where = f"{step.host:>10} {step.number:3}/{step.of:<3}"
    took = f"{step.took_s:6.1f} s" if step.ended else "       …"
    console.print(f"{where} {took}  {step.title}", soft_wrap=True, markup=False)
    for line in step.said.splitlines():
        console.print(f"{step.host:>10}   {line}", soft_wrap=True, markup=False)
