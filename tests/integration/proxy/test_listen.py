"""LISTEN in transaction pooling: one connection listens for all clients of a pool."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import asyncpg
import pytest
from proxy_bed import HOST, eventually

from tests.integration.live_cluster import needs_servers
from tests.integration.proxy.frames import (
    SYNC,
    Wire,
    bind,
    client,
    execute,
    extended,
    fields,
    parse,
    query,
    words,
)
from tests.integration.proxy.stage import Stage, staged
from tests.integration.proxy.test_hold import Stage as Failover
from tests.integration.proxy.test_hold import stage as failover
from tests.integration.proxy.test_takeover import hall, hand_over

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    needs_servers,
]

POOL = 2
WARNS = {"options": "-c flightmode.listen_gap=warn"}
LISTENER = "SELECT pid FROM pg_stat_activity WHERE application_name = 'flightmode listener'"
LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flightmode listener'"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(databases={"*": {"pool_mode": "transaction", "pool_size": POOL}}) as made:
        yield made


@contextmanager
def listening(stage: Stage | Failover, *channels: str, **options: str) -> Iterator[Wire]:
    with client(stage.proxy.port, **options) as wire:
        for channel in channels:
            assert says(wire, f"LISTEN {channel}") == ["LISTEN", "I"]
        yield wire


def says(wire: Wire, sql: str) -> list[str]:
    """What a query is answered by; an `A` at the end for each notification that comes with it."""
    wire.send(query(sql))
    told = wire.until_ready()
    return words(told) + [tag for tag, _ in told if tag == "A"]


def notify(stage: Stage | Failover, channel: str, *payloads: object, node: str = "ams") -> None:
    """By a server's own connection, each in a transaction of its own."""
    server = stage.server if isinstance(stage, Stage) else stage.servers[node]
    with server.connect() as connection:
        for payload in payloads:
            connection.execute("SELECT pg_notify(%s, %s)", (channel, str(payload)))


def heard(wire: Wire) -> tuple[str, str]:
    """The next message, which is a notification: channel and payload."""
    tag, body = wire.next()
    assert tag == "A", (tag, body)
    channel, payload = (
        body[4:].rstrip(b"\0").split(b"\0")
        if body[-2:] != b"\0\0"
        else (
            body[4:-2],
            b"",
        )
    )
    return channel.decode(), payload.decode()


def hears_nothing(stage: Stage, wire: Wire, channel: str = "fence") -> bool:
    """Of what was notified of so far; asked by a notification that it does hear."""
    assert says(wire, f"LISTEN {channel}") == ["LISTEN", "I"]
    notify(stage, channel, "now")
    is_so = heard(wire) == (channel, "now")
    assert says(wire, f"UNLISTEN {channel}") == ["UNLISTEN", "I"]
    return is_so


# ------------------------------------------------------------------ who hears what


def test_two_hundred_clients_of_two_servers_hear_everything_once_and_in_order(stage: Stage):
    payloads = [str(number) for number in range(50)]
    with ExitStack() as stack:
        wires = [stack.enter_context(listening(stage, "everyone")) for _ in range(200)]
        notify(stage, "everyone", *payloads)
        for wire in wires:
            assert [heard(wire)[1] for _ in payloads] == payloads
            assert says(wire, "SELECT 1")[1:] == ["1", "SELECT 1", "I"]
        assert stage.sql(LISTENERS) == 1
        assert stage.sql("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL") <= 5
    eventually("nobody listens any more", lambda: stage.sql(LISTENERS) == 0)


def test_a_client_hears_its_own_channels_and_no_others(stage: Stage):
    with listening(stage, "one") as one, listening(stage, "two") as two:
        notify(stage, "one", "a")
        notify(stage, "two", "b")
        assert heard(one) == ("one", "a")
        assert heard(two) == ("two", "b")
        with client(stage.proxy.port) as deaf:
            notify(stage, "one", "c")
            assert heard(one) == ("one", "c")
            deaf.send(query("SELECT 1"))
            assert "A" not in [tag for tag, _ in deaf.until_ready()]
        assert hears_nothing(stage, two)


