"""The hand on one real server: made, started, prepared, looked at, shut to strangers."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from typing import Final

import psycopg
import pytest
from psycopg import sql

from flightmode.errors import (
    DataInTheWay,
    DataModes,
    ServerSilent,
    ServerUnwilling,
    SettingsRefused,
)
from flightmode.model.lsn import NOWHERE
from flightmode.model.server import FenceView, Role, Run
from flightmode.postgres import connection as connections
from flightmode.postgres import files, settings
from flightmode.postgres.port import PROBE_S, QUIET_S
from flightmode.postgres.server import PostgresServer
from flightmode.provision.restarts import DIRECTIONS
from tests.integration.fence_process import eventually
from tests.integration.postgres_server import Machine, Node

pytestmark = pytest.mark.integration
LOOK_S = 1.0


async def test_a_new_server_is_made_started_and_prepared(machine: Machine) -> None:
    ams = machine.node("ams")
    assert (await ams.observe()).run is Run.ABSENT
    await ams.server.initdb()
    stopped = await ams.observe()
    assert (stopped.run, stopped.data and stopped.data.shut_down_cleanly) == (Run.STOPPED, True)
    await ams.start(Role.PRIMARY)
    await ams.server.prepare(("fra", "lhr"))
    seen = await ams.observe()
    assert (seen.run, seen.prepared, seen.sync_names) == (Run.PRIMARY, True, ())
    assert {slot.name for slot in seen.slots} == {"fra", "lhr"}
    assert seen.data is not None
    assert stopped.data is not None
    assert seen.data.system_identifier == stopped.data.system_identifier
    assert seen.data.pg_major == machine.flavour.major
    assert seen.position >= stopped.position > NOWHERE
    assert await ams.sql("SHOW data_checksums") == [("on",)]


async def test_a_second_initdb_touches_nothing(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.stop()
    with pytest.raises(DataInTheWay):
        await ams.server.initdb()
    assert (await ams.start(Role.PRIMARY)).run is Run.PRIMARY


async def test_prepare_can_be_repeated_and_drops_slots_of_others(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.sql("SELECT pg_create_physical_replication_slot('gone')")
    await ams.server.prepare(("fra",))
    await ams.server.prepare(("fra",))
    assert [slot.name for slot in (await ams.observe()).slots] == ["fra"]


async def test_prepare_does_not_wait_for_a_users_open_transaction(machine: Machine) -> None:
    """At most one job runs at a time: this one would hold up a switchover and a restart."""
    ams = await machine.primary()
    async with connections.local(ams.config) as user, user.transaction():
        await user.execute("ALTER ROLE app CONNECTION LIMIT 9")
        began_s = time.monotonic()
        with pytest.raises(ServerUnwilling):
            await ams.server.prepare(("fra",))
        assert time.monotonic() - began_s < 6.0
    await ams.server.prepare(("fra",))
    assert (await ams.observe()).prepared


async def test_a_planned_stop_waits_for_transactions_that_are_under_way(machine: Machine) -> None:
    ams = await machine.primary()
    began_s = time.monotonic()
    await ams.server.settle(30.0)
    assert time.monotonic() - began_s < 15.0, "nobody was there to wait for"
    user = await psycopg.AsyncConnection.connect(ams.client())
    await user.execute("SELECT 1")
    settling = asyncio.create_task(ams.server.settle(30.0))
    done, _ = await asyncio.wait({settling}, timeout=QUIET_S * 5)
    assert not done, "a transaction is open"
    await user.commit()
    await asyncio.wait_for(settling, 15.0)
    await user.close()


async def test_a_transaction_that_does_not_end_is_not_waited_for_longer(machine: Machine) -> None:
    ams = await machine.primary()
    user = await psycopg.AsyncConnection.connect(ams.client())
    await user.execute("SELECT 1")
    async with asyncio.timeout(15.0):
        await ams.server.settle(0.3)
    await user.close()


async def test_prepared_is_void_after_a_restart(machine: Machine) -> None:
    ams = await machine.primary()
    assert (await ams.observe()).prepared
    await ams.stop()
    assert not (await ams.start(Role.PRIMARY)).prepared


async def test_our_roles_are_no_superusers(machine: Machine) -> None:
    ams = await machine.primary()
    rows = await ams.sql(
        "SELECT rolname, rolsuper, rolreplication, rolcreaterole FROM pg_roles "
        "WHERE rolname LIKE 'flightmode%%' OR rolname = 'app' ORDER BY 1"
    )
    assert rows == [
        ("app", False, False, False),
        ("flightmode_monitor", False, False, False),
        ("flightmode_replication", False, True, False),
        ("flightmode_rewind", False, False, False),
    ]


# ------------------------------------------------------------------------- clients


async def test_clients_wait_outside_until_they_are_admitted(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.stop()
    seen = await ams.start(Role.PRIMARY, admit=False)
    assert not seen.admits_clients
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        await psycopg.AsyncConnection.connect(ams.client())
    await ams.server.admit()

    async def enters() -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(ams.client()):
                return True
        except psycopg.OperationalError:
            return False

    await ams.until("it says so", lambda seen: seen.admits_clients)
    await eventually("a client enters", enters)


async def test_a_file_that_was_not_reloaded_admits_nobody(machine: Machine) -> None:
    """`admit` wrote it and its reload failed: it has to be asked for again."""
    ams = await machine.primary()
    await ams.stop()
    await ams.start(Role.PRIMARY, admit=False)
    text = settings.hba(ams.config, admit=True)
    files.write(ams.config, ams.config.data_dir / settings.HBA, text)
    assert not (await ams.observe()).admits_clients
    await ams.server.admit()
    await ams.until("it says so", lambda seen: seen.admits_clients)


async def test_the_role_of_the_replication_enters_no_database(machine: Machine) -> None:
    ams = await machine.primary()
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        await psycopg.AsyncConnection.connect(ams.client("flightmode_replication", "replication"))


async def test_the_role_of_the_rewind_reads_files_and_writes_nothing(machine: Machine) -> None:
    ams = await machine.primary()
    where = ams.client("flightmode_rewind", "rewind")
    async with await psycopg.AsyncConnection.connect(where, autocommit=True) as opened:
        await opened.execute("SELECT pg_read_binary_file('global/pg_control')")
        for forbidden in ("CREATE TABLE mine (i int)", "SELECT * FROM pg_authid", "CHECKPOINT"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await opened.execute(forbidden)


async def test_no_password_stands_in_the_log_or_the_arguments(machine: Machine) -> None:
    ams = machine.node("ams")
    await machine.unpack(ams.config.data_dir)
    with (ams.config.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("log_statement = 'all'\nlog_min_duration_statement = 0\n")
    await ams.start(Role.PRIMARY)
    await ams.server.prepare(("fra",))
    await ams.sql("SELECT 'of a user'")
    written = ams.log.read_text()
    assert "of a user" in written, "statements are logged, or this test shows nothing"
    said = written + " ".join(ams.argv)
    for secret in ams.config.secrets_dir.iterdir():
        assert secret.read_text().strip() not in said
    assert "SCRAM-SHA-256$" not in said, "not even the verifier"
    assert "pg_stat_wal_receiver" not in said, "nor our looks, twenty a second"


async def test_a_role_app_that_was_there_keeps_its_password(machine: Machine) -> None:
    ams = machine.node("ams")
    await machine.unpack(ams.config.data_dir)
    await ams.start(Role.PRIMARY)
    await ams.sql("CREATE ROLE app LOGIN PASSWORD 'of its clients'")
    query = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'"
    before = await ams.sql(query)
    await ams.server.prepare(())
    assert await ams.sql(query) == before


async def test_a_new_password_is_in_force_after_prepare(machine: Machine) -> None:
    ams = await machine.primary()
    for name in ("app", "replication"):
        (ams.config.secrets_dir / name).write_text(f"another-{name}\n")
    await ams.server.prepare(("fra", "lhr"))
    async with await psycopg.AsyncConnection.connect(ams.client()) as opened:
        assert (await (await opened.execute("SELECT current_user")).fetchone()) == ("app",)
    await machine.standby("fra", ams)
    kept = machine.nodes["fra"].config.passfile
    assert "another-replication" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------------- settings


async def test_alter_system_does_not_outlive_a_start(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await ams.sql("ALTER SYSTEM SET work_mem = '9MB'")
    await ams.sql("SELECT pg_reload_conf()")
    await ams.until("the foreign value is told", lambda seen: seen.sync_names == ("?",))
    await ams.stop()
    assert (await ams.start(Role.PRIMARY)).sync_names == ()
    assert await ams.sql("SHOW work_mem") == [("9MB",)], "the user's other settings stay"


async def test_alter_system_can_not_lead_a_standby_elsewhere(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await fra.sql("ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.1 port=9'")
    await fra.sql("SELECT pg_reload_conf()")
    await fra.until("it is told", lambda seen: seen.following == "192.0.2.1:9")
    await fra.stop()
    await fra.start(Role.STANDBY, ams)
    await fra.until("it follows again", lambda seen: seen.following == "ams")


async def test_what_waits_for_a_restart_is_told(machine: Machine) -> None:
    ams = await machine.primary()
    assert (await ams.observe()).pending_restart == ()
    await ams.sql("ALTER SYSTEM SET max_connections = 55")
    await ams.server.apply_settings()
    # Ours are included last of postgresql.conf; ALTER SYSTEM wins, and is told.
    await ams.until("it is told", lambda seen: seen.pending_restart == ("max_connections",))


async def test_what_waits_for_a_restart_grows_or_shrinks(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.sql("ALTER SYSTEM SET max_connections = 15")
    await ams.sql("ALTER SYSTEM SET max_worker_processes = 77")
    await ams.sql("ALTER SYSTEM SET shared_buffers = '17MB'")
    await ams.server.apply_settings()
    await ams.until("it is told", lambda seen: len(seen.pending_restart) == 3)
    found = {str(row[0]): int(row[1]) for row in await ams.sql(DIRECTIONS)}
    assert found == {"max_connections": -1, "max_worker_processes": 1}


@pytest.mark.parametrize("admit", [False, True])
async def test_new_rules_of_access_are_read_and_let_in_nobody_too_early(
    machine: Machine, admit: bool
) -> None:
    ams = await machine.primary()
    await ams.stop()
    await ams.start(Role.PRIMARY, admit=admit)
    rule = "hostssl ledger app 10.9.9.9/32 scram-sha-256"
    again = PostgresServer(replace(ams.config, hba=(*ams.config.hba, rule)))
    await again.apply_settings()
    await again.close()
    text = (ams.config.data_dir / settings.HBA).read_text()
    assert settings.admits(text) is admit
    assert (rule in text) is admit


async def test_a_role_that_lowers_synchronous_commit_is_told(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.sql("ALTER ROLE app SET synchronous_commit = off")
    again = PostgresServer(ams.config)
    seen = await again.observe(ams.view())
    await again.close()
    assert seen.lowered_commit == ("*/app",)


async def test_alter_system_that_lowers_synchronous_commit_is_told_then_undone(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    await ams.sql("ALTER SYSTEM SET synchronous_commit = off")
    await ams.sql("SELECT pg_reload_conf()")
    again = PostgresServer(ams.config)
    seen = await again.observe(ams.view())
    await again.close()
    assert seen.lowered_commit == ("postgresql.auto.conf",)
    await ams.stop()
    await ams.start(Role.PRIMARY)
    assert await ams.sql("SHOW synchronous_commit") == [("on",)]


async def test_alter_system_against_what_safety_rests_on_is_told_then_undone(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    assert (await ams.observe()).stray_settings == ()
    wrong = {
        "fsync": "off",
        "full_page_writes": "off",
        "restart_after_crash": "on",
        "max_slot_wal_keep_size": "-1",
    }
    for name, value in wrong.items():
        change = sql.SQL("ALTER SYSTEM SET {} = {}")
        await ams.sql(change.format(sql.Identifier(name), sql.Literal(value)))
    await ams.sql("SELECT pg_reload_conf()")

    async def told() -> bool:
        # A new hand: one that has looked does so again in 30 s only.
        again = PostgresServer(ams.config)
        seen = await again.observe(ams.view())
        await again.close()
        return set(seen.stray_settings) == {f"{name} = {value}" for name, value in wrong.items()}

    await eventually("all four are told", told)
    await ams.stop()
    assert (await ams.start(Role.PRIMARY)).stray_settings == ()


async def test_timeouts_of_a_user_do_not_end_our_connections(machine: Machine) -> None:
    ams = await machine.primary()
    names = ["statement_timeout", "idle_session_timeout", "lock_timeout"]
    if ams.config.pg_major >= 17:
        names.append("transaction_timeout")
    for name in names:
        await ams.sql(sql.SQL("ALTER ROLE postgres SET {} = '300ms'").format(sql.Identifier(name)))
    query: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
    async with connections.local(ams.config) as opened:
        rows = await connections.fetch(opened, query, (names,), within_s=2)
    assert dict(rows) == dict.fromkeys(names, "0")


async def test_a_directory_that_others_can_enter_is_not_started(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.stop()
    ams.config.data_dir.chmod(0o755)
    with pytest.raises(DataModes) as caught:
        await ams.server.configure(Role.PRIMARY, following=None, admit=True)
    assert caught.value.code == "FM204"


# ------------------------------------------------------------------------- looks at a sick one


async def test_a_stopped_postmaster_does_not_hold_up_a_look(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.observe()
    os.kill(ams.pid, signal.SIGSTOP)
    try:
        # The kept connection goes on; a new one is not accepted by anybody.
        other = PostgresServer(ams.config)
        began_s = time.monotonic()
        seen = await other.observe(ams.view())
        assert time.monotonic() - began_s < LOOK_S
        assert seen.run is Run.STARTING, "this hand never had an answer"
        began_s = time.monotonic()
        await ams.observe()
        assert time.monotonic() - began_s < LOOK_S
        await other.close()
    finally:
        os.kill(ams.pid, signal.SIGCONT)
    await ams.until("it answers again", lambda seen: seen.run is Run.PRIMARY)


async def test_a_probe_finds_a_stopped_postmaster_and_leaves_nothing_behind(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    before = await ams.observe()
    await ams.server.probe()
    assert (await ams.observe()).position > before.position, "it has to reach the disk"
    os.kill(ams.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        with pytest.raises(ServerSilent):
            await ams.server.probe()
        assert time.monotonic() - began_s < PROBE_S + LOOK_S
        assert (await ams.observe()).run is Run.PRIMARY, "sessions that stand go on"
    finally:
        os.kill(ams.pid, signal.SIGCONT)
    await ams.server.probe()
    tables = "SELECT count(*)::int FROM pg_class WHERE relname LIKE '%flightmode%'"
    assert await ams.sql(tables) == [(0,)]


async def test_a_stopped_backend_does_not_hold_up_a_look(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.observe()
    backend = ams.backend("postgres postgres [local] idle")
    assert backend is not None
    os.kill(ams.pid, signal.SIGSTOP)
    backend.suspend()
    loop_said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: loop_said.append(told))
    try:
        for expected in (Run.SILENT, Run.SILENT):
            began_s = time.monotonic()
            seen = await ams.observe()
            assert seen.run is expected
            assert time.monotonic() - began_s < LOOK_S
    finally:
        backend.resume()
        os.kill(ams.pid, signal.SIGCONT)
    await ams.until("it answers again", lambda seen: seen.run is Run.PRIMARY)
    assert loop_said == [], "an abandoned query leaves nothing behind"


async def test_an_abandoned_query_ends_its_task(machine: Machine) -> None:
    ams = await machine.primary()
    before = asyncio.all_tasks()
    opened = await connections.open_local(ams.config)
    with pytest.raises(ServerSilent):
        await connections.fetch(opened, "SELECT pg_sleep(60)", within_s=0.05)

    async def as_before() -> bool:
        return asyncio.all_tasks() == before

    await eventually("no task is left", as_before)
    await opened.close()


async def test_a_killed_postmaster_is_dying_then_stopped(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.observe()
    os.kill(ams.pid, signal.SIGKILL)
    assert ams.process is not None
    ams.process.wait()
    assert (await ams.server.observe(FenceView(True, tree_empty=False))).run is Run.DYING
    await ams.gone()
    seen = await ams.observe()
    assert (seen.run, seen.data and seen.data.control_state) == (Run.STOPPED, "in production")


async def test_a_crash_of_a_backend_ends_the_server(machine: Machine) -> None:
    """After it the agent decides who goes on, and who waits outside (S8)."""
    ams = await machine.primary()
    await ams.sql("SELECT 1")
    writer = ams.backend("checkpointer")
    assert writer is not None
    writer.kill()
    await ams.gone()
    assert (await ams.observe()).run is Run.STOPPED


async def test_a_directory_that_is_none_is_told_as_stopped_without_data(machine: Machine) -> None:
    ams = machine.node("ams")
    ams.config.data_dir.mkdir(mode=0o700)
    (ams.config.data_dir / "something").write_text("else")
    seen = await ams.observe()
    assert (seen.run, seen.data) == (Run.STOPPED, None)


async def test_a_function_of_a_user_is_never_called_by_our_queries(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.sql(
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'"
    )
    await ams.sql("ALTER ROLE postgres SET search_path = public, pg_catalog")
    await ams.server.close()
    assert (await ams.observe()).run is Run.PRIMARY


async def test_a_reload_beside_the_setting_of_names_undoes_nothing(machine: Machine) -> None:
    """Both read flightmode.conf and write it anew; one is a job, the other is not."""
    ams = await machine.primary()
    for names in (("fra",), (), ("lhr",), (), ("fra", "lhr"), ()) * 3:
        reloads = (ams.server.apply_settings() for _ in range(4))
        await asyncio.gather(ams.server.set_sync_names(names), *reloads)
        assert (await ams.observe()).sync_names == names


MISSPELT = (("work_mems", "7MB"), ("work_mem", "9MB"))
UNREADABLE = (("work_mem", "9XB"),)


def with_parameters(node: Node, *more: tuple[str, str]) -> PostgresServer:
    """The hand of an agent that was started with these besides."""
    return PostgresServer(replace(node.config, parameters=(*node.config.parameters, *more)))


@pytest.mark.parametrize(("wrong", "word"), [(MISSPELT, "work_mems"), (UNREADABLE, "9XB")])
async def test_a_setting_that_postgres_does_not_take_is_told_and_keeps_nothing_else_from_it(
    machine: Machine, wrong: tuple[tuple[str, str], ...], word: str
) -> None:
    """With a name that it does not know it took up nothing more: no detach, no degrade."""
    ams = await machine.primary()
    (before,) = await ams.sql("SHOW work_mem")
    again = with_parameters(ams, *wrong)
    with pytest.raises(SettingsRefused, match=word):
        await again.apply_settings()
    (told,) = (await again.observe(ams.view())).refused_settings
    assert word in told
    assert await ams.sql("SHOW work_mem") == [before]
    await again.set_sync_names(("fra",))
    await again.set_sync_names(())
    await again.close()
    assert await ams.sql("SELECT name FROM pg_file_settings WHERE error IS NOT NULL") == []


async def test_an_agent_that_has_just_been_started_writes_none_that_was_not_judged(
    machine: Machine,
) -> None:
    """It may have to detach at once; what it was started with comes with a reload or a start."""
    ams = await machine.primary()
    again = with_parameters(ams, *MISSPELT)
    await again.set_sync_names(("fra",))
    await again.close()
    assert "work_mems" not in (ams.config.data_dir / settings.CONF).read_text()


async def test_settings_that_postgres_takes_are_in_force_after_a_reload(machine: Machine) -> None:
    ams = await machine.primary()
    again = with_parameters(
        ams, ("work_mem", "9MB"), ("some.name", "it's = \\ ours"), ("max_connections", "31")
    )
    await again.apply_settings()
    seen = await again.observe(ams.view())
    await again.close()
    assert (seen.refused_settings, seen.pending_restart) == ((), ("max_connections",))
    assert await ams.sql("SELECT current_setting('work_mem'), current_setting('some.name')") == [
        ("9MB", "it's = \\ ours")
    ]


async def test_a_setting_that_was_taken_out_and_waits_for_a_restart_is_no_error(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    await ams.stop()
    ams.server = with_parameters(ams, ("max_files_per_process", "1234"))
    await ams.start(Role.PRIMARY)
    again = with_parameters(ams)
    await again.apply_settings()
    seen = await again.observe(ams.view())
    await again.close()
    assert (seen.refused_settings, seen.pending_restart) == ((), ("max_files_per_process",))


async def test_a_server_starts_with_the_settings_of_before_rather_than_not_at_all(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    await ams.stop()
    ams.server = with_parameters(ams, *UNREADABLE)
    seen = await ams.start(Role.PRIMARY)
    assert seen.run is Run.PRIMARY
    assert "9XB" in "".join(seen.refused_settings)


async def test_a_first_start_says_which_setting_is_wrong(machine: Machine) -> None:
    ams = machine.node("ams", parameters=UNREADABLE)
    await machine.unpack(ams.config.data_dir)
    with pytest.raises(SettingsRefused, match="9XB"):
        await ams.server.configure(Role.PRIMARY, following=None, admit=True)
    assert list(ams.config.socket_dir.iterdir()) == [], "nothing is left of judging"


async def test_what_others_have_written_wrong_is_told_by_a_reload(machine: Machine) -> None:
    ams = await machine.primary()
    path = ams.config.data_dir / "postgresql.conf"
    path.write_text(f"shared_bufers = 1\n{path.read_text()}")
    with pytest.raises(SettingsRefused, match=r"shared_bufers.*postgresql\.conf, line 1"):
        await ams.server.apply_settings()
    path.write_text(path.read_text().partition("\n")[2])
    await ams.server.apply_settings()
    assert (await ams.observe()).refused_settings == ()
