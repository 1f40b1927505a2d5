"""What each client sees of a failover, held against the table in docs/design of the proxy.

Two real servers; the primary is killed, vanishes, or is handed over; the test promotes the
standby and tells the proxy, as the node's agent would.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from hold_stage import dropping
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import ROOT, Flightmode, Front
from psycopg.rows import dict_row

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "rust/proxy/Cargo.toml").exists(), reason="the data path is not built yet"
    ),
]

Connection = psycopg.AsyncConnection[tuple[object, ...]]

TABLES = (
    "CREATE TABLE told (who text)",
    "CREATE TABLE big AS SELECT n FROM generate_series(1, 8000) AS s(n)",
    "ANALYZE big",
)
# Seconds of work by their text alone: a function like pg_sleep would count as a write.
LONG_READ = "SELECT count(*) FROM big a, big b WHERE a.n <> b.n"
LONG_WRITE = (
    "INSERT INTO told SELECT 'write' FROM"
    " (SELECT count(*) FROM big a, big b, big c WHERE a.n <> b.n) AS s"
)
POOL = 5
"""As many as there are clients in flight, so that one more has to wait."""


@dataclass
class Stage:
    """Two servers and the proxy in front of them."""

    servers: dict[str, Server]
    proxy: Flightmode
    frozen: list[int] = field(default_factory=list)

    async def connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            host=HOST,
            port=self.proxy.port,
            user="postgres",
            dbname="postgres",
            sslmode="disable",
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=30,
            application_name="mine",
        )

    def kill(self) -> None:
        self.servers["ams"].kill()

    def vanish(self) -> None:
        """Its kernel still takes what is sent, and nobody ever answers."""
        data = self.servers["ams"].data
        while new := [pid for pid in _pids_of(data) if pid not in self.frozen]:
            for pid in new:
                # Who ended by itself meanwhile has fallen silent too.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    self.frozen.append(pid)
        assert self.frozen

    def asked(self, console: str) -> list[dict[str, object]]:
        """What the proxy says of itself."""
        with psycopg.connect(
            host=str(self.proxy.base),
            port=1,
            user="ops",
            dbname="flightmode",
            autocommit=True,
            row_factory=dict_row,
        ) as connection:
            return connection.execute(console.encode()).fetchall()

    def waiting(self) -> int:
        return sum(int(str(pool["cl_waiting"])) for pool in self.asked("SHOW POOLS"))

    def open_at(self, node: str) -> int:
        return sum(server["node"] == node for server in self.asked("SHOW SERVERS"))

    def hand_over(self) -> None:
        """As a planned switchover: the news first, then the end of the old primary."""
        self.proxy.no_primary()
        self.servers["ams"].stop()

    def promote(self) -> None:
        self.servers["fra"].promote()
        self.proxy.primary("fra")

    def thaw(self) -> None:
        for pid in self.frozen:
            os.kill(pid, signal.SIGKILL)

    def counted(self, who: str) -> int:
        with self.servers["fra"].connect() as connection:
            row = connection.execute("SELECT count(*) FROM told WHERE who = %s", (who,)).fetchone()
        assert row is not None
        return int(str(row[0]))

    def running(self, text: str, name: str = "ams") -> int:
        with self.servers[name].connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
                (f"{text}%",),
            ).fetchone()
        assert row is not None
        return int(str(row[0]))


def _pids_of(data: Path) -> list[int]:
    """The postmaster, which is the oldest, comes first: it makes no more of them then."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _data_of(pid) == data]


