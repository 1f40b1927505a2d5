"""Six clients, each in a state of its own when the primary goes, and what each of them saw.

A pool of four is full at that moment: with a transaction that is open, a write and a read in
flight, and a COMMIT that waits for a standby which never comes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from proxy_bed import HOST

LATER_S = 1.0
"""When, after the fault, the clients act that were doing nothing."""
POOL = 4
TABLES = (
    "CREATE TABLE hold (n bigint)",
    "CREATE TABLE big AS SELECT n FROM generate_series(1, 8000) AS s(n)",
    "ANALYZE big",
)
LONG_READ = "SELECT count(*) FROM big a, big b WHERE a.n <> b.n"
LONG_WRITE = f"INSERT INTO hold {LONG_READ.replace('big b', 'big b, big c')}"

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True)
class Outcome:
    """What a client saw, and how long after the fault."""

    what: str
    after_s: float

    def __str__(self) -> str:
        return f"{self.what} +{self.after_s:.1f} s" if self.after_s >= 0 else self.what


@dataclass
class Scene:
    """The clients' common clock."""

    port: int
    limit_s: float
    prepared: int = 0
    fault: asyncio.Event = field(default_factory=asyncio.Event)
    fault_s: float = 0.0

    async def connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            host=HOST,
            port=self.port,
            user="postgres",
            dbname="postgres",
            sslmode="disable",
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=round(self.limit_s) + 5,
        )

    def since_s(self) -> float:
        return time.monotonic() - self.fault_s

    def strike(self) -> None:
        """The fault happens now."""
        self.fault_s = time.monotonic()
        self.fault.set()

    async def later(self) -> None:
        """A while after the fault."""
        self.prepared += 1
        await self.fault.wait()
        await asyncio.sleep(LATER_S)


async def observe(scene: Scene, state: str) -> Outcome:
    """Bring a client into that state, and wait for what comes of it.

    Whatever happens to it is the result: this raises nothing that a server may cause.
    """
    connection: Connection | None = None
    try:
        async with asyncio.timeout(None) as patience:
            act = STATES[state]
            connection = await scene.connect() if state != "new" else None
            waiting = asyncio.create_task(_impatient(scene, patience))
            try:
                await act(scene, connection)
            finally:
                waiting.cancel()
        return Outcome("answered", scene.since_s())
    except TimeoutError:
        return Outcome(f"no answer in {scene.limit_s:.0f} s", -1.0)
    except psycopg.Error as error:
        return await _refused(scene, connection, error)
    finally:
        if connection is not None:
            await connection.close()


async def _impatient(scene: Scene, patience: asyncio.Timeout) -> None:
    await scene.fault.wait()
    patience.reschedule(asyncio.get_running_loop().time() + scene.limit_s)


async def _refused(scene: Scene, connection: Connection | None, error: psycopg.Error) -> Outcome:
    after_s = scene.since_s()
    state = error.sqlstate or "closed"
    if connection is None or connection.closed:
        severity = error.diag.severity
        word = f"{severity} {state}" if severity else "closed"
        return Outcome(word, after_s)
    kept = await _works(scene, connection)
    return Outcome(f"{state}, {'kept' if kept else 'lost'}", after_s)


async def _works(scene: Scene, connection: Connection) -> bool:
    """Can it be used again, as a driver would?"""
    try:
        async with asyncio.timeout(scene.limit_s):
            await connection.execute("ROLLBACK")
            await connection.execute("SELECT 1")
    except (psycopg.Error, TimeoutError):
        return False
    return True


# ------------------------------------------------------------------ the states


async def _idle(scene: Scene, connection: Connection | None) -> None:
    assert connection is not None
    await connection.execute("SELECT 1")
    await scene.later()
    await connection.execute("INSERT INTO hold VALUES (1)")


async def _new(scene: Scene, _connection: Connection | None) -> None:
    await scene.later()
    async with await scene.connect() as connection:
        await connection.execute("INSERT INTO hold VALUES (2)")


async def _waiting(scene: Scene, connection: Connection | None) -> None:
    assert connection is not None
    scene.prepared += 1
    await connection.execute("INSERT INTO hold VALUES (3)")


async def _transaction(scene: Scene, connection: Connection | None) -> None:
    assert connection is not None
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO hold VALUES (4)")
    await scene.later()
    await connection.execute("INSERT INTO hold VALUES (4)")
    await connection.execute("COMMIT")


async def _write(scene: Scene, connection: Connection | None) -> None:
    assert connection is not None
    scene.prepared += 1
    await connection.execute(LONG_WRITE)


async def _read(scene: Scene, connection: Connection | None) -> None:
    assert connection is not None
    scene.prepared += 1
    await connection.execute(LONG_READ)


async def _commit(scene: Scene, connection: Connection | None) -> None:
    """Its commit waits for `synchronous_standby_names`, where nobody is who exists."""
    assert connection is not None
    await connection.execute("BEGIN")
    await connection.execute("SET LOCAL synchronous_commit = on")
    await connection.execute("INSERT INTO hold VALUES (5)")
    scene.prepared += 1
    await connection.execute("COMMIT")


STATES: dict[str, Callable[[Scene, Connection | None], Awaitable[None]]] = {
    "idle": _idle,
    "new": _new,
    "in a transaction": _transaction,
    "write in flight": _write,
    "read in flight": _read,
    "COMMIT in flight": _commit,
    "waiting": _waiting,
}
"""In the order in which they are brought about: who waits comes last, when the pool is full."""
