"""`flightmode provision`: from bare Debian hosts to a running cluster."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.console import Console

from flightmode.cli.asking import Asking, by_operator, carry
from flightmode.cli.commands.moved import nobody_has_moved
from flightmode.cli.commands.reaching import remotes_of
from flightmode.cli.commands.turning import in_turn
from flightmode.cli.commands.wholeness import quiet, serving, whole
from flightmode.cli.leaving import nothing_is_leaving
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, err, out, status_view
from flightmode.config import Config
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.apply import Progress, carry_out, plan_all
from flightmode.provision.bundle import bundle_of, end_soon
from flightmode.provision.plan import Plan, summary
from flightmode.provision.spent import Spent, spent
from flightmode.provision.turns import in_two
from flightmode.provision.wanted import File, Owned, Wanted, wanted
from flightmode.provision.wheels import build


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
    another key than at first contact is refused, and so is a node that is another machine than it
    was: `flightmode node replace` exchanges those. What runs and has to restart does so node by
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
    await nobody_has_moved(here)
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
        stepped_s, heard = time.monotonic(), list[Progress]()

        def hear(step: Progress) -> None:
            heard.append(step)
            say(out, step, quiet=json)

        async def does(some: Sequence[Plan]) -> None:
            await carry_out(some, remotes, release, hear)

        halves = [in_two(each) for each in plans]
        await does([at_once for at_once, _ in halves])
        await in_turn(here, [later for _, later in halves], does, hear, wait_s=wait_s)
    settled_s = time.monotonic()
    steps = sum(len(each.steps) for each in plans)
    if not json:
        out.print(f"{steps} steps done" if steps else "nothing to do: all is as it should be")
    status = await _settled(here, names, wait_s)
    await serving(here, hosts, wait_s)
    went = spent(
        heard,
        began_s=began_s,
        stepped_s=stepped_s,
        settled_s=settled_s,
        ended_s=time.monotonic(),
    )
    _tell_end(here, steps, went, status, json=json)


def _tell_end(here: Place, steps: int, went: Spent, status: dict[str, Any], *, json: bool) -> None:
    if json:
        took = {"took_s": round(went.all_s, 1), "spent": went.as_json()}
        as_json({"steps": steps, **took, "status": status})
        return
    out.print(status_view(status))
    out.print(f"the cluster is whole; this took {went.all_s:.0f} s: {went}", soft_wrap=True)
    if any(node["pending_restart"] for node in status["nodes"]):
        told = f"for what waits for a restart: flightmode config apply --config {here.path}"
        out.print(told, soft_wrap=True)


async def _settled(here: Place, names: Sequence[str], wait_s: float) -> dict[str, Any]:
    """The status, once all nodes are whole and each PostgreSQL goes by its new settings.

    Each is told to read them, whatever this run has written: a run before it may have been cut off
    between writing them and telling.
    """
    status = await whole(here, wait_s)
    again = [name for name in names if _has_postgres(here, name)]
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