def test_no_notification_is_missed_in_the_instant_after_a_listen(stage: Stage):
    """What LISTEN promises: what is committed after it has returned is heard."""
    with stage.connect() as other, client(stage.proxy.port) as wire:
        for number in range(300):
            channel = f"instant_{number}"
            assert says(wire, f"LISTEN {channel}") == ["LISTEN", "I"]
            other.execute(f"NOTIFY {channel}, 'at once'".encode())
            assert heard(wire) == (channel, "at once")
            if number % 2:
                assert says(wire, "UNLISTEN *") == ["UNLISTEN", "I"]


def test_what_is_sent_behind_a_listen_sees_nothing_that_was_notified_of_before_it(stage: Stage):
    """In one pipeline: either the read sees what was written, or its notification comes."""
    stage.server.sql("CREATE TABLE seen (n int)")
    stop = threading.Event()
    last = [0]

    def write() -> None:
        with stage.server.connect() as connection:
            while not stop.is_set():
                last[0] += 1
                connection.execute("BEGIN")
                connection.execute("INSERT INTO seen VALUES (%s)", (last[0],))
                connection.execute("SELECT pg_notify('written', %s)", (str(last[0]),))
                connection.execute("COMMIT")

    def number_of(body: bytes) -> int:
        return int(body[4:].split(b"\0")[1])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually("it writes", lambda: last[0] > 3)
        for _ in range(50):
            with client(stage.proxy.port) as wire:
                wire.send(extended("LISTEN written"), extended("SELECT 'n' || max(n) FROM seen"))
                told = wire.until_ready() + wire.until_ready()
                (row,) = [int(word[1:]) for word in words(told) if word.startswith("n")]
                numbers = [number_of(body) for tag, body in told if tag == "A"]
                while not numbers or numbers[-1] <= row:
                    numbers.append(number_of(wire.next()[1]))
                assert numbers[0] <= row + 1, (row, numbers)
                assert numbers == list(range(numbers[0], numbers[-1] + 1))
    finally:
        stop.set()
        writer.join()


# ------------------------------------------------------------------ transactions


def test_a_listen_counts_when_its_transaction_is_committed(stage: Stage):
    with client(stage.proxy.port) as wire:
        assert says(wire, "BEGIN") == ["BEGIN", "T"]
        assert says(wire, "LISTEN later") == ["LISTEN", "T"]
        notify(stage, "later", "early")
        assert says(wire, "COMMIT") == ["COMMIT", "I"]
        notify(stage, "later", "in time")
        assert heard(wire) == ("later", "in time")


@pytest.mark.parametrize(
    "texts",
    [
        ["BEGIN", "LISTEN gone", "ROLLBACK"],
        ["BEGIN", "SAVEPOINT s", "LISTEN gone", "ROLLBACK TO s", "COMMIT"],
        ["BEGIN", "LISTEN gone", "SELECT 1/0", "COMMIT"],
        ["LISTEN gone; SELECT 1/0"],
        ["LISTEN gone", "UNLISTEN gone"],
        ["LISTEN gone", "UNLISTEN *"],
        ["LISTEN gone; LISTEN other; UNLISTEN gone"],
        ["LISTEN gone", "DISCARD ALL"],
        ["LISTEN gone, other"],
    ],
)
def test_what_is_taken_back_is_not_heard(stage: Stage, texts: list[str]):
    with client(stage.proxy.port) as wire:
        for text in texts:
            says(wire, text)
        notify(stage, "gone", "leaked")
        assert hears_nothing(stage, wire)


def test_a_rollback_brings_an_unlisten_back(stage: Stage):
    with listening(stage, "kept") as wire:
        for texts in (
            ["BEGIN", "UNLISTEN *", "ROLLBACK"],
            ["BEGIN", "SAVEPOINT s", "UNLISTEN kept", "ROLLBACK TO s", "COMMIT"],
            ["BEGIN", "UNLISTEN kept", "LISTEN kept", "COMMIT"],
            ["LISTEN kept"],
        ):
            for text in texts:
                says(wire, text)
            notify(stage, "kept", texts[0])
            assert heard(wire) == ("kept", texts[0]), texts
        assert hears_nothing(stage, wire)


