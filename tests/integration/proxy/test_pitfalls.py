"""The field's mistakes by their numbers (docs/reference/proxy-pitfalls.md), at a real server."""

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import psycopg
import pytest
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import ROOT, Flightmode, Front

from tests.integration.proxy.frames import (
    FLUSH,
    SYNC,
    Wire,
    bind,
    client,
    describe,
    execute,
    extended,
    fields,
    frame,
    parse,
    query,
    startup,
    words,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (ROOT / "rust/proxy/Cargo.toml").exists(), reason="the data path is not built yet"
    ),
]


@dataclass
class Stage:
    """A server, and a proxy whose clients all share its one session there."""

    server: Server
    proxy: Flightmode

    @property
    def port(self) -> int:
        return self.proxy.port

    def running(self, sql: str) -> int:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'"
        return int(str(self.value(asked, sql)))

    def value(self, sql: str, *parameters: object) -> object:
        with self.server.connect() as connection:
            row = connection.execute(sql.encode(), parameters).fetchone()
        return row[0] if row else None


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with room("fm-pitfalls-") as base, ExitStack() as stack:
        server = Server(base, "ams", settings="wal_level = logical\n")
        stack.callback(server.kill)
        server.create()
        server.start()
        server.sql("CREATE ROLE limited", "CREATE TABLE t (n int)", "CREATE TABLE shape (n int)")
        front = Front(base, {"ams": server.port}, "ams", pool_size=1, secrets={"postgres": ""})
        proxy = Flightmode(front, times={"hold_for_s": 5, "query_wait_s": 5})
        stack.callback(proxy.stop)
        proxy.start()
        yield Stage(server, proxy)


def driver(stage: Stage, **options: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=HOST,
        port=stage.port,
        user="postgres",
        dbname="postgres",
        sslmode="disable",
        autocommit=True,
        **options,
    )


# ------------------------------------------------------------------ the session


def test_pitfall_01_a_client_hears_of_a_setting_that_its_new_server_reports(stage: Stage):
    with driver(stage) as first, driver(stage) as second:
        first.execute("SET DateStyle = 'German'")
        assert second.info.parameter_status("DateStyle") == "ISO, MDY"
        row = second.execute("SELECT '2026-01-02'::date::text").fetchone()
        assert row == ("2026-01-02",)
        assert first.execute("SELECT '2026-01-02'::date::text").fetchone() == ("02.01.2026",)
        assert first.info.parameter_status("DateStyle") == "German, DMY"


def test_pitfall_04_what_one_client_sets_never_reaches_the_next(stage: Stage):
    with driver(stage) as first, driver(stage) as second:
        first.execute("SET statement_timeout = '7s'")
        first.execute("SET ROLE limited")
        assert second.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert second.execute("SELECT current_user").fetchone() == ("postgres",)
        assert first.execute("SELECT current_user").fetchone() == ("limited",)


def test_pitfall_04_a_statement_never_runs_without_the_role_that_its_client_has_taken(
    stage: Stage,
):
    """The role is gone when it is to be taken again: what comes behind it must not run."""
    stage.server.sql("CREATE ROLE passing", "GRANT ALL ON t TO passing")
    with client(stage.port) as wire, driver(stage) as other:
        assert wire.ask(query("SET ROLE passing")) == ["SET", "I"]
        other.execute("SELECT 1")
        stage.server.sql("DROP OWNED BY passing", "DROP ROLE passing")
        wire.send(query("INSERT INTO t VALUES (404)"))
        told = [wire.next()]
        while told[-1][0] == "S":
            told.append(wire.next())
        assert fields(told[-1][1])["S"] == "FATAL"
        assert wire.is_closed()
    assert stage.value("SELECT count(*) FROM t WHERE n = 404") == 0


