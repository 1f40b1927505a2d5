"""How soon held clients are answered once a new primary accepts writes, failover by failover.

Every client asks for one write while there is no primary: half of them were idle for a while,
some log in only then.  The old primary is made a standby of the new one for the next turn.
"""

import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg
from hold_stage import Maker, move, stage
from hold_states import Scene
from proxy_bed import Server
from proxy_load import quantile
from proxy_peers import Peer
from rich.table import Table

CLIENTS = 8
OUTAGE_S = 1.0
TABLES = ("CREATE TABLE hold (n bigint)",)


@dataclass
class Series:
    """Of one contestant."""

    answered_s: list[float] = field(default_factory=list)
    """After the new primary was seen to accept writes, each client of each failover."""
    errors: dict[str, int] = field(default_factory=dict)


def table(makers: dict[str, Maker], failovers: int) -> Table:
    """Ours all failovers, the others a fifth of them: they are slower and here to compare."""
    shown = Table(
        title="held clients are answered, after the new primary accepts writes (ms)",
        title_justify="left",
    )
    for heading in ("", "failovers", "answers", "goal p99", "p50", "p99", "max", "errors"):
        shown.add_column(heading, justify="right")
    for name, make in makers.items():
        if name == "HAProxy":
            continue  # It holds nobody.
        turns = failovers if name == "Flightmode" else max(1, failovers // 5)
        series = asyncio.run(_series(make, turns, name))
        figures = [1e3 * answer for answer in series.answered_s]
        cells = [f"{quantile(figures, share):.0f}" for share in (0.5, 0.99, 1.0)]
        errors = ", ".join(f"{code}: {n}" for code, n in sorted(series.errors.items())) or "0"
        shown.add_row(name, str(turns), str(len(figures)), "<= 250", *cells, errors)
    return shown


async def _series(make: Maker, turns: int, name: str) -> Series:
    series = Series()
    with stage(make, TABLES, pool_size=20) as (servers, _, peer):
        old, new = servers["ams"], servers["fra"]
        for turn in range(turns):
            before = len(series.answered_s)
            await _failover(series, peer, old, new)
            worst = max(series.answered_s[before:], default=float("nan"))
            print(f"{turn + 1:3d} {name:16s} slowest {worst * 1e3:.0f} ms", file=sys.stderr)
            await asyncio.to_thread(old.copy, new)
            await asyncio.to_thread(old.start)
            old, new = new, old
    return series


async def _failover(series: Series, peer: Peer, old: Server, new: Server) -> None:
    scene = Scene(peer.port, limit_s=30)
    clients = [await scene.connect() for _ in range(CLIENTS - 2)]
    for client in clients:
        await client.execute("SELECT 1")
    await asyncio.to_thread(old.kill)
    scene.strike()
    asking = [asyncio.create_task(_ask(scene, client)) for client in (*clients, None, None)]
    await asyncio.sleep(OUTAGE_S)
    writable_at_s = await asyncio.to_thread(move, new, peer)
    for task in asking:
        answered_at_s, error = await task
        if error:
            series.errors[error] = series.errors.get(error, 0) + 1
        else:
            series.answered_s.append(max(0.0, answered_at_s - writable_at_s))


async def _ask(
    scene: Scene, client: psycopg.AsyncConnection[tuple[Any, ...]] | None
) -> tuple[float, str]:
    """One write, some time in the outage; when it was answered, or the error."""
    await asyncio.sleep(random.uniform(0.0, OUTAGE_S * 0.8))
    try:
        async with asyncio.timeout(scene.limit_s):
            client = client or await scene.connect()
            await client.execute("INSERT INTO hold VALUES (1)")
            at_s = time.monotonic()
    except psycopg.Error as error:
        return 0.0, error.sqlstate or "closed"
    except TimeoutError:
        return 0.0, "no answer"
    finally:
        if client is not None:
            await client.close()
    return at_s, ""
