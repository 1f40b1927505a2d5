"""How long clients can't write: each fault many times over, one run, one machine.

    ./dev run python bench/failover.py [--times 10] [--clients 16] [--only kill,power,etcd,…]

Prints for each fault the median, the spread and every single figure of the write gap: from
the last acknowledged commit before to the first after, over all clients.  The faults take
turns, so that a slow stretch of a shared machine touches them all.  Exits 1 when an
acknowledged row is missing.  `stall` needs namespaces, and gives each database node a disk of its
own (chaos/disks.py), which takes no write while it lasts.  The clients log in on the nodes
themselves, three at a time to one node as the workers of a pool do; the proxy is in bench/hold.py.
"""

import asyncio
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from chaos.lab import ChaosLab
from flightmode.agent.clock import SystemClock
from flightmode.demo.cluster import NODES, DemoCluster
from flightmode.demo.lab import Lab
from flightmode.demo.ledger import Verdict, check
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.rehearsals import (
    AGENT_LOST,
    ETCD_LOST,
    HUNG,
    KILL,
    PARTITION,
    POWER,
    STANDBY_LOST,
    SWITCHOVER,
    WITNESS_LOST,
    Rehearsal,
    Result,
    Stage,
    rehearse,
)
from flightmode.demo.workload import Workload


async def stall(stage: Stage, primary: str) -> str:
    """No write reaches the disk of the primary."""
    assert isinstance(stage.cluster.lab, ChaosLab)
    await asyncio.to_thread(stage.cluster.lab.disks.freeze, primary)
    return ""


async def thaw(stage: Stage, primary: str) -> str:
    """They all do."""
    assert isinstance(stage.cluster.lab, ChaosLab)
    await asyncio.to_thread(stage.cluster.lab.disks.thaw, primary)
    return ""


FAULTS = {
    "kill": KILL,
    "switchover": SWITCHOVER,
    "power": POWER,
    "partition": PARTITION,
    "hung": HUNG,
    "stall": Rehearsal("stalled disk of the primary", stall, thaw),
    "standby": STANDBY_LOST,
    "witness": WITNESS_LOST,
    "etcd": ETCD_LOST,
    "agent": AGENT_LOST,
}
GOALS_S = {
    "kill": 0.4,
    "switchover": 0.4,
    "power": 2.0,
    "partition": 2.0,
    "hung": 8.0,
    "stall": 8.0,
    "standby": 1.0,
    "witness": 0.1,
    "etcd": 0.1,
    "agent": 0.1,
}
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def main(
    times: Annotated[int, typer.Option(min=1, max=200)] = 10,
    clients: Annotated[int, typer.Option(min=1, max=200)] = 16,
    only: Annotated[str, typer.Option(help="Comma-separated.")] = "kill,switchover,power",
    namespaces: Annotated[bool, typer.Option(help="Else three nodes on loopback.")] = False,
) -> None:
    """Write gaps of rehearsed failures."""
    chosen = [name.strip() for name in only.split(",")]
    if "stall" in chosen and not namespaces:
        raise typer.BadParameter("a disk that stalls needs --namespaces")
    with TemporaryDirectory(prefix="flightmode-bench-") as logs:
        lab = _lab(chosen, Path(logs), namespaces=namespaces)
        gaps, verdict = asyncio.run(_measure(lab, chosen, times, clients))
    console = Console()
    console.print(_table(gaps))
    console.print(
        f"ledger: {verdict.acknowledged} acknowledged, {len(verdict.lost)} lost, "
        f"{verdict.unknown} unknown, {verdict.rejected} refused"
    )
    sys.exit(0 if verdict.sound else 1)


def _lab(chosen: list[str], logs: Path, *, namespaces: bool) -> Lab:
    if not namespaces:
        return LoopbackLab(NODES)
    if "stall" not in chosen:
        return NamespaceLab(NODES)
    return ChaosLab(NODES, with_disks=NODES, logs=logs)


async def _measure(
    lab: Lab, chosen: list[str], times: int, clients: int
) -> tuple[dict[str, list[Result]], Verdict]:
    clock = SystemClock()
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    # The guard against a crash loop would, rightly, end a series of crashes.
    async with lab, DemoCluster(lab, POSTGRES, guards={"crashes_max": 100}) as cluster:
        if isinstance(lab, ChaosLab):
            for name in NODES:
                await asyncio.to_thread(lab.disks.put_under, name, cluster.directory / name)
        await cluster.start()
        await cluster.make_database()
        nodes = {name: cluster.conninfo(name) for name in cluster.policy.databases}
        async with Workload(nodes, clients=clients, clock=clock) as workload:
            await workload.prepare()
            workload.start()
            stage = Stage(cluster, workload, clock, _silent)
            for turn in range(times):
                for name in chosen:
                    result = await rehearse(FAULTS[name], stage)
                    results[name].append(result)
                    print(f"{turn + 1:3d} {name:12s} {result.gap_s:.3f} s", file=sys.stderr)
            await workload.stop()
            imbalance = await workload.imbalance()
            verdict = check(workload.history, await workload.rows(), imbalance=imbalance)
    return results, verdict


def _silent(text: str) -> None:
    """The table tells it."""


def _table(gaps: dict[str, list[Result]]) -> Table:
    table = Table(title="write gap as the clients saw it, in seconds", title_justify="left")
    for heading in ("fault", "n", "goal", "median", "max", "min", "old primary back", "each"):
        table.add_column(heading, justify="left" if heading in ("fault", "each") else "right")
    for name, results in gaps.items():
        figures = [result.gap_s for result in results]
        back_s = statistics.median(result.back_s for result in results)
        table.add_row(
            name,
            str(len(figures)),
            f"{GOALS_S[name]:.1f}",
            f"{statistics.median(figures):.3f}",
            f"{max(figures):.3f}",
            f"{min(figures):.3f}",
            f"{back_s:.1f}",
            " ".join(f"{figure:.2f}" for figure in figures),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