def test_pitfall_05_a_transaction_that_the_server_gave_up_leaves_the_connection(stage: Stage):
    with driver(stage, options="-c idle_in_transaction_session_timeout=200") as connection:
        connection.execute("BEGIN")
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert pid is not None
        eventually(
            "the server has ended it",
            lambda: stage.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", *pid) == 0,
        )
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute("SELECT 1")
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_pitfall_07_who_listens_hears_and_nobody_else_does(stage: Stage):
    """All of them share one server, and the first has it no longer than for its LISTEN."""
    with client(stage.port) as wire, client(stage.port) as other:
        assert wire.ask(query("LISTEN news")) == ["LISTEN", "I"]
        assert other.ask(query("SELECT 1")) == ["T", "1", "SELECT 1", "I"]
        stage.server.sql("NOTIFY news, 'told'")
        tag, body = wire.next()
        assert (tag, body[4:]) == ("A", b"news\0told\0")
        other.send(query("SELECT 2"))
        assert "A" not in [tag for tag, _ in other.until_ready()]
        assert wire.ask(query("UNLISTEN news")) == ["UNLISTEN", "I"]
        stage.server.sql("NOTIFY news, 'leaked'")
        wire.send(query("SELECT 3"))
        assert "A" not in [tag for tag, _ in wire.until_ready()]


def test_pitfall_08_each_client_keeps_its_own_name(stage: Stage):
    with (
        driver(stage, application_name="one") as one,
        driver(stage, application_name="two") as two,
    ):
        for _ in range(2):
            assert one.execute("SHOW application_name").fetchone() == ("one",)
            assert two.execute("SHOW application_name").fetchone() == ("two",)


# ------------------------------------------------------------------ prepared statements


def test_pitfall_09_nobody_binds_what_another_client_has_prepared(stage: Stage):
    with client(stage.port) as one, client(stage.port) as two:
        secret = parse("SELECT 'secret'", "mine") + bind("mine") + execute() + SYNC
        assert "secret" in one.ask(secret)
        for guess in (
            "mine",
            *(f"fm_{number:x}_{round:x}" for number in range(9) for round in range(4)),
        ):
            assert two.ask(bind(guess), execute(), SYNC) == ["26000", "I"], guess


def test_pitfall_10_a_statement_that_could_no_longer_be_parsed_can_be_deallocated(stage: Stage):
    stage.server.sql("CREATE TABLE brief (n int)")
    with client(stage.port) as one, client(stage.port) as two:
        assert one.ask(parse("SELECT n FROM brief", "s"), SYNC) == ["1", "I"]
        assert two.ask(query("DEALLOCATE ALL")) == ["DEALLOCATE ALL", "I"]
        stage.server.sql("DROP TABLE brief")
        assert one.ask(query("DEALLOCATE s")) == ["DEALLOCATE", "I"]
        assert one.ask(bind("s"), SYNC) == ["26000", "I"]


def test_pitfall_12_a_plan_that_has_gone_stale_is_parsed_anew(stage: Stage):
    with client(stage.port) as wire:
        portal = frame(b"D", b"P\0")
        use = bind("s") + portal + execute() + SYNC
        stage.server.sql("INSERT INTO shape VALUES (1)")
        assert wire.ask(parse("SELECT * FROM shape", "s"), SYNC) == ["1", "I"]
        assert wire.ask(use) == ["2", "T", "1", "SELECT 1", "I"]
        stage.server.sql("ALTER TABLE shape ADD COLUMN m int DEFAULT 2")
        assert wire.ask(use) == ["2", "T", "1,2", "SELECT 1", "I"]
        assert wire.ask(query("BEGIN")) == ["BEGIN", "T"]
        assert wire.ask(use) == ["2", "T", "1,2", "SELECT 1", "T"]
        stage.server.sql("SET lock_timeout = '5s'")
        assert wire.ask(query("ALTER TABLE shape ADD COLUMN o int DEFAULT 3")) == [
            "ALTER TABLE",
            "T",
        ]
        assert wire.ask(use) == ["0A000", "E"], "a transaction is never sent once more"
        assert wire.ask(query("ROLLBACK")) == ["ROLLBACK", "I"]
        assert wire.ask(use) == ["2", "T", "1,2", "SELECT 1", "I"]


