"""`./dev demo`: three nodes on this machine, rehearsed failures, and the ledger at the end."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flightmode.agent.clock import SystemClock
from flightmode.demo.cluster import APP, NODES, DemoCluster
from flightmode.demo.lab import Lab
from flightmode.demo.ledger import check
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.picture import LivePicture
from flightmode.demo.proxied import Application
from flightmode.demo.rehearsals import (
    KILL,
    PARTITION,
    POWER,
    SWITCHOVER,
    Rehearsal,
    Stage,
    rehearse,
)
from flightmode.demo.report import show
from flightmode.demo.sweep import sweep
from flightmode.errors import FlightmodeError, RehearsalFailed

CLIENTS = 16
HOSTS = (*NODES, APP)
_INTERRUPTED = 130
_LONGEST_S = 300.0
"""It takes about two minutes; a slow machine gets more, and nobody waits for ever."""
_PAPER = 150
"""Columns, when the output is not a terminal."""
_DEFAULT_BIN = Path("/usr/lib/postgresql/15/bin")


def main(
    keep: Annotated[
        bool, typer.Option(help="Leave the cluster up at the end; `./dev clean` removes it.")
    ] = False,
    namespaces: Annotated[
        bool, typer.Option(help="A network of its own for each node (needs root).")
    ] = True,
    clients: Annotated[int, typer.Option(min=1, max=200, help="How many clients write.")] = CLIENTS,
    postgres: Annotated[Path, typer.Option(help="Where initdb and postgres are.")] = _DEFAULT_BIN,
    longest: Annotated[
        float, typer.Option(min=1, help="So many seconds at most, then it has failed.")
    ] = _LONGEST_S,
) -> None:
    """Three nodes on this machine, four failures, and what the clients of an application saw.

    Exit status: 0 every acknowledged row is there, and no client between two transactions saw an
    error; 1 a promise was broken or a rehearsal failed;
    130 interrupted.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_PAPER)
    for run in sweep():
        console.print(f"removed what an earlier run left: {run.run_id}")
    missing = NamespaceLab.missing() if namespaces else "not wanted"
    lab: Lab = NamespaceLab(HOSTS) if missing is None else LoopbackLab(HOSTS)
    if missing is not None:
        console.print(f"on loopback, without the partition rehearsal ({missing})")
    try:
        sys.exit(asyncio.run(_interruptible(lab, console, clients, postgres, longest, keep=keep)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted" if keep else "interrupted; everything was removed")
        sys.exit(_INTERRUPTED)
    except FlightmodeError as error:
        console.print(f"[red]{error}[/red]\n  hint: {error.hint_text}", highlight=False)
        sys.exit(1)


async def _interruptible(
    lab: Lab, console: Console, clients: int, postgres: Path, longest_s: float, *, keep: bool
) -> int:
    """Ctrl-C, SIGTERM and a closed terminal: everything is taken down on the way out."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    async with lab:
        if keep:
            lab.keep()
        try:
            async with asyncio.timeout(longest_s) as bound:
                kept_promises = await _demo(lab, console, clients, postgres)
        except TimeoutError:
            if not bound.expired():
                raise
            text = f"the demo did not end within {longest_s:g} s"
            raise RehearsalFailed(text, hint="./dev demo --keep") from None
        finally:
            # Also when it was interrupted or has failed: then it is looked into.
            if keep:
                _tell_kept(console, lab)
    return 0 if kept_promises else 1


async def _demo(lab: Lab, console: Console, clients: int, postgres: Path) -> bool:
    clock = SystemClock()
    async with DemoCluster(lab, postgres) as cluster, LivePicture(console, clock) as picture:
        cluster.operator_toml()
        picture.say(f"starting three nodes; their files are in {cluster.directory}")
        await cluster.start()
        await cluster.make_database()
        picture.say(f"{clients} clients write through the proxy beside them")
        async with Application(cluster.proxied(), writers=clients, clock=clock) as workload:
            await workload.prepare()
            workload.start()
            picture.watch(cluster, workload)
            stage = Stage(cluster, workload, clock, picture.say)
            results = [await rehearse(each, stage) for each in _programme(lab)]
            await workload.stop()
            picture.say("counting the ledger")
            verdict = check(
                workload.history, await workload.rows(), imbalance=await workload.imbalance()
            )
    show(console, results, verdict)
    promised = all(each.errors is None or each.errors.as_promised for each in results)
    return verdict.sound and promised


def _tell_kept(console: Console, lab: Lab) -> None:
    toml = lab.scratch / "cluster" / "operator.toml"
    console.print(f"kept: ./dev run flightmode status --config {toml}", highlight=False)
    console.print("`./dev clean` removes it")


def _programme(lab: Lab) -> list[Rehearsal]:
    all_of_them = [SWITCHOVER, KILL, POWER, PARTITION]
    return [each for each in all_of_them if lab.partitions or each is not PARTITION]


if __name__ == "__main__":
    typer.run(main)