def test_who_is_in_a_transaction_hears_at_its_end_and_before_it_is_ready(stage: Stage):
    with listening(stage, "news") as wire, listening(stage, "news") as other:
        assert wire.ask(query("BEGIN"), query("SELECT 1"))[:2] == ["BEGIN", "T"]
        assert wire.until_ready()[-1] == ("Z", b"T")
        notify(stage, "news", "a", "b")
        assert [heard(other)[1], heard(other)[1]] == ["a", "b"]
        wire.send(query("SELECT 2"))
        assert "A" not in [tag for tag, _ in wire.until_ready()]
        wire.send(query("COMMIT"))
        told = wire.until_ready()
        assert [tag for tag, _ in told] == ["C", "A", "A", "Z"]
        assert [body[4:] for tag, body in told if tag == "A"] == [b"news\0a\0", b"news\0b\0"]


# ------------------------------------------------------------------ protocols and names


def test_a_listen_by_the_extended_protocol_prepared_and_in_a_pipeline(stage: Stage):
    with client(stage.proxy.port) as wire:
        assert wire.ask(extended("LISTEN by_parse")) == ["1", "2", "LISTEN", "I"]
        assert wire.ask(parse("LISTEN by_name", "l"), SYNC) == ["1", "I"]
        notify(stage, "by_name", "early")
        assert wire.ask(bind("l"), execute(), SYNC) == ["2", "LISTEN", "I"]
        wire.send(
            extended("SELECT 1/0"),
            extended("LISTEN piped"),
            parse("LISTEN dropped") + bind() + execute() + parse("SELECT 1/0"),
            bind() + execute() + SYNC,
            extended("SELECT 7"),
        )
        assert [words(wire.until_ready())[-1] for _ in range(4)] == ["I"] * 4
        for channel in ("by_parse", "dropped", "by_name", "piped"):
            notify(stage, channel, "x")
        told = [heard(wire)[0] for _ in range(3)]
        assert told == ["by_parse", "by_name", "piped"]
        assert hears_nothing(stage, wire)


def test_a_channel_has_the_name_that_postgres_makes_of_it(stage: Stage):
    long = "c" * 70
    with listening(stage, "MiXed", '"QuoTed"', '"a""b"', long, '"ü"', '"semi;colon"') as wire:
        for name in ("mixed", "QuoTed", 'a"b', long[:63], "ü", "semi;colon"):
            notify(stage, name, "x")
            assert heard(wire) == (name, "x")
        notify(stage, "quoted", "x")
        notify(stage, "MiXed", "x")
        assert hears_nothing(stage, wire)
        assert says(wire, 'UNLISTEN mixed; UNLISTEN "QuoTed"') == ["UNLISTEN"] * 2 + ["I"]
        notify(stage, "mixed", "x")
        notify(stage, "QuoTed", "x")
        assert hears_nothing(stage, wire)


def test_the_servers_of_clients_do_not_go_on_listening(stage: Stage):
    with ExitStack() as stack:
        others = [stack.enter_context(client(stage.proxy.port)) for _ in range(POOL)]
        for number in range(10):
            wire = stack.enter_context(listening(stage, f"here_{number}"))
            # Each has another of the servers.
            for other in others:
                assert says(other, "BEGIN") == ["BEGIN", "T"]
                sql = "SELECT count(*) FROM pg_listening_channels()"
                assert says(other, sql)[1] == "0"
            for other in others:
                assert says(other, "COMMIT") == ["COMMIT", "I"]
            notify(stage, f"here_{number}", "x")
            assert heard(wire) == (f"here_{number}", "x")


