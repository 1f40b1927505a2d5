"""PostgreSQL's own tools through the proxy, as their users run them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import ROOT, Flightmode, Front

from tests.integration.postgres_server import FLAVOURS, installed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (ROOT / "rust/proxy/Cargo.toml").exists(), reason="the data path is not built yet"
    ),
]
SETTINGS = "wal_level = logical\nmax_replication_slots = 10\nmax_wal_senders = 10\n"
ROWS = "CREATE TABLE told AS SELECT n, repeat('é', n % 50) AS word FROM generate_series(1, 5000) n"


@dataclass
class Stage:
    """A server, the proxy in front of it, and a place for files."""

    server: Server
    proxy: Flightmode
    base: Path
    tools: Path

    def run(self, program: str, *arguments: str, stdin: str = "", direct: bool = False) -> str:
        port = self.server.port if direct else self.proxy.port
        address = {"PGHOST": HOST, "PGPORT": str(port), "PGUSER": "postgres"}
        done = subprocess.run(
            [self.tools / program, *arguments],
            env=os.environ | address | {"PGDATABASE": "postgres", "PGSSLMODE": "prefer"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}: {done.stderr[-2000:]}\n{self.proxy.log_tail()}"
        return done.stdout


@pytest.fixture(
    scope="module",
    params=[("transaction", "15"), ("session", "15"), ("transaction", "18")],
    ids=["transaction", "session", "transaction-tools-18"],
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    pool_mode, tools = request.param
    if not installed(tools):
        pytest.skip(f"PostgreSQL {tools} is not installed")
    with room("fm-tools-") as base, ExitStack() as stack:
        server = Server(base, "ams", settings=SETTINGS)
        server.create()
        stack.callback(server.kill)
        server.start()
        server.sql(ROWS)
        front = Front(base, {"ams": server.port}, "ams", secrets={"postgres": "any"})
        mode = {"pool_mode": pool_mode, "pool_size": 20}
        proxy = Flightmode(front, databases={"*": mode})
        stack.callback(proxy.stop)
        proxy.start()
        yield Stage(server, proxy, base, FLAVOURS[tools].bin_dir)


def test_psql_shows_tables_and_copies_both_ways(stage: Stage):
    assert "told" in stage.run("psql", "-X", "-c", r"\d")
    told = stage.run("psql", "-X", "-c", r"\copy told TO STDOUT")
    assert told.count("\n") == 5000
    stage.run("psql", "-X", "-q", "-c", "CREATE TABLE copied (LIKE told)")
    stage.run("psql", "-X", "-q", "-c", r"\copy copied FROM STDIN", stdin=told)
    assert stage.run("psql", "-XAt", "-c", "SELECT count(*) FROM copied") == "5000\n"
    stage.run("psql", "-X", "-q", "-c", "DROP TABLE copied")


def test_psql_runs_a_script_with_transactions_and_errors(stage: Stage):
    script = "BEGIN;\nSELECT 1/0;\nROLLBACK;\nSELECT 'after';\n"
    assert "after" in stage.run("psql", "-XAt", stdin=script)


def test_psql_knows_its_connection(stage: Stage):
    told = stage.run("psql", "-X", "-c", r"\conninfo")
    assert "postgres" in told
    assert str(stage.proxy.port) in told


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_runs_its_own_transactions(stage: Stage, mode: str):
    stage.run("pgbench", "-i", "-q")
    told = stage.run("pgbench", "-n", "-M", mode, "-c", "8", "-j", "2", "-t", "50")
    assert "processed: 400/400" in told


def test_pgbench_runs_pipelines(stage: Stage):
    script = stage.base / "pipeline.sql"
    lines = [r"\startpipeline", *["SELECT 1;"] * 5, r"\endpipeline"]
    script.write_text("\n".join(lines) + "\n")
    told = stage.run("pgbench", "-n", "-M", "prepared", "-f", str(script), "-c", "4", "-t", "50")
    assert "processed: 200/200" in told


def test_pg_dump_gives_the_same_as_direct(stage: Stage):
    through = dumped(stage.run("pg_dump", "--table=told"))
    assert through == dumped(stage.run("pg_dump", "--table=told", direct=True))
    assert len(through) > 5000


def dumped(text: str) -> list[str]:
    """Without the lines that hold a key of its own in each dump."""
    return [
        line for line in text.splitlines() if not line.startswith((r"\restrict", r"\unrestrict"))
    ]


def test_pg_restore_makes_it_again(stage: Stage):
    if ") 18" in stage.run("pg_restore", "--version"):
        pytest.skip("pg_restore 18 sets what a server of 15 does not have")
    archive = str(stage.base / "told.dump")
    stage.run("pg_dump", "--table=told", "-Fc", "-f", archive)
    stage.run("psql", "-Xqc", "CREATE DATABASE restored")
    stage.run("pg_restore", "-d", "restored", archive)
    assert (
        stage.run("psql", "-XAt", "-d", "restored", "-c", "SELECT count(*) FROM told") == "5000\n"
    )
    stage.run("psql", "-Xqc", "DROP DATABASE restored WITH (FORCE)")


def test_logical_replication_runs_through_it(stage: Stage):
    """A subscriber that knows the proxy's address and no other."""
    with ExitStack() as stack:
        target = Server(stage.base, "lhr")
        target.create()
        stack.callback(target.kill)
        target.start()
        target.sql("CREATE TABLE told (n int, word text)")
        stack.callback(stage.server.sql, "DELETE FROM told WHERE n = 0")
        stage.server.sql("CREATE PUBLICATION all_of_it FOR TABLE told")
        stack.callback(stage.server.sql, "DROP PUBLICATION all_of_it")
        conninfo = f"host={HOST} port={stage.proxy.port} user=postgres dbname=postgres"
        target.sql(f"CREATE SUBSCRIPTION s CONNECTION '{conninfo}' PUBLICATION all_of_it")
        eventually("the copy is complete", lambda: rows(target) == 5000)
        stage.server.sql("INSERT INTO told VALUES (0, 'later')")
        eventually("the change arrives", lambda: rows(target) == 5001)
        target.sql("DROP SUBSCRIPTION s")


def rows(server: Server) -> int:
    with server.connect() as connection:
        row = connection.execute("SELECT count(*) FROM told").fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_query_is_cancelled_and_nobody_elses(stage: Stage):
    conninfo = f"host={HOST} port={stage.proxy.port} user=postgres dbname=postgres"
    with psycopg.connect(conninfo) as one, psycopg.connect(conninfo) as other:
        other.execute("SELECT 1")
        one.execute("BEGIN")
        one.pgconn.send_query(b"SELECT pg_sleep(60)")
        eventually("it runs", lambda: sleepers(stage.server) == 1)
        one.cancel_safe(timeout=10)
        result = one.pgconn.get_result()
        assert result is not None
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        other.execute("SELECT 1")
        one.pgconn.get_result()


def sleepers(server: Server) -> int:
    ask = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"
    with server.connect() as connection:
        row = connection.execute(ask).fetchone()
    assert row is not None
    return int(str(row[0]))