def _data_of(pid: int) -> Path | None:
    """Every process of a server works in its data directory."""
    try:
        if (Path("/proc") / str(pid) / "comm").read_text().strip() != "postgres":
            return None
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def stage(*, hold_for_s: float = 30.0) -> Iterator[Stage]:
    with room("fm-hold-") as base, ExitStack() as stack:
        servers = {name: Server(base, name) for name in ("ams", "fra")}
        for server in servers.values():
            stack.callback(server.kill)
        servers["ams"].create()
        servers["ams"].start()
        servers["ams"].sql(*TABLES)
        # A COMMIT that asks for it waits for a standby that never comes.
        servers["ams"].sql(
            "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"
        )
        servers["fra"].copy(servers["ams"])
        servers["fra"].start()
        ports = {name: server.port for name, server in servers.items()}
        front = Front(base, ports, "ams", pool_size=POOL, secrets={"postgres": ""})
        proxy = Flightmode(front, times={"hold_for_s": hold_for_s, "query_wait_s": 0})
        proxy.changed["admin"] = {"unix": str(proxy.base / ".s.PGSQL.1"), "users": ["ops"]}
        stack.callback(proxy.stop)
        proxy.start()
        made = Stage(servers, proxy)
        stack.callback(made.thaw)
        yield made


@dataclass
class Scene:
    """What the clients of one fault share."""

    stage: Stage
    ready: int = 0
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    promoted: asyncio.Event = field(default_factory=asyncio.Event)

    async def in_state(self) -> None:
        """This client is where it has to be; returns when the fault has happened."""
        self.ready += 1
        await self.struck.wait()


Act = Callable[[Scene, Connection], Awaitable[None]]


async def refusal(connection: Connection, sql: str) -> str | None:
    with pytest.raises(psycopg.Error) as caught:
        await connection.execute(sql.encode())
    assert not connection.closed, f"{sql}: {caught.value}"
    return caught.value.sqlstate


async def value(connection: Connection, sql: str, params: tuple[object, ...] = ()) -> object:
    row = await (await connection.execute(sql.encode(), params or None)).fetchone()
    return row[0] if row else None


def status(connection: Connection) -> str:
    return connection.info.transaction_status.name


# ------------------------------------------------------------------ the clients


async def idle(scene: Scene, connection: Connection) -> None:
    """Held, and answered by the new primary."""
    await scene.in_state()
    await connection.execute("INSERT INTO told VALUES ('idle')")


async def new(scene: Scene, _: Connection) -> None:
    """Its login is answered at once, its statement by the new primary."""
    await scene.in_state()
    async with await scene.stage.connect() as connection:
        await connection.execute("INSERT INTO told VALUES ('new')")


async def in_transaction(scene: Scene, connection: Connection) -> None:
    """40001 once, failed until its end, and usable then."""
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO told VALUES ('transaction')")
    await scene.in_state()
    await scene.promoted.wait()
    assert await refusal(connection, "INSERT INTO told VALUES ('transaction')") == "40001"
    assert status(connection) == "INERROR"
    assert await refusal(connection, "SELECT 1") == "25P02"
    assert status(connection) == "INERROR"
    await connection.execute("ROLLBACK")
    assert status(connection) == "IDLE"


async def commit_afterwards(scene: Scene, connection: Connection) -> None:
    """Its COMMIT comes after the fault, and is no success."""
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO told VALUES ('afterwards')")
    await scene.in_state()
    await scene.promoted.wait()
    assert await refusal(connection, "COMMIT") == "40001"
    assert status(connection) == "IDLE"


async def write_in_flight(scene: Scene, connection: Connection) -> None:
    scene.ready += 1
    assert await refusal(connection, LONG_WRITE) == "08007"
    assert status(connection) == "IDLE"


async def read_in_flight(scene: Scene, connection: Connection) -> None:
    """Run again, and right."""
    scene.ready += 1
    assert await value(connection, LONG_READ) == 8000 * 7999


async def commit_in_flight(scene: Scene, connection: Connection) -> None:
    await connection.execute("BEGIN")
    await connection.execute("SET LOCAL synchronous_commit = on")
    await connection.execute("INSERT INTO told VALUES ('commit')")
    scene.ready += 1
    assert await refusal(connection, "COMMIT") == "08007"
    assert status(connection) == "IDLE"


async def waiting(scene: Scene, connection: Connection) -> None:
    """In the queue for a server when the fault comes."""
    scene.ready += 1
    await connection.execute("INSERT INTO told VALUES ('waiting')")