def test_a_client_knows_its_own_notifications_by_the_number_that_it_was_given(stage: Stage):
    with stage.connect() as own, stage.connect() as other:
        own.execute("LISTEN mine")
        other.execute("LISTEN mine")
        for connection in (own, other) * 20:
            connection.execute("NOTIFY mine, 'hello'")
            for each in (own, other):
                (note,) = each.notifies(timeout=10, stop_after=1)
                is_own = note.pid == each.info.backend_pid
                assert is_own == (each is connection)


def test_what_a_client_notifies_itself_of_comes_before_its_commit_is_told(stage: Stage):
    with listening(stage, "mine") as wire:
        for texts in (
            ["NOTIFY mine, 'x'"],
            ["SELECT pg_notify('mine', 'x')"],
            ["BEGIN", "NOTIFY mine, 'x'", "COMMIT"],
        ):
            for text in texts[:-1]:
                assert "A" not in says(wire, text)
            wire.send(query(texts[-1]))
            tags = [tag for tag, _ in wire.until_ready()]
            assert tags[-2:] == ["A", "Z"], texts
        wire.send(extended("NOTIFY mine, 'a'"), extended("NOTIFY mine, 'b'"), extended("SELECT 1"))
        told = [message for _ in range(3) for message in wire.until_ready()]
        tags = [tag for tag, _ in told if tag not in "12DC"]
        # What is sent ahead may have run by the time that the first is told.
        assert tags in (list("AZAZZ"), list("AAZZZ"))
        assert [body[4:] for tag, body in told if tag == "A"] == [b"mine\0a\0", b"mine\0b\0"]
        for text in ("BEGIN", "NOTIFY mine"):
            assert says(wire, text)[-1] == "T"
        assert says(wire, "ROLLBACK")[-1] == "I"
        assert hears_nothing(stage, wire)


@pytest.mark.parametrize("sql", ["DO 'BEGIN LISTEN hidden; END'", "LISTEN ü"])
def test_what_the_proxy_cannot_follow_keeps_its_server(stage: Stage, sql: str):
    with client(stage.proxy.port) as wire, stage.console() as console:
        says(wire, sql)
        notify(stage, "hidden" if "hidden" in sql else "ü", "x")
        assert heard(wire)[1] == "x"
        active = [row for row in console("SHOW SERVERS") if row["state"] == "active"]
        assert len(active) == 1
        assert says(wire, "UNLISTEN *") == ["UNLISTEN", "I"]
        active = [row for row in console("SHOW SERVERS") if row["state"] == "active"]
        assert not active


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside one who listens"])
def test_who_speaks_another_encoding_hears_in_its_own(stage: Stage, others: int):
    with ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(listening(stage, "other"))
        wire = stack.enter_context(listening(stage, '"e"', client_encoding="LATIN1"))
        notify(stage, "e", "ü")
        tag, body = wire.next()
        assert (tag, body[4:]) == ("A", b"e\0\xfc\0")


def test_who_asks_after_a_silence_is_answered_and_nobody_has_a_gap(stage: Stage):
    with listening(stage, "quiet") as stays:
        pid = stage.sql(LISTENER)
        # Longer than an answer may take.
        time.sleep(6)
        with listening(stage, "late") as comes:
            notify(stage, "late", "here")
            assert heard(comes) == ("late", "here")
        assert says(stays, "SELECT 1") == ["T", "1", "SELECT 1", "I"]
        notify(stage, "quiet", "still")
        assert heard(stays) == ("quiet", "still")
        assert stage.sql(LISTENER) == pid


# ------------------------------------------------------------------ drivers