def test_pitfall_12_who_goes_by_an_old_description_hears_that_it_is_old(stage: Stage):
    with client(stage.port) as wire:
        stage.server.sql("CREATE TABLE reshaped (n int)", "INSERT INTO reshaped VALUES (1)")
        assert wire.ask(parse("SELECT * FROM reshaped", "s"), SYNC) == ["1", "I"]
        blind = bind("s") + execute() + SYNC
        assert wire.ask(blind) == ["2", "1", "SELECT 1", "I"]
        stage.server.sql("ALTER TABLE reshaped ALTER n TYPE text")
        assert wire.ask(blind) == ["0A000", "I"], "it would take a text for a number"
        again = parse("SELECT * FROM reshaped", "t") + bind("t") + execute() + SYNC
        assert wire.ask(again) == ["1", "2", "1", "SELECT 1", "I"]


def test_pitfall_14_the_unnamed_statement_is_the_clients_own(stage: Stage):
    with client(stage.port) as one:
        assert one.ask(parse("SELECT 'one'"), SYNC) == ["1", "I"]
        with client(stage.port) as two:
            assert two.ask(describe(), SYNC) == ["26000", "I"], "it has prepared nothing"
            assert two.ask(bind(), execute(), SYNC) == ["26000", "I"]
        with client(stage.port) as two:
            assert two.ask(extended("SELECT 'two'")) == ["1", "2", "two", "SELECT 1", "I"]
        assert one.ask(bind(), execute(), SYNC) == ["2", "one", "SELECT 1", "I"]


def test_pitfall_15_a_flush_is_answered_at_once_and_keeps_the_server(stage: Stage):
    with client(stage.port) as wire:
        wire.send(parse("SELECT 1"), FLUSH)
        assert wire.next() == ("1", b"")
        wire.send(bind(), execute(), FLUSH)
        assert [wire.next()[0] for _ in range(3)] == ["2", "D", "C"]
        assert wire.ask(SYNC) == ["I"]


def test_pitfall_16_a_pipeline_with_an_error_in_the_middle_comes_out_even(stage: Stage):
    with client(stage.port) as wire:
        wire.send(extended("SELECT 1"), extended("SELECT 1/0"), extended("SELECT 3"))
        rounds = [wire.ask() for _ in range(3)]
        assert rounds[0] == ["1", "2", "1", "SELECT 1", "I"]
        assert rounds[1][-2:] == ["22012", "I"]
        assert rounds[2] == ["1", "2", "3", "SELECT 1", "I"]


def test_pitfall_17_a_close_that_an_error_has_dropped_leaves_its_name(stage: Stage):
    closes = frame(b"C", b"Ss\0")
    with client(stage.port) as wire:
        assert wire.ask(parse("SELECT 'kept'", "s"), SYNC) == ["1", "I"]
        use = bind("s") + execute() + SYNC
        for wrong in (parse("selct"), parse("SELECT 1/0") + bind() + execute()):
            assert wire.ask(wrong, closes, SYNC)[-1] == "I"
            assert wire.ask(use) == ["2", "kept", "SELECT 1", "I"]
            assert wire.ask(parse("SELECT 2", "s"), SYNC) == ["42P05", "I"], "it is taken"
        replaced = closes + parse("SELECT 'other'", "s")
        assert wire.ask(replaced, use) == ["3", "1", "2", "other", "SELECT 1", "I"]
        assert wire.ask(closes, bind("s"), SYNC) == ["3", "26000", "I"]
        assert wire.ask(use) == ["26000", "I"], "that Close came before the error"


def test_pitfall_17_every_close_has_its_turn(stage: Stage):
    """Of a portal and of the unnamed statement at the server, of a named one here."""
    portal, unnamed, named = (frame(b"C", body) for body in (b"P\0", b"S\0", b"Ss\0"))
    with client(stage.port) as wire:
        group = parse("SELECT 'mine'", "s") + bind("s") + portal + unnamed
        assert wire.ask(group, named, SYNC) == ["1", "2", "3", "3", "3", "I"]
        assert wire.ask(bind("s"), SYNC) == ["26000", "I"]
        assert wire.ask(group, parse("selct"), named, SYNC) == ["1", "2", "3", "3", "42601", "I"]
        assert wire.ask(bind("s"), execute(), SYNC) == ["2", "mine", "SELECT 1", "I"]