IN_FLIGHT = (in_transaction, commit_afterwards, write_in_flight, read_in_flight, commit_in_flight)
CLIENTS: tuple[Act, ...] = (idle, new, *IN_FLIGHT, waiting)
"""In the order in which they are brought about: who waits comes last, when the pool is full."""


async def client(scene: Scene, act: Act) -> None:
    """In its state, and after that a connection like any other, with its own settings."""
    async with await scene.stage.connect() as connection:
        await act(scene, connection)
        await scene.promoted.wait()
        assert await value(connection, "SELECT pg_is_in_recovery()") is False
        assert await value(connection, "SHOW application_name") == "mine"


@asynccontextmanager
async def clients(scene: Scene) -> AsyncIterator[None]:
    """All of them in their states; at the end each has seen what it must."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for count, act in enumerate(CLIENTS, 1):
            group.create_task(client(scene, act), name=act.__name__)
            name = act.__name__
            await asyncio.to_thread(eventually, name, lambda count=count: scene.ready >= count)
        stage = scene.stage
        for text in (LONG_READ, LONG_WRITE, "COMMIT"):
            await asyncio.to_thread(eventually, text, lambda text=text: stage.running(text) == 1)
        yield


FAULTS = {
    "killed": Stage.kill,
    "frozen": Stage.vanish,
    "cut_off": lambda _: None,
    "handed_over": Stage.hand_over,
}


def is_held(made: Stage, fault: str) -> bool:
    """Whoever was idle, came new or waited is held, and who can find out by itself has: of a
    server that has only fallen silent nobody can say so yet.
    """
    finds_out = fault in ("killed", "handed_over")
    held = {"idle", "new", "waiting"} | ({"the read"} if finds_out else set())
    return made.waiting() == len(held) and not (finds_out and made.open_at("ams"))


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failover_is_as_the_table_says_for_every_client(fault: str):
    with stage() as made:
        scene = Scene(made)
        port = made.servers["ams"].port
        cut = dropping(port) if fault == "cut_off" else nullcontext()
        async with clients(scene):
            with cut:
                await asyncio.to_thread(FAULTS[fault], made)
                scene.struck.set()
                await asyncio.to_thread(eventually, "all are held", lambda: is_held(made, fault))
                await asyncio.to_thread(made.promote)
                scene.promoted.set()
        counts = {who: made.counted(who) for who in ("idle", "new", "waiting")}
        assert counts == {"idle": 1, "new": 1, "waiting": 1}
        assert {made.counted(who) for who in ("transaction", "afterwards", "write")} == {0}


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_read_in_flight_runs_again_when_its_server_says_goodbye(how: str):
    """Nobody has told the proxy: a server that is stopped sends what it had kept for the client,
    which is what the rows look like, and its farewell behind that.
    """
    with stage() as made:
        async with await made.connect() as simple, await made.connect() as extended:
            reads = [
                asyncio.create_task(value(simple, LONG_READ)),
                asyncio.create_task(value(extended, LONG_READ + " AND a.n > %s", (0,))),
            ]
            await asyncio.to_thread(eventually, "both", lambda: made.running(LONG_READ) == 2)
            await asyncio.to_thread(made.servers["ams"].stop, immediate=how == "immediate")
            await asyncio.to_thread(made.promote)
            assert await asyncio.gather(*reads) == [8000 * 7999] * 2


async def test_a_vanished_host_is_noticed_without_any_news():
    with stage(hold_for_s=12) as made:
        async with await made.connect() as connection:
            await connection.execute("SELECT 1")
            with dropping(made.servers["ams"].port):
                began_s = time.monotonic()
                assert await refusal(connection, "INSERT INTO told VALUES ('lost')") == "08007"
                assert time.monotonic() - began_s < 8
            await connection.execute("INSERT INTO told VALUES ('back')")


async def test_a_budget_that_is_over_keeps_the_connection():
    with stage(hold_for_s=2) as made:
        async with (
            await made.connect() as idle,
            await made.connect() as open_one,
            await made.connect() as reader,
        ):
            await idle.execute("SELECT 1")
            await open_one.execute("BEGIN")
            await open_one.execute("INSERT INTO told VALUES ('open')")
            read = asyncio.create_task(refusal(reader, LONG_READ))
            await asyncio.to_thread(eventually, "the read", lambda: made.running(LONG_READ) == 1)
            await asyncio.to_thread(made.kill)
            began_s = time.monotonic()
            assert await refusal(idle, "INSERT INTO told VALUES ('idle')") == "57P03"
            assert 1.5 < time.monotonic() - began_s < 6
            assert await read == "08006", "it had been sent to a server once"
            assert await refusal(open_one, "COMMIT") == "40001", "that needs no server"
            async with await made.connect() as late:
                assert await refusal(late, "SELECT 1") == "57P03"
                await asyncio.to_thread(made.promote)
                for connection in (idle, open_one, reader, late):
                    await connection.execute("INSERT INTO told VALUES ('after')")
        assert made.counted("after") == 4
        assert made.counted("open") == 0


async def test_a_statement_that_is_held_can_be_cancelled():
    with stage() as made:
        async with await made.connect() as connection:
            await connection.execute("SELECT 1")
            await asyncio.to_thread(made.kill)
            held = asyncio.create_task(refusal(connection, "INSERT INTO told VALUES ('held')"))
            done, _ = await asyncio.wait([held], timeout=0.5)
            assert not done
            connection.cancel()
            assert await asyncio.wait_for(held, 5) == "57014"
            await asyncio.to_thread(made.promote)
            await connection.execute("INSERT INTO told VALUES ('after')")
        assert (made.counted("held"), made.counted("after")) == (0, 1)


async def test_a_write_that_meets_a_standby_under_promotion_waits_for_its_end():
    """News of the primary may come before it has left recovery: nobody hears 25006."""
    with stage() as made:
        async with await made.connect() as connection:
            await connection.execute("SELECT 1")
            await asyncio.to_thread(made.kill)
            made.proxy.primary("fra")
            write = asyncio.create_task(connection.execute("INSERT INTO told VALUES ('early')"))
            done, _ = await asyncio.wait([write], timeout=1.5)
            assert not done, "there is nobody who takes writes"
            await asyncio.to_thread(made.servers["fra"].promote)
            await asyncio.wait_for(write, 20)
        assert made.counted("early") == 1


async def test_a_write_at_a_promoted_session_is_never_run_twice():
    """Its server was a standby when it last spoke: that does not make a write a read."""
    with stage() as made:
        async with await made.connect() as connection:
            await connection.execute("SELECT 1")
            await asyncio.to_thread(made.kill)
            await asyncio.to_thread(made.promote)
            lost = asyncio.create_task(refusal(connection, LONG_WRITE))
            await asyncio.to_thread(
                eventually, "the write", lambda: made.running(LONG_WRITE, "fra") == 1
            )
            made.servers["fra"].kill()
            assert await asyncio.wait_for(lost, 20) == "08007"


async def test_a_commit_whose_wait_for_its_standby_is_cancelled_is_no_success():
    """By a simple query, by the extended protocol, and inside a transaction; and only that."""
    with stage() as made:
        async with await made.connect() as connection:
            for params, name in ((None, "simple"), (("extended",), "extended")):
                insert = "INSERT INTO told VALUES " + ("(%s)" if params else f"('{name}')")
                await connection.execute("SET synchronous_commit = on")
                task = asyncio.create_task(connection.execute(insert.encode(), params))
                await asyncio.to_thread(
                    eventually, "it waits", lambda: made.running("INSERT INTO told VALUES") == 1
                )
                connection.cancel()
                with pytest.raises(psycopg.Error) as caught:
                    await asyncio.wait_for(task, 20)
                assert caught.value.sqlstate == "08007", name
                await connection.execute("SET synchronous_commit = local")
                await connection.execute("INSERT INTO told VALUES ('next')", prepare=False)
                assert await value(connection, "SELECT 1") == 1