def test_psycopg_hears(stage: Stage):
    with stage.connect() as connection:
        connection.execute("LISTEN drivers")
        for _ in range(3):
            notify(stage, "drivers", "a", "b")
            told = [note.payload for note in connection.notifies(timeout=10, stop_after=2)]
            assert told == ["a", "b"]
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_asyncpg_hears_and_gives_its_connection_back_clean(stage: Stage):
    async def run() -> None:
        address = {"host": HOST, "port": stage.proxy.port, "user": "postgres"}
        pool = await asyncpg.create_pool(**address, database="postgres", min_size=1, max_size=1)
        heard_of: asyncio.Queue[str] = asyncio.Queue()
        async with pool.acquire() as connection:
            await connection.add_listener(
                "drivers", lambda _c, _p, _ch, payload: heard_of.put_nowait(payload)
            )
            for payload in ("a", "b"):
                await connection.execute("SELECT pg_notify('drivers', $1)", payload)
                assert await asyncio.wait_for(heard_of.get(), 10) == payload
            await connection.reset()
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_notify('drivers', 'late')")
            await connection.fetchval("SELECT 1")
        assert heard_of.empty()
        await pool.close()

    asyncio.run(run())


# ------------------------------------------------------------------ bounds and operators


def test_a_client_that_does_not_read_is_ended_and_holds_up_nobody(stage: Stage):
    with listening(stage, "flood") as slow, listening(stage, "flood") as quick:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sender = threading.Thread(
            target=notify, args=(stage, "flood", *(f"{n} {'x' * 7000}" for n in range(1200)))
        )
        sender.start()
        for number in range(1200):
            assert heard(quick)[1].startswith(f"{number} ")
        sender.join()
        told = []
        with suppress(ConnectionResetError):
            while True:
                told.append(slow.next())
        # It is told why, unless it did not even read that.
        assert len(told) < 1200
        assert told[-1][0] == "A" or fields(told[-1][1])["C"] == "53200"
        with stage.console() as console:
            (row,) = [r for r in console("SHOW MEM") if r["name"] == "kept for clients"]
            assert row["memtotal"] < 1 << 20


def test_who_is_in_a_transaction_for_long_has_as_much_kept_and_then_is_ended(stage: Stage):
    with listening(stage, "flood") as wire:
        assert says(wire, "BEGIN") == ["BEGIN", "T"]
        notify(stage, "flood", *("x" * 7000 for _ in range(100)))
        wire.send(query("COMMIT"))
        told = wire.until_ready()
        # What has no room in its buffer comes behind.
        told += [wire.next() for _ in range(102 - len(told))]
        assert [tag for tag, _ in told if tag != "Z"] == ["C"] + ["A"] * 100
        assert says(wire, "BEGIN") == ["BEGIN", "T"]
        notify(stage, "flood", *("x" * 7000 for _ in range(200)))
        assert says(wire, "SELECT 1")[-1] == "T"
        wire.send(query("COMMIT"))
        assert wire.until_ready()[-1] == ("Z", b"I")
        assert fields(wire.next()[1])["C"] == "53200"


def test_the_console_lists_what_listens(stage: Stage):
    with listening(stage, "a", "b"), listening(stage, "b"), stage.console() as console:
        row = console.one("SHOW LISTENERS", database="postgres")
        assert (row["state"], row["channels"], row["clients"]) == ("listening", 2, 2)
        assert row["remote_pid"] == stage.sql(LISTENERS.replace("count(*)", "pid"))
        notify(stage, "b", "x")
        eventually(
            "both are told",
            lambda: (
                console("SHOW LISTENERS")[0]["notifications_sent"] == row["notifications_sent"] + 2
            ),
        )


def test_a_lost_listener_is_told_by_the_end_of_the_connection_or_by_a_warning(stage: Stage):
    with listening(stage, "gap") as ended, listening(stage, "gap", **WARNS) as told:
        pid = stage.sql(LISTENERS.replace("count(*)", "pid"))
        stage.sql(f"SELECT pg_terminate_backend({pid})")
        assert fields(ended.next()[1])["C"] == "57P01"
        assert ended.is_closed()
        tag, body = told.next()
        assert (tag, fields(body)["S"]) == ("N", "WARNING")
        notify(stage, "gap", "after")
        assert heard(told) == ("gap", "after")