def test_pitfall_18_a_portal_that_is_suspended_goes_on_at_its_server(stage: Stage):
    with client(stage.port) as wire:
        wire.ask(query("BEGIN"))
        first = parse("SELECT generate_series(1, 3)") + bind() + execute(2) + FLUSH
        wire.send(first)
        assert [wire.next()[0] for _ in range(5)] == ["1", "2", "D", "D", "s"]
        assert wire.ask(execute(2), SYNC) == ["3", "SELECT 1", "T"]
        wire.ask(query("ROLLBACK"))


def test_pitfall_21_a_begin_is_never_put_off(stage: Stage):
    with driver(stage) as connection:
        connection.execute("BEGIN")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        assert stage.value(waiting) == 1
        connection.execute("ROLLBACK")


# ------------------------------------------------------------------ cancel and start-up


def test_pitfall_23_a_cancel_that_comes_late_strikes_nobody(stage: Stage):
    with driver(stage) as first, driver(stage) as second:
        first.execute("SELECT 1")
        first.cancel()
        assert second.execute("SELECT count(*) FROM generate_series(1, 300000)").fetchone()


@contextmanager
def another(stage: Stage, files: int = 0, **changed: object) -> Iterator[Stage]:
    """The same server behind a proxy of its own; `files`: as many descriptors as it may have."""
    with room("fm-pitfall-") as base, ExitStack() as undo:
        front = Front(base, {"ams": stage.server.port}, "ams", secrets={"postgres": ""})
        proxy = Flightmode(front, **changed)
        if files:
            scarce = base / "scarce"
            scarce.write_text(f'#!/bin/sh\nulimit -n {files}\nexec {proxy.program} "$@"\n')
            scarce.chmod(0o755)
            proxy.program = scarce
        undo.callback(proxy.stop)
        proxy.start()
        yield Stage(stage.server, proxy)


def test_pitfall_25_a_cancel_finds_its_client_at_whichever_shard_it_is(stage: Stage):
    with another(stage, shards=3) as made:
        for _ in range(6):
            with driver(made) as connection:
                asking = threading.Thread(target=_is_cancelled, args=(connection,))
                asking.start()
                eventually("it runs", lambda: made.running("SELECT pg_sleep(30)") == 1)
                connection.cancel()
                asking.join(5)
                assert not asking.is_alive()


