"""The workload against one real PostgreSQL that is killed, stopped and made read-only.

What a client noted is held against the table itself, so that a workload that lies is found.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from flightmode.demo.ledger import Attempt, Outcome, check, write_gap
from flightmode.demo.link import Link
from flightmode.demo.workload import Workload
from flightmode.errors import RehearsalFailed

pytestmark = pytest.mark.integration

BIN = Path("/usr/lib/postgresql/15/bin")
SETTINGS = """
shared_buffers = '16MB'
max_connections = 40
unix_socket_directories = ''
listen_addresses = '127.0.0.1'
"""


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class Server:
    """A PostgreSQL without a supervisor, that a test may treat as it likes."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def create(self) -> None:
        argv = [
            BIN / "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
        ]
        subprocess.run([*as_postgres(), *argv], check=True, capture_output=True)
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"{SETTINGS}\nport = {self.port}\n")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*as_postgres(), BIN / "postgres", "-D", self.data], stdout=log, stderr=log
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end of the postmaster and of all its children."""
        assert self.process is not None
        # Stopped, it has no child that is not in the list.
        self.process.send_signal(signal.SIGSTOP)
        children = self.children()
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        self.process.wait(20)
        self.process = None
        # The data directory's shared memory is in use until the last of them is gone.
        _, left = psutil.wait_procs(children, timeout=10)
        assert not left

    def query(self, query: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(query.encode())


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("pg")
    # tmp_path is for its owner alone, and PostgreSQL runs as another user.
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    if os.geteuid() == 0:
        subprocess.run(["chown", "postgres:", directory], check=True)
    server = Server(directory)
    server.create()
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.end(signal.SIGQUIT)


@contextlib.asynccontextmanager
async def writing(server: Server, clients: int = 8) -> AsyncIterator[Workload]:
    # The second node is always dead: the finder must not wait for it.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        dead = f"host=127.0.0.1 port={probe.getsockname()[1]} user=postgres dbname=postgres"
        nodes = {"fra": dead, "ams": server.conninfo}
        async with Workload(nodes, clients=clients, pause_s=0.005) as workload:
            await workload.prepare()
            workload.start()
            yield workload


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not become true"
        await asyncio.sleep(0.01)


async def more_answers(workload: Workload, count: int = 100) -> None:
    goal = count + answers(workload)
    await until(lambda: answers(workload) >= goal)


def ended_after(workload: Workload, moment_s: float) -> list[Attempt]:
    return [one for one in workload.history if one.ended_s > moment_s]


def answers(workload: Workload) -> int:
    return sum(one.outcome is Outcome.ACKNOWLEDGED for one in workload.history)


async def test_every_acknowledged_row_is_there_when_nothing_happens(server: Server) -> None:
    async with writing(server) as workload:
        await more_answers(workload, 300)
        assert workload.primary == "ams"
        assert workload.acknowledged_per_s() > 0
        await workload.stop()
        verdict = check(workload.history, await workload.rows())
        assert verdict.sound
        assert verdict.acknowledged == verdict.attempted >= 300
        assert await workload.imbalance() == 0


async def test_what_is_noted_is_true_after_a_kill_and_a_restart(server: Server) -> None:
    async with writing(server) as workload:
        await more_answers(workload)
        fault_s = now_s()
        await asyncio.to_thread(server.end, signal.SIGKILL)
        server.start()
        await more_answers(workload)
        await workload.stop()

        verdict = check(workload.history, await workload.rows())
        assert verdict.sound, verdict
        assert verdict.acknowledged < verdict.attempted
        assert await workload.imbalance() == 0
        gap = write_gap(workload.history, fault_s=fault_s, until_s=now_s())
        assert gap.from_s <= fault_s + 0.1 < gap.to_s


async def test_a_row_that_is_deleted_behind_the_clients_backs_is_found(server: Server) -> None:
    async with writing(server) as workload:
        await more_answers(workload)
        await workload.stop()
        server.query("DELETE FROM ledger WHERE client = 3 AND sequence = 0")
        server.query("UPDATE account SET balance = balance - 5 WHERE client = 1 AND number = 1")
        verdict = check(
            workload.history, await workload.rows(), imbalance=await workload.imbalance()
        )
        assert [(row.client, row.sequence) for row in verdict.lost] == [(3, 0)]
        assert verdict.imbalance == -5


async def test_a_frozen_server_leaves_commits_unknown_and_clients_come_back(
    server: Server,
) -> None:
    async with writing(server, clients=4) as workload:
        await more_answers(workload)
        children = server.children()
        for child in children:
            child.suspend()
        try:
            begun = now_s()
            await until(lambda: len(ended_after(workload, begun + 1.0)) >= 4)
        finally:
            for child in children:
                child.resume()
        assert not any(
            one.outcome is Outcome.ACKNOWLEDGED for one in ended_after(workload, begun + 1.0)[:4]
        )
        await more_answers(workload)
        await workload.stop()
        assert check(workload.history, await workload.rows()).sound


async def test_a_commit_whose_wait_for_the_standby_is_cancelled_is_unknown(server: Server) -> None:
    async with writing(server, clients=2) as workload:
        await more_answers(workload, 20)
        server.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.query("SELECT pg_reload_conf()")

        def cancel() -> bool:
            server.query(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )
            return any("warning" in one.error for one in workload.history)

        await until(cancel)
        server.query("ALTER SYSTEM RESET synchronous_standby_names")
        server.query("SELECT pg_reload_conf()")
        await more_answers(workload, 20)
        await workload.stop()
        (*_, warned) = (one for one in workload.history if "warning" in one.error)
        assert warned.outcome is Outcome.UNKNOWN
        assert check(workload.history, await workload.rows()).sound


async def test_a_server_that_turns_read_only_rejects_and_is_no_primary(server: Server) -> None:
    async with writing(server, clients=2) as workload:
        await more_answers(workload, 20)
        server.query("ALTER SYSTEM SET default_transaction_read_only = on")
        server.query("SELECT pg_reload_conf()")
        await until(lambda: any("read-only" in one.error for one in workload.history))
        attempts = len(workload.history)
        await asyncio.sleep(0.5)
        # Both clients wait for a primary; they do not try again and again.
        assert len(workload.history) - attempts <= 2
        server.query("ALTER SYSTEM RESET ALL")
        server.query("SELECT pg_reload_conf()")
        await more_answers(workload, 20)
        await workload.stop()
        assert check(workload.history, await workload.rows()).sound


async def test_clients_write_again_soon_after_the_server_takes_writes(server: Server) -> None:
    async with writing(server) as workload:
        await more_answers(workload)
        await asyncio.to_thread(server.end, signal.SIGINT)
        server.start()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(psycopg.Error):
                    link = await Link.open("ams", server.conninfo, deadline_s=0.5)
                    await link.close()
                    break
                await asyncio.sleep(0.005)
        open_s = now_s()
        await more_answers(workload, 1)
        # 50 ms is the aim; the rest is for a machine that does other things too.
        assert now_s() - open_s < 1.0


async def test_a_workload_without_a_primary_says_so_and_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    nodes = {"ams": f"host=127.0.0.1 port={port} user=postgres dbname=postgres"}
    async with Workload(nodes, clients=2) as workload:
        with pytest.raises(RehearsalFailed, match="took writes"):
            await workload.prepare(within_s=0.3)
        workload.start()
        await workload.stop()
    assert workload.history == []
