"""A server that others made, taken over and run by the hand: old rows, old roles, old settings."""

import os
import signal
import subprocess

import psycopg
import pytest

from flightmode.model.server import Role, Run
from flightmode.postgres.adopt import inspect
from tests.integration.postgres_server import HOST, Machine, Node

pytestmark = pytest.mark.integration

OLD = (
    "CREATE ROLE app LOGIN PASSWORD 'of its clients'",
    "CREATE ROLE shop LOGIN SUPERUSER PASSWORD 'of the shop'",
    "CREATE TABLE rows (i int PRIMARY KEY)",
    "INSERT INTO rows SELECT generate_series(1, 1000)",
    "ALTER SYSTEM SET work_mem = '9MB'",
    "ALTER SYSTEM SET synchronous_standby_names = ''",
    "ALTER DATABASE postgres SET statement_timeout = '1s'",
    "ALTER ROLE postgres PASSWORD 'of their own'",
)


def run(node: Node, program: str, *words: object) -> None:
    """As the user of Postgres."""
    config = node.config
    argv = [str(config.bin_dir / program), *map(str, words)]
    user = config.uid if os.geteuid() == 0 else None
    subprocess.run(argv, user=user, cwd="/", check=True, capture_output=True, timeout=60)


def made_by_others(node: Node) -> None:
    """As a person makes one by hand: no checksums, trust for the local user, a password."""
    config = node.config
    data_dir, sockets = config.data_dir, config.data_dir.parent
    checksums = ["--no-data-checksums"] if config.pg_major >= 18 else []
    run(node, "initdb", "-D", data_dir, "-U", "postgres", "-A", "trust", "-N", *checksums)
    with (data_dir / "postgresql.conf").open("a") as conf:
        conf.write(
            "max_connections = 40\nwal_level = minimal\nmax_wal_senders = 0\n"
            "recovery_target_time = '2020-01-01 00:00:00'\n"
        )
    (data_dir / "pg_hba.conf").write_text("local all all trust\nhost all all 10.0.0.0/8 md5\n")
    options = f"-c port={config.port} -c listen_addresses='' -c unix_socket_directories={sockets}"
    run(node, "pg_ctl", "start", "-w", "-D", data_dir, "-o", options, "-l", sockets / "old.log")
    try:
        for statement in OLD:
            with psycopg.connect(
                host=str(sockets), port=config.port, user="postgres", autocommit=True
            ) as old:
                old.execute(statement.encode())
    finally:
        run(node, "pg_ctl", "stop", "-w", "-D", data_dir)


async def test_an_adopted_server_runs_and_can_be_copied(machine: Machine) -> None:
    ams = machine.node("ams", parameters=())
    made_by_others(ams)
    found = inspect(ams.config.data_dir, bin_dir=ams.config.bin_dir)
    assert any("no data checksums" in note for note in found.notes)

    await ams.start(Role.PRIMARY)
    await ams.server.prepare(("fra",))
    seen = await ams.observe()
    assert seen.data is not None
    assert (seen.run, seen.prepared) == (Run.PRIMARY, True)
    assert seen.data.system_identifier == found.data.system_identifier
    assert await ams.sql("SELECT count(*) FROM rows") == [(1000,)]
    for name, value in (
        ("max_connections", "40"),
        ("work_mem", "9MB"),
        ("wal_level", "replica"),
        ("max_wal_senders", "10"),
        ("wal_log_hints", "on"),
    ):
        assert await ams.sql("SELECT current_setting(%s)", name) == [(value,)]

    fra = await machine.standby("fra", ams, parameters=())
    await fra.until("it has all", lambda standby: standby.replayed >= seen.position)
    assert await fra.sql("SELECT count(*) FROM rows") == [(1000,)]


async def test_old_clients_enter_an_adopted_server_as_before(machine: Machine) -> None:
    ams = machine.node("ams")
    made_by_others(ams)
    await ams.start(Role.PRIMARY)
    await ams.server.prepare(())
    for role, password in (("app", "of its clients"), ("shop", "of the shop")):
        with psycopg.connect(
            host=HOST,
            port=ams.config.port,
            user=role,
            password=password,
            dbname="postgres",
            sslmode="require" if machine.flavour.tls else "disable",
        ) as client:
            assert client.execute("SELECT current_user").fetchone() == (role,)


async def test_who_was_trusted_locally_is_not_any_more(machine: Machine) -> None:
    ams = machine.node("ams")
    made_by_others(ams)
    await ams.start(Role.PRIMARY)
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        psycopg.connect(
            host=str(ams.config.socket_dir), port=ams.config.port, user="shop", dbname="postgres"
        )


async def test_a_killed_adopted_primary_can_be_rewound_without_checksums(machine: Machine) -> None:
    ams = machine.node("ams")
    made_by_others(ams)
    await ams.start(Role.PRIMARY)
    await ams.server.prepare(("fra",))
    fra = await machine.standby("fra", ams)
    await fra.server.detach()
    await fra.until("no receiver is left", lambda seen: seen.receiver is None)
    await ams.sql("DELETE FROM rows")
    await ams.stop(signal.SIGKILL)
    await fra.server.promote()
    await fra.until("it is a primary", lambda seen: seen.run is Run.PRIMARY)
    await fra.server.prepare(("ams",))
    await ams.server.rewind("fra")
    await ams.start(Role.STANDBY, fra)
    await ams.until("it streams", lambda seen: bool(seen.receiver and seen.receiver.streaming))
    assert await ams.sql("SELECT count(*) FROM rows") == [(1000,)]