def _is_cancelled(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")


def test_pitfall_28_29_30_what_comes_before_the_login_is_answered_in_turn(stage: Stage):
    with socket.create_connection((HOST, stage.port), timeout=10) as connection:
        wire = Wire(connection)
        wire.send(struct.pack("!II", 8, 80877104))
        assert connection.recv(1) == b"N"
        wire.send(struct.pack("!II", 8, 80877103))
        assert connection.recv(1) == b"N"
        grease = startup(**{"_pq_.test_protocol_negotiation": ""})
        wire.send(grease[:4] + struct.pack("!I", 0x0003270F) + grease[8:])
        told = wire.until_ready()
        assert [tag for tag, _ in told].count("v") == 1
        assert wire.ask(query("SELECT 1")) == ["T", "1", "SELECT 1", "I"]


def test_pitfall_35_start_up_options_are_settings(stage: Stage):
    with client(stage.port, options=r"-c search_path=a,b -c app.x=1+1\ 2") as wire:
        assert wire.ask(query("SHOW search_path"))[1] == "a,b"
        assert wire.ask(query("SHOW app.x"))[1] == "1+1 2"


# ------------------------------------------------------------------ flow


def test_pitfall_41_what_a_lost_client_ran_is_stopped(stage: Stage):
    with client(stage.port) as wire:
        abandoned = "SELECT pg_sleep(60) AS abandoned"
        wire.send(query(abandoned))
        eventually("it runs", lambda: stage.running(abandoned) == 1)
    eventually("it is stopped", lambda: stage.running(abandoned) == 0, 5)
    with driver(stage) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_pitfall_04_a_server_that_never_takes_the_settings_holds_nobody_for_ever(stage: Stage):
    with client(stage.port) as wire:
        pid = int(wire.ask(query("SELECT pg_backend_pid()"))[1])
    os.kill(pid, signal.SIGSTOP)
    try:
        with client(stage.port, timezone="Asia/Tokyo") as wire:
            began_s = time.monotonic()
            told = wire.ask(query("SHOW timezone"))
            assert told[0][:2] in ("57", "08")
            assert told[1] == "I"
            assert time.monotonic() - began_s < 10
            os.kill(pid, signal.SIGCONT)
            assert wire.ask(query("SHOW timezone"))[1] == "Asia/Tokyo", "by another server"
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_pitfall_11_a_statement_means_what_its_own_clients_settings_make_of_it(stage: Stage):
    instant = "SELECT extract(epoch from '2024-01-01 00:00'::timestamptz)::int"
    day = "SELECT extract(month from '01/02/2024'::date)::int"
    zones = {"UTC": 1704067200, "Asia/Tokyo": 1704067200 - 9 * 3600}

    def run(wire: Wire, sql: str, name: str = "s") -> str:
        return wire.ask(parse(sql, name), bind(name), execute(), SYNC)[2]

    for zone, expected in zones.items():
        with client(stage.port, timezone=zone) as wire:
            assert run(wire, instant) == str(expected), zone
    for style, month in {"ISO, MDY": "1", "ISO, DMY": "2"}.items():
        with client(stage.port, datestyle=style) as wire:
            assert run(wire, day) == month, style
    with client(stage.port, timezone="UTC") as wire:
        wire.ask(query("BEGIN"))
        wire.ask(query("SET LOCAL timezone TO 'Asia/Tokyo'"))
        assert run(wire, instant) == str(zones["Asia/Tokyo"])
        wire.ask(query("COMMIT"))
        assert run(wire, instant, "t") == str(zones["UTC"])
        # Its own statement is what it was when it was parsed, as it is without a proxy.
        wire.ask(query("SET timezone TO 'Asia/Tokyo'"))
        assert wire.ask(bind("t"), execute(), SYNC)[1] == str(zones["UTC"])
        # At another server it has to be parsed anew, and means what its client's settings say.
        pid = wire.ask(query("SELECT pg_backend_pid()"))[1]
        stage.value("SELECT pg_terminate_backend(%s::int)", pid)
        assert wire.ask(bind("t"), execute(), SYNC)[1] == str(zones["Asia/Tokyo"])
    with client(stage.port, timezone="UTC") as wire:
        assert run(wire, instant) == str(zones["UTC"]), "and nobody else takes it for theirs"
    for encoding, length in {"LATIN1": "2", "UTF8": "1"}.items():
        with client(stage.port, client_encoding=encoding) as wire:
            assert run(wire, "SELECT length('é')") == length, encoding


def test_pitfall_43_a_copy_that_fails_is_answered_as_by_postgres(stage: Stage):
    def told(port: int, table: str) -> list[list[str]]:
        with client(port) as wire:
            wire.send(parse(f"COPY {table} FROM STDIN"), bind(), execute(), SYNC)
            assert [wire.next()[0] for _ in range(3)] == ["1", "2", "G"]
            wire.send(frame(b"d", b"bad\n"))
            assert wire.next()[0] == "E"
            # What a driver sends that has not looked yet: the rows' end, and what ends its group.
            wire.send(frame(b"c"), SYNC)
            answered = words(wire.until_ready())
            return [answered, wire.ask(query("SELECT 42"))]

    assert told(stage.port, "t") == told(stage.server.port, "t")
    assert told(stage.port, "t")[1][1] == "42"


def test_pitfall_43_a_copy_that_is_left_in_the_middle_leaves_nothing(stage: Stage):
    with client(stage.port) as wire:
        wire.send(query("COPY t FROM STDIN"))
        assert wire.next()[0] == "G"
        wire.send(frame(b"d", b"77\n"), FLUSH, SYNC, frame(b"d", b"78\n")[:6])
    with client(stage.port) as wire:
        assert wire.ask(query("SELECT count(*) FROM t WHERE n > 70 AND n < 80"))[1] == "0"
        wire.send(query("COPY t FROM STDIN"), frame(b"d", b"71\n"), SYNC, frame(b"c"))
        assert [tag for tag, _ in wire.until_ready()] == ["G", "C", "Z"]


def test_pitfall_44_who_replicates_has_a_server_of_its_own(stage: Stage):
    with client(stage.port, replication="database") as wire:
        told = wire.ask(query("IDENTIFY_SYSTEM"))
        assert told[-2:] == ["IDENTIFY_SYSTEM", "I"]
        with driver(stage) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,), "it takes none of the pool"


