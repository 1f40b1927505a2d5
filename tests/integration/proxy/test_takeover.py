"""One proxy takes the place of another, with clients at work: what they notice of it is nothing.

Both data paths are in this process, with the real messages of `flightmode.proxy.takeover` between
them; `test_operation` does the same with processes.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import Flightmode, Front

from flightmode import _native
from flightmode.errors import TakeOverFailed
from flightmode.proxy.takeover import Giver, Heir, listen, path_of
from tests.integration.live_cluster import needs_servers
from tests.integration.proxy.test_limits import certificate

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(40),
    needs_servers,
]


@dataclass
class Hall:
    """A server, and proxies before it; all of them with the same settings."""

    server: Server
    base: Path
    port: int
    settings: str
    stack: ExitStack

    def proxy(self, sockets: list[int] | None = None) -> _native.Proxy:
        made = _native.Proxy(self.settings, sockets or [])
        self.stack.callback(made.stop)
        made.topology(json.dumps({"term": 1, "revision": 1, "primary": "ams"}))
        return made

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        address: dict[str, Any] = {"host": HOST, "port": self.port, "user": "postgres"}
        address |= {
            "dbname": "postgres",
            "autocommit": True,
            "connect_timeout": 10,
            "sslmode": "disable",
        }
        return self.stack.enter_context(psycopg.connect(**(address | options)))

    def links(self) -> tuple[socket.socket, socket.socket]:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stack.callback(here.close)
        self.stack.callback(there.close)
        return here, there


@contextmanager
def hall(shards: int = 1, pool_mode: str = "transaction") -> Iterator[Hall]:
    with room("fm-takeover-") as base, ExitStack() as stack:
        server = Server(base, "ams")
        server.create()
        stack.callback(server.kill)
        server.start()
        front = Front(base, {"ams": server.port}, "ams", secrets={"postgres": "any"})
        # Only for what it writes: what runs is in this process.
        tls = certificate(base, "proxy")
        model = Flightmode(front, program=Path("none"), shards=shards, client_tls=tls)
        model.changed["databases"] = {"*": {"pool_mode": pool_mode, "pool_size": 5}}
        (model.base / "users.txt").write_text('"postgres" "any"\n')
        (model.base / "users.txt").chmod(0o600)
        yield Hall(server, base, model.port, json.dumps(model.config()), stack)


@dataclass
class Handing:
    """An old proxy that gives, and a new one that takes, each in its thread."""

    new: _native.Proxy
    giver: Giver
    heir: Heir
    threads: list[threading.Thread]

    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads)


def hand_over(here: Hall, old: _native.Proxy) -> Handing:
    to_heir, to_old = here.links()
    giver = Giver(to_heir, old)
    threads = [threading.Thread(target=lambda: giver.offer() and giver.give())]
    threads[0].start()
    kind, sockets, _, _ = socket.recv_fds(to_old, 16, 64)
    assert kind == b"L"
    new = here.proxy(list(sockets))
    heir = Heir(to_old, list(sockets))
    heir.begin()
    threads.append(
        threading.Thread(target=heir.adopt_all, args=(new, _native.check_parcel)),
    )
    threads[1].start()
    here.stack.callback(lambda: [thread.join(10) for thread in threads])
    return Handing(new, giver, heir, threads)


def clients_of(proxy: _native.Proxy) -> int:
    pools = json.loads(proxy.stats())["pools"]
    states = ("clients_active", "clients_idle", "clients_waiting")
    return sum(pool[state] for pool in pools for state in states)


def servers_of(proxy: _native.Proxy) -> int:
    return sum(int(pool["servers_idle"]) for pool in json.loads(proxy.stats())["pools"])


@pytest.mark.parametrize("shards", [1, 3])
def test_clients_go_over_with_all_that_they_have(shards: int):
    with hall(shards) as here:
        old = here.proxy()
        idle = [here.connect() for _ in range(30)]
        for number, client in enumerate(idle):
            client.execute(f"SET application_name = 'n{number}'".encode())
            for _ in range(3):
                client.execute("SELECT %s::int + 1", (number,), prepare=True)
        handing = hand_over(here, old)
        eventually("it is done", handing.done, 10)
        assert (clients_of(old), clients_of(handing.new)) == (0, 30)
        old.stop()
        for number, client in enumerate(idle):
            assert client.execute("SHOW application_name").fetchone() == (f"n{number}",)
            cursor = client.execute("SELECT %s::int + 1", (number,), prepare=True)
            assert cursor.fetchone() == (number + 1,)
            assert client.pgconn.parameter_status(b"application_name") == f"n{number}".encode()
        assert here.connect().execute("SELECT 1").fetchone() == (1,)


def test_who_is_in_a_transaction_ends_it_where_it_began_and_follows():
    with hall() as here:
        old = here.proxy()
        busy, waits = here.connect(), here.connect()
        busy.execute("CREATE TABLE kept (n int)")
        busy.execute("BEGIN")
        busy.execute("INSERT INTO kept VALUES (1)")
        handing = hand_over(here, old)
        eventually("the other went", lambda: handing.giver.given == 1)
        assert waits.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert not handing.done()
        busy.execute("INSERT INTO kept VALUES (2)")
        busy.execute("COMMIT")
        eventually("it is done", handing.done, 10)
        assert busy.execute("SELECT count(*) FROM kept").fetchone() == (2,)
        assert clients_of(handing.new) == 2


def test_a_statement_can_be_cancelled_on_both_sides_of_it():
    with hall() as here:
        old = here.proxy()
        stays, goes = here.connect(), here.connect()
        stays.execute("BEGIN")
        handing = hand_over(here, old)
        eventually("one went", lambda: handing.giver.given == 1)
        for client in (goes, stays):
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

            def strike(client: psycopg.Connection[Any] = client, asleep: str = asleep) -> None:
                eventually("it sleeps", lambda: count(here, asleep) == 1)
                client.cancel_safe(timeout=10)
                for each in json.loads(handing.new.events(1)):
                    if each["event"] == "cancel_unknown":
                        handing.heir.cancel(each["client"], each["secret"])

            striker = threading.Thread(target=strike)
            striker.start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                client.execute("SELECT pg_sleep(30)")
            striker.join()
        stays.execute("ROLLBACK")
        eventually("it is done", handing.done, 10)


def count(here: Hall, sql: str) -> int:
    with here.server.connect() as connection:
        row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_client_of_tls_keeps_its_connection_through_the_process_that_has_it():
    with hall() as here:
        old = here.proxy()
        client = here.connect(sslmode="require")
        client.execute("SELECT 1")
        handing = hand_over(here, old)
        eventually("it went", lambda: clients_of(handing.new) == 1)
        assert clients_of(old) == 0
        for _ in range(3):
            row = client.execute("SELECT repeat('x', 300000)").fetchone()
            assert row is not None
            assert len(row[0]) == 300_000
        assert not handing.done(), "its bytes go through the old one"
        eventually("it needs no server any more", lambda: servers_of(old) == 0)
        client.close()
        eventually("it is done", handing.done, 10)


def test_who_has_something_at_its_server_stays_until_it_leaves():
    with hall() as here:
        old = here.proxy()
        pinned = here.connect()
        pinned.execute("CREATE TEMP TABLE mine (n int)")
        handing = hand_over(here, old)
        assert here.connect().execute("SELECT 1").fetchone() == (1,)
        pinned.execute("INSERT INTO mine VALUES (1)")
        assert pinned.execute("SELECT n FROM mine").fetchone() == (1,)
        assert not handing.done()
        pinned.execute("DISCARD ALL")
        eventually("it is done", handing.done, 10)
        assert pinned.execute("SELECT 1").fetchone() == (1,)


def test_a_heir_that_dies_leaves_every_client_where_it_was():
    with hall() as here:
        old = here.proxy()
        idle = [here.connect() for _ in range(10)]
        to_heir, to_old = here.links()
        giver = Giver(to_heir, old)
        outcome: list[bool] = []

        def give() -> None:
            assert giver.offer()
            outcome.append(giver.give())
            giver.keep(here.settings)

        thread = threading.Thread(target=give)
        thread.start()
        _, sockets, _, _ = socket.recv_fds(to_old, 16, 64)
        heir = Heir(to_old, list(sockets))
        heir.begin()
        # It takes one, and is gone before it says so.
        _, numbers, _, _ = socket.recv_fds(to_old, 65536, 1)
        for number in (*numbers, *sockets):
            os.close(number)
        to_old.close()
        thread.join(20)
        assert outcome == [False]
        for client in idle:
            assert client.execute("SELECT 1").fetchone() == (1,)
        assert here.connect().execute("SELECT 1").fetchone() == (1,), "it listens again"
        eventually("it has them", lambda: clients_of(old) == 11)


def test_a_client_that_the_heir_cannot_read_stays():
    with hall() as here:
        old = here.proxy()
        client = here.connect()
        to_heir, to_old = here.links()
        giver = Giver(to_heir, old)
        thread = threading.Thread(target=lambda: giver.offer() and giver.give())
        thread.start()
        _, sockets, _, _ = socket.recv_fds(to_old, 16, 64)
        heir = Heir(to_old, list(sockets))
        new = here.proxy(list(sockets))
        heir.begin()

        def of_the_future(state: bytes) -> None:
            known = json.loads(state)
            _native.check_parcel(json.dumps(known | {"version": 99}).encode())

        taking = threading.Thread(target=heir.adopt_all, args=(new, of_the_future))
        taking.start()
        assert client.execute("SELECT 1").fetchone() == (1,)
        eventually("it is back", lambda: clients_of(old) == 1)
        assert (giver.given, clients_of(new)) == (0, 0)
        client.close()
        thread.join(10)
        taking.join(10)
        assert not thread.is_alive()
        assert not taking.is_alive()


def test_nobody_is_found_where_nobody_runs(tmp_path: Path):
    assert Heir.find(tmp_path) is None
    listen(tmp_path).close()
    assert Heir.find(tmp_path) is None, "its file is left of one that was killed"
    assert path_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_who_does_not_offer_its_sockets_is_not_taken_over(tmp_path: Path):
    with listen(tmp_path) as listener:

        def refuse() -> None:
            listener.setblocking(True)
            listener.accept()[0].close()

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(TakeOverFailed):
            Heir.find(tmp_path)
        thread.join()


def test_what_is_no_client_is_refused_before_it_is_taken():
    for state in (b"", b"{}", b'{"version": 2}', b"[1]"):
        with pytest.raises(ValueError, match="client"):
            _native.check_parcel(state)
