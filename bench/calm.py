"""Whether a busy machine is taken for a broken one: load, and nothing else, for a while.

    ./dev run python bench/calm.py [--minutes 5] [--clients 16] [--hogs 4] [--namespaces]

Clients write all the time and processes that do nothing but compute take every core.  Nothing
is broken, so nobody may be replaced: exits 1 when the leader has changed or a row is missing.
How often commits went on without the standby is counted beside it.
"""

import asyncio
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from flightmode.agent.clock import SystemClock
from flightmode.demo.cluster import NODES, DemoCluster
from flightmode.demo.lab import Lab
from flightmode.demo.ledger import Outcome, Verdict, check, write_gap
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.workload import Workload
from flightmode.model.cluster import ClusterState, Mode

POSTGRES = Path("/usr/lib/postgresql/15/bin")
_LOOK_S = 0.5
# It ends with whoever started it, also by SIGKILL.
_HOG = "import os; who = os.getppid()\nwhile os.getppid() == who: sum(range(100_000))"


def main(
    minutes: Annotated[float, typer.Option(min=0.1, max=120)] = 5.0,
    clients: Annotated[int, typer.Option(min=1, max=200)] = 16,
    hogs: Annotated[int, typer.Option(min=0, max=64)] = 4,
    namespaces: Annotated[bool, typer.Option(help="Else three nodes on loopback.")] = False,
) -> None:
    """False alarms under load."""
    lab: Lab = NamespaceLab(NODES) if namespaces else LoopbackLab(NODES)
    states, verdict, gap_s = asyncio.run(_watch(lab, minutes, clients, hogs))
    terms = sorted({state.term for state in states})
    alone = sum(
        before.mode is Mode.SYNC and after.mode is Mode.SOLO for before, after in pairwise(states)
    )
    print(f"{minutes:g} minutes, {clients} clients, {hogs} hogs; longest write gap {gap_s:.2f} s")
    print(f"{verdict.acknowledged} acknowledged, {len(verdict.lost)} lost")
    print(f"leader changed {len(terms) - 1} times; commits went on alone {alone} times")
    for state in states[1:]:
        print(f"  term {state.term}, {state.leader}, {state.mode}: {state.reason}")
    sys.exit(0 if verdict.sound and len(terms) == 1 else 1)


async def _watch(
    lab: Lab, minutes: float, clients: int, hogs: int
) -> tuple[list[ClusterState], Verdict, float]:
    clock = SystemClock()
    async with lab, DemoCluster(lab, POSTGRES) as cluster:
        await cluster.start()
        await cluster.make_database()
        nodes = {name: cluster.conninfo(name) for name in cluster.policy.databases}
        async with Workload(nodes, clients=clients, clock=clock) as workload:
            await workload.prepare()
            workload.start()
            began_s, until_s = clock.now_s(), time.monotonic() + minutes * 60
            busy = [await _hog() for _ in range(hogs)]
            try:
                states = await _states(cluster, until_s)
            finally:
                for hog in busy:
                    hog.kill()
                    await hog.wait()
            ended_s = clock.now_s()
            await workload.stop()
            imbalance = await workload.imbalance()
            verdict = check(workload.history, await workload.rows(), imbalance=imbalance)
            written = [a for a in workload.history if a.outcome is Outcome.ACKNOWLEDGED]
            gap = write_gap(written, fault_s=began_s, until_s=ended_s)
    return states, verdict, gap.length_s


async def _hog() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _HOG)


async def _states(cluster: DemoCluster, until_s: float) -> list[ClusterState]:
    """Each state that says something new."""
    states: list[ClusterState] = []
    while time.monotonic() < until_s:
        picture = await cluster.picture()
        if picture is not None:
            state = picture.state
            known = states and (states[-1].term, states[-1].mode) == (state.term, state.mode)
            if not known:
                states.append(state)
        await asyncio.sleep(_LOOK_S)
    return states


if __name__ == "__main__":
    typer.run(main)
