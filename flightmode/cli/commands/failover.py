"""`flightmode failover`: the way out when the machine rightly refuses to choose."""

import asyncio
from typing import Annotated, Any

import typer
from rich.table import Table

from flightmode.cli.asking import Asking, ask, by_operator, freshness
from flightmode.cli.commands.switchover import Wait
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    TlsDirectory,
    place,
)
from flightmode.cli.show import duration, err, when
from flightmode.errors import NotConfirmed, NotNeeded, RequestWrong


def failover(
    accept_data_loss: Annotated[
        bool,
        typer.Option(
            "--accept-data-loss", help="Say that you know: acknowledged commits may be lost."
        ),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The node to promote. Without it, the one that has the most."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for the cluster's name.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 120,
    json: AsJson = False,
) -> None:
    """Promote a node although it may lack commits that were acknowledged.

    The machine promotes by itself whenever nothing can be lost. When it does not, the primary is
    gone and was alone: try to bring its machine back first. Only if it will never come back, or
    being down costs more than the last commits, use this. Refused while the primary is alive.
    Make sure that its machine is off: a primary that was alone and is only cut off from etcd goes
    on to acknowledge to whoever reaches it, and all of that is lost to the cluster.
    """
    here = place(config)
    if not accept_data_loss:
        text = "this may lose acknowledged commits: say --accept-data-loss to go on"
        raise RequestWrong(text, hint="flightmode failover --help")
    wished = None if to is None else here.known(to)

    async def go() -> None:
        async with by_operator(here, here.tls(tls, None)) as cluster:
            status: dict[str, Any] = (await cluster.best("/status", freshness)).body
            _refuse_while_alive(status)
            target = wished or _most(status)
            err.print(explained(status, target))
            if not yes:
                _confirm(here.config.cluster.name)
            body: dict[str, object] = {"to": target, "accept_data_loss": True}
            await ask(
                cluster, Asking("/failover", body, wait, json, lambda s: s["writes"] == target)
            )

    asyncio.run(go())


def _refuse_while_alive(status: dict[str, Any]) -> None:
    state = status["state"]
    if state is None:
        raise NotNeeded("there is no cluster yet: nothing to fail over", hint="flightmode status")
    leader = next(each for each in status["nodes"] if each["name"] == state["leader"])
    if status["writes"] is not None and (leader["heard"] or state["mode"] == "sync"):
        ago = "" if leader["silent_s"] is None else f", heard {duration(leader['silent_s'])} ago"
        text = f"{status['writes']} leads and is alive{ago}: `flightmode switchover` loses nothing"
        raise NotNeeded(text)


def _most(status: dict[str, Any]) -> str:
    """The database node with the newest timeline and the most WAL, the leader apart."""
    nodes = [each for each in _others(status) if each["position"] is not None]
    if not nodes:
        raise RequestWrong("no other node has said what data it holds; name one by --to")
    best = max(nodes, key=lambda each: (each["timeline"] or 0, _bytes(each["position"])))
    return str(best["name"])


def _others(status: dict[str, Any]) -> list[dict[str, Any]]:
    leader = status["state"]["leader"]
    return [n for n in status["nodes"] if n["kind"] == "database" and n["name"] != leader]


def _bytes(position: str) -> int:
    high, _, low = position.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def explained(status: dict[str, Any], target: str) -> Table:
    """What each node holds, as far as anybody knows, and what that means."""
    state = status["state"]
    table = Table(
        title=f"promoting {target}: what it may lack", title_justify="left", box=None, expand=False
    )
    for title in ("node", "last seen as", "timeline", "WAL up to", "last heard"):
        table.add_column(title, header_style="dim")
    for node in status["nodes"]:
        if node["kind"] == "database":
            heard = "now" if node["heard"] else _ago(node["silent_s"])
            timeline = "" if node["timeline"] is None else str(node["timeline"])
            cells = (node["name"], node["role"], timeline, node["position"] or "unknown", heard)
            table.add_row(*cells)
    table.caption_justify = "left"
    table.caption = (
        f"{state['leader']} leads term {state['term']} since {when(state['since_wall_s'])}, mode "
        f"{state['mode']}. Whatever it acknowledged after the position of {target} is lost to "
        f"the cluster. Its data directory is kept: when it comes back it will not be overwritten "
        f"without a copy beside it. {target} takes over once {state['leader']} has been silent "
        f"for its whole ttl. That does not stop it: if it is only cut off, it may acknowledge "
        f"commits until it hears of this. Turn its machine off first."
    )
    return table


def _ago(silent_s: float | None) -> str:
    return "not lately" if silent_s is None else f"{duration(silent_s)} ago"


def _confirm(name: str) -> None:
    answer = typer.prompt(f"Type the cluster's name ({name}) to go on", err=True)
    if answer.strip() != name:
        raise NotConfirmed("that is not its name; nothing was done")
