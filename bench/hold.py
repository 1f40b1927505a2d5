"""What clients see of a failover through our proxy, PgBouncer and HAProxy.

    ./dev bench hold [--failovers 50] [--after 5] [--limit 30] [--faults kill,vanished,switchover]
                     [--pgbouncer PATH] [--quick]

Two parts.  The matrix: a client in each of seven states, when the primary is killed, when its
host vanishes (packets to and from its port are dropped; needs root and nft), and when it is
handed over as planned; a standby is promoted `--after` seconds later.  Resume: how long after
the new primary accepts writes the held clients are answered, over many failovers.

The bench moves the primary itself.  It tells each contestant as its users do: Flightmode by
news when the promotion begins, PgBouncer by a rewritten file and RELOAD (PAUSE and RESUME
around a planned one, when tuned) once the new primary takes writes, HAProxy by health checks.
"""

import asyncio
import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import hold_resume
import psycopg
import typer
from hold_stage import Checks, Maker, dropping, move, stage
from hold_states import LATER_S, POOL, STATES, TABLES, Outcome, Scene, observe
from proxy_bed import Server
from proxy_peers import PGBOUNCER, TUNED, Flightmode, HAProxy, Peer, PgBouncer
from rich.console import Console
from rich.table import Table

FAULTS = ("kill", "vanished", "switchover")
PAUSE_S = 2 * LATER_S
"""How long a planned switchover waits for transactions: the bench's own are over by then."""
TITLES = {
    "kill": "the primary is killed (kill -9)",
    "vanished": "the primary's host vanishes",
    "switchover": "planned switchover",
}
CAPTIONS = {
    "switchover": "PgBouncer has no switchover of its own: RELOAD once the new primary takes "
    "writes, and when tuned PAUSE and RESUME around that. HAProxy has none at all: it goes by its "
    "health checks.",
}


@dataclass(frozen=True)
class Times:
    """What the clients are put through."""

    after_s: float
    limit_s: float


@dataclass(frozen=True)
class Row:
    """A contestant in one fault."""

    outcomes: dict[str, Outcome]
    writable_s: float


def main(
    failovers: Annotated[int, typer.Option(min=0, max=1000)] = 50,
    after: Annotated[float, typer.Option(min=0, max=60)] = 5.0,
    limit: Annotated[float, typer.Option(min=2, max=120)] = 30.0,
    faults: Annotated[str, typer.Option(help="Comma-separated; empty: no matrix.")] = ",".join(
        FAULTS
    ),
    pgbouncer: Annotated[Path | None, typer.Option(help="Instead of Debian's.")] = None,
    ours: Annotated[bool, typer.Option(help="With Flightmode.")] = True,
    peers: Annotated[bool, typer.Option(help="With the others.")] = True,
    quick: Annotated[bool, typer.Option(help="Does it work at all?")] = False,
) -> None:
    """The matrix of client states and faults, and the time to resume."""
    times = Times(after, limit)
    if quick:
        times, failovers = Times(1.0, 6.0), min(failovers, 2)
    console = Console(width=None if sys.stdout.isatty() else 200)
    makers = _makers(pgbouncer, ours=ours, peers=peers)
    for fault in [name for name in faults.split(",") if name]:
        rows = {}
        for name, make in makers.items():
            rows[name] = asyncio.run(_scene(make, fault, times))
            for state, outcome in rows[name].outcomes.items():
                print(f"  {fault:10s} {name:18s} {state}: {outcome}", file=sys.stderr)
        console.print(_table(fault, rows))
    if failovers:
        chosen = {name: make for name, make in makers.items() if name != "PgBouncer"}
        console.print(hold_resume.table(chosen, failovers))


def _makers(program: Path | None, *, ours: bool, peers: bool) -> dict[str, Maker]:
    makers: dict[str, Maker] = {}
    if ours:
        makers["Flightmode"] = lambda front, _: Flightmode(front)
    if peers:
        path = program or PGBOUNCER
        makers["PgBouncer"] = lambda front, _: PgBouncer(front, program=path)
        makers["PgBouncer tuned"] = lambda front, _: PgBouncer(front, program=path, tuned=TUNED)
        makers["HAProxy"] = lambda front, checks: HAProxy(front, checks.ports)
    return makers


async def _scene(make: Maker, fault: str, times: Times) -> Row:
    with stage(make, TABLES, pool_size=POOL) as (servers, checks, peer):
        scene = Scene(peer.port, times.limit_s)
        watched = []
        for state in STATES:
            if isinstance(peer, HAProxy) and state == "waiting":
                continue  # It has no pool to wait for.
            watched.append((state, asyncio.create_task(observe(scene, state))))
            await _prepared(scene, len(watched))
        with dropping(servers["ams"].port) if fault == "vanished" else contextlib.nullcontext():
            scene.strike()
            writable_at_s = await asyncio.to_thread(
                _fault, fault, servers, checks, peer, times, scene
            )
            outcomes = {state: await task for state, task in watched}
    return Row(outcomes, writable_at_s - scene.fault_s)


async def _prepared(scene: Scene, count: int) -> None:
    until = time.monotonic() + 20
    while scene.prepared < count:
        if time.monotonic() > until:
            raise TimeoutError("a client does not get into its state")
        await asyncio.sleep(0.02)
    # What it sent last is on its way: nothing tells when it has arrived.
    await asyncio.sleep(0.1)


def _fault(
    fault: str,
    servers: dict[str, Server],
    checks: Checks,
    peer: Peer,
    times: Times,
    scene: Scene,
) -> float:
    """Take the primary away and bring the other one; when that accepted writes."""
    checks.primary = ""
    paused = fault == "switchover" and isinstance(peer, PgBouncer) and bool(peer.tuned)
    if fault == "switchover":
        peer.no_primary()
        if paused:
            _pause(peer)
        servers["ams"].stop()
    else:
        if fault == "kill":
            servers["ams"].kill()
        time.sleep(max(0.0, scene.fault_s + times.after_s - time.monotonic()))
    at_s = move(servers["fra"], peer)
    checks.primary = "fra"
    if paused:
        assert isinstance(peer, PgBouncer)
        peer.admin("RESUME")
    return at_s


def _pause(peer: Peer) -> None:
    """As long as a tool would wait for it: statements that run may go on for hours."""
    assert isinstance(peer, PgBouncer)
    threading.Thread(target=_pause_and_forget, args=(peer,), daemon=True).start()
    time.sleep(PAUSE_S)


def _pause_and_forget(peer: PgBouncer) -> None:
    with contextlib.suppress(psycopg.Error):
        peer.admin("PAUSE")


def _table(fault: str, rows: dict[str, Row]) -> Table:
    title = f"{TITLES[fault]}: what clients saw, and when after it"
    caption = CAPTIONS.get(fault)
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    order = ("idle", "new", "waiting", "read in flight", *list(STATES)[2:4], "COMMIT in flight")
    for heading in ("", "new primary", *order):
        table.add_column(heading)
    for name, row in rows.items():
        cells = [str(row.outcomes.get(state, "-")) for state in order]
        table.add_row(name, f"+{row.writable_s:.1f} s", *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