def test_pitfall_46_a_notice_comes_through_and_is_no_answer(stage: Stage):
    with client(stage.port) as wire:
        wire.send(query("DO $$ BEGIN RAISE NOTICE 'hear'; END $$"))
        assert [tag for tag, _ in wire.until_ready()] == ["N", "C", "Z"]


def test_pitfall_46_who_wants_no_warnings_hears_none_and_is_told_of_an_unconfirmed_commit(
    stage: Stage,
):
    warns = "DO $$ BEGIN RAISE WARNING 'hear'; END $$"
    with client(stage.port) as wire:
        wire.ask(query("SET client_min_messages = error"))
        wire.ask(query("SET synchronous_commit = on"))
        wire.send(query(warns))
        assert [tag for tag, _ in wire.until_ready()] == ["C", "Z"]
        stage.server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        stage.server.sql("SELECT pg_reload_conf()")
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        try:
            asked = "SHOW synchronous_standby_names"
            eventually("it is reloaded", lambda: stage.value(asked) == "nobody")
            wire.send(query("CREATE TABLE unconfirmed ()"))
            eventually("the commit waits", lambda: stage.value(waits) == 1)
            stage.value(waits.replace("count(*)", "pg_cancel_backend(pid)"))
            assert words(wire.until_ready()) == ["08007", "I"]
        finally:
            stage.server.sql("ALTER SYSTEM RESET synchronous_standby_names")
            stage.server.sql("SELECT pg_reload_conf()")
        wire.ask(query("SET client_min_messages = warning"))
        wire.send(query(warns))
        assert [tag for tag, _ in wire.until_ready()] == ["N", "C", "Z"]


def test_pitfall_47_a_long_row_goes_through_in_parts(stage: Stage):
    with driver(stage) as connection:
        long = "x" * 5_000_000
        row = connection.execute("SELECT %s || 'é', 7", (long,)).fetchone()
        assert row == (long + "é", 7)


def test_pitfall_49_without_descriptors_those_who_are_in_go_on(stage: Stage):
    with another(stage, files=48) as made, driver(made) as connection:
        connection.execute("SELECT 1")
        crowd = [socket.create_connection((HOST, made.port)) for _ in range(100)]
        for _ in range(20):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        for one in crowd:
            one.close()
        eventually("others come in again", lambda: _comes_in(made))


def _comes_in(stage: Stage) -> bool:
    try:
        with driver(stage, connect_timeout="2") as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_pitfall_55_who_waits_is_served_in_turn(stage: Stage):
    """One server, eight clients that always want it: nobody gets much more than another."""
    counts = [0] * 8
    until_s = time.monotonic() + 1.5

    def work(number: int) -> None:
        with driver(stage) as connection:
            while time.monotonic() < until_s:
                connection.execute("SELECT pg_sleep(0.001)")
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(counts) <= 2 * min(counts) + 5, counts


def test_pitfall_56_who_waits_and_gets_nothing_hears_why_and_stays(stage: Stage):
    with driver(stage) as holder, client(stage.port) as wire:
        holder.execute("BEGIN")
        wire.send(query("SELECT 1"))
        told = wire.until_ready()
        assert [tag for tag, _ in told][-2:] == ["E", "Z"]
        holder.execute("ROLLBACK")
        assert wire.ask(query("SELECT 1")) == ["T", "1", "SELECT 1", "I"]


@pytest.mark.parametrize("name", ["", "s"], ids=["unnamed", "named"])
def test_a_statement_prepared_by_a_flush_is_run_by_another_server_when_its_own_dies(
    stage: Stage, name: str
) -> None:
    """As asyncpg does with each new statement; an error unasked would end its connection."""
    ours = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with client(stage.port) as wire:
        wire.send(parse("SELECT 7 AS n", name), describe(name), FLUSH)
        assert [wire.next()[0] for _ in range(3)] == ["1", "t", "T"]
        killed = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {ours}"
        assert stage.value(killed) == 1
        assert wire.ask(bind(name), execute(), SYNC) == ["2", "7", "SELECT 1", "I"]
        assert wire.ask(query("SELECT 8")) == ["T", "8", "SELECT 1", "I"]
