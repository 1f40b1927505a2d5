"""`flightmode provision`: from bare Debian hosts to a running cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.console import Console

from flightmode.cli.asking import by_operator, freshness
from flightmode.cli.leaving import nothing_is_leaving
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, out, status_view
from flightmode.config import Config
from flightmode.errors import FlightmodeError, RequestUnfinished, RequestWrong
from flightmode.provision.apply import Progress, carry_out, plan_all
from flightmode.provision.bundle import bundle_of
from flightmode.provision.plan import Plan, summary
from flightmode.provision.wanted import File, Owned, Wanted, wanted
from flightmode.provision.wheels import build
from flightmode.remote.port import Remote
from flightmode.remote.ssh import Login, SshHost

_POLL_S = 0.5


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
    another key than at first contact is refused.
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
    async with remotes_of(here, hosts) as remotes:
        if not json:
            out.print(f"looking at {', '.join(names)}, and making the wheels of Flightmode")
        release = await asyncio.to_thread(build)
        plans = await plan_all(config, hosts, remotes, release)
        if only_plan:
            show_plan(plans, json=json)
            return
        await carry_out(plans, remotes, release, lambda step: say(out, step, quiet=json))
    steps = sum(len(each.steps) for each in plans)
    if not json:
        out.print(f"{steps} steps done" if steps else "nothing to do: all is as it should be")
    status = await whole(here, wait_s)
    took_s = time.monotonic() - began_s
    if json:
        as_json({"steps": steps, "took_s": round(took_s, 1), "status": status})
        return
    out.print(status_view(status))
    out.print(f"the cluster is whole; this took {took_s:.0f} s")


def login_of(here: Place) -> Login:
    """How flightmode.toml says to reach its machines."""
    settings = here.config.provision
    known = here.path.absolute().parent / "known_hosts"
    return Login(settings.ssh_user, settings.ssh_port, settings.ssh_key, known)


def _with(host: Wanted, files: tuple[File, ...]) -> Wanted:
    rooms = {str(Path(file.path).parent): Owned(0o755, "root:root") for file in files}
    return replace(host, files=(*files, *host.files), directories={**host.directories, **rooms})


@asynccontextmanager
async def remotes_of(here: Place, hosts: list[Wanted]) -> AsyncIterator[Mapping[str, Remote]]:
    """A link to each host; the first contact pins its key beside flightmode.toml."""
    login = login_of(here)
    async with AsyncExitStack() as stack:
        links = await asyncio.gather(
            *(SshHost.connect(each.name, each.host, login) for each in hosts),
            return_exceptions=True,
        )
        for link in links:
            if isinstance(link, SshHost):
                stack.push_async_callback(link.close)
        for link in links:
            if isinstance(link, BaseException):
                raise link
        yield {link.name: link for link in links if isinstance(link, SshHost)}


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


async def whole(here: Place, wait_s: float) -> dict[str, Any]:
    """Wait until writes are accepted and every standby follows.  Raises RequestUnfinished."""
    until_s = time.monotonic() + wait_s
    last = "no node has answered"
    tls = here.tls(None, None)
    while True:
        try:
            async with by_operator(here, tls) as cluster:
                status: dict[str, Any] = (await cluster.best("/status", freshness)).body
            if is_whole(status):
                return status
            last = str(status["route"])
        except FlightmodeError as failure:
            last = failure.message
        if time.monotonic() > until_s:
            text = f"the hosts are ready, and the cluster is not whole after {wait_s:.0f} s: {last}"
            raise RequestUnfinished(text, hint=f"flightmode status --config {here.path}")
        await asyncio.sleep(_POLL_S)


def is_whole(status: dict[str, Any]) -> bool:
    if status["writes"] is None:
        return False
    databases = [node for node in status["nodes"] if node["kind"] != "witness"]
    standbys = [node for node in databases if node["name"] != status["writes"]]
    follow = all(node["streaming"] and node["heard"] for node in standbys)
    return follow and (not standbys or any(node["sync"] for node in standbys))