def test_a_pause_ends_what_listens(stage: Stage):
    with listening(stage, "paused", **WARNS) as wire, stage.console() as console:
        console("PAUSE")
        assert stage.sql(LISTENERS) == 0
        console("RESUME")
        assert wire.next()[0] == "N"
        notify(stage, "paused", "after")
        assert heard(wire) == ("paused", "after")


def test_with_session_pooling_nothing_is_shared():
    with (
        staged(databases={"*": {"pool_mode": "session"}}) as stage,
        listening(stage, "alone") as wire,
    ):
        assert stage.sql(LISTENERS) == 0
        notify(stage, "alone", "x")
        assert heard(wire) == ("alone", "x")


@pytest.mark.parametrize("how", ["kill", "hand_over"])
def test_a_change_of_the_primary_is_told_and_no_later_notification_is_lost(how: str):
    with (
        failover() as two,
        listening(two, "news") as ended,
        listening(two, "news", **WARNS) as kept,
    ):
        notify(two, "news", "before")
        assert heard(ended) == heard(kept) == ("news", "before")
        getattr(two, how)()
        told = ended.next()
        assert fields(told[1])["C"] == "57P01"
        assert ended.is_closed()
        with client(two.proxy.port) as again:
            # It is held, as every client is.
            again.send(query("LISTEN news"))
            two.promote()
            assert words(again.until_ready()) == ["LISTEN", "I"]
            notify(two, "news", "after", node="fra")
            assert heard(again) == ("news", "after")
        tag, body = kept.next()
        assert (tag, fields(body)["S"]) == ("N", "WARNING")
        assert heard(kept) == ("news", "after")


def test_a_transaction_that_a_failover_ends_hears_of_the_gap_behind_it():
    with failover() as two, listening(two, "news") as wire:
        assert says(wire, "BEGIN")[-1] == "T"
        assert says(wire, "SELECT 1")[-1] == "T"
        two.kill()
        assert says(wire, "SELECT 1") == ["40001", "E"]
        assert says(wire, "ROLLBACK") == ["ROLLBACK", "I"]
        assert fields(wire.next()[1])["C"] == "57P01"


def test_who_waits_for_a_primary_goes_on_listening_when_there_is_one():
    with failover() as two, listening(two, "news", **WARNS) as wire:
        two.kill()
        wire.send(query("SELECT 1"))
        eventually("it waits", lambda: two.waiting() == 1)
        two.promote()
        told = wire.until_ready()
        assert words(told) == ["T", "1", "SELECT 1", "I"]
        if "N" not in [tag for tag, _ in told]:
            assert wire.next()[0] == "N"
        notify(two, "news", "after", node="fra")
        assert heard(wire) == ("news", "after")


def test_who_listens_stays_with_its_proxy_until_it_listens_no_more():
    with hall() as here:
        old = here.proxy()
        listens = here.connect(prepare_threshold=None)
        listens.execute("LISTEN news")
        handing = hand_over(here, old)
        here.server.sql("NOTIFY news, 'during'")
        (note,) = listens.notifies(timeout=10, stop_after=1)
        assert note.payload == "during"
        assert not handing.done()
        listens.execute("UNLISTEN *")
        eventually("it is done", handing.done, 10)
        listens.execute("LISTEN news")
        here.server.sql("NOTIFY news, 'after'")
        (note,) = listens.notifies(timeout=10, stop_after=1)
        assert note.payload == "after"


def test_each_shard_has_a_listener_of_its_own():
    databases = {"*": {"pool_mode": "statement", "pool_size": 4}}
    with staged(shards=2, databases=databases) as two, ExitStack() as stack:
        wires = [stack.enter_context(listening(two, "news")) for _ in range(16)]
        notify(two, "news", "x")
        assert [heard(wire) for wire in wires] == [("news", "x")] * 16
        assert two.sql(LISTENERS) in (1, 2)
        with two.console() as console:
            console("KILL")
        for wire in wires:
            assert fields(wire.next()[1])["C"] == "57P01"
        eventually("nobody listens any more", lambda: two.sql(LISTENERS) == 0)
