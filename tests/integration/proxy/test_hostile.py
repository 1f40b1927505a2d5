"""Clients and servers that are slow, half open, or talk nonsense: deadlines hold, memory too."""

import resource
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from proxy_bed import HOST, Server, eventually, give, room
from proxy_peers import ROOT, Flightmode, Front, flightmode_binary

from tests.integration.proxy.frames import (
    READY_IDLE,
    SSL_REQUEST,
    SYNC,
    Script,
    Sham,
    Wire,
    bind,
    client,
    execute,
    extended,
    fields,
    frame,
    parse,
    query,
    sham,
    startup,
    words,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (ROOT / "rust/proxy/Cargo.toml").exists(), reason="the data path is not built yet"
    ),
]


@contextmanager
def proxy(base: Path, port: int, **changed: object) -> Iterator[Flightmode]:
    front = Front(base, {"ams": port}, "ams", pool_size=2, secrets={"postgres": ""})
    times = {"hold_for_s": 1, "query_wait_s": 0, "server_connect_s": 0.5}
    defaults = {"times": times, "limits": {"preauth_s": 1, "max_clients": 5000}}
    made = Flightmode(front, **(defaults | changed))
    with ExitStack() as stack:
        stack.callback(made.stop)
        made.start()
        yield made


@contextmanager
def before(script: Script, **changed: object) -> Iterator[tuple[Flightmode, Sham]]:
    """A proxy in front of a server of that kind."""
    with (
        room("fm-hostile-") as base,
        sham(script) as server,
        proxy(base, server.port, **changed) as made,
    ):
        yield made, server


@pytest.fixture(scope="module")
def real() -> Iterator[Flightmode]:
    with room("fm-hostile-") as base, ExitStack() as stack:
        server = Server(base, "ams")
        stack.callback(server.kill)
        server.create()
        server.start()
        with proxy(base, server.port) as made:
            yield made


def resident_kb(made: Flightmode) -> int:
    assert made.process is not None
    status = Path(f"/proc/{made.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def most_resident_kb(made: Flightmode) -> int:
    assert made.process is not None
    status = Path(f"/proc/{made.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def is_well(made: Flightmode) -> bool:
    with client(made.port) as wire:
        return wire.ask(query("SELECT 1")) == ["T", "1", "SELECT 1", "I"]


def raw(made: Flightmode, sent: bytes) -> Wire:
    wire = Wire(socket.create_connection((HOST, made.port), timeout=20))
    wire.send(sent)
    return wire


# ------------------------------------------------------------------ clients

GREETINGS = {
    "nothing": b"",
    "half a length": b"\0\0",
    "half a packet": startup()[:20],
    "a huge length": struct.pack("!II", 0x7FFFFFFF, 196608),
    "a length of nothing": struct.pack("!II", 0, 196608),
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "a negative length": struct.pack("!iI", -1, 196608),
    "bytes behind the request for TLS": SSL_REQUEST + startup(),
    "two requests for TLS and nothing": SSL_REQUEST * 2,
    "zeroes": bytes(9000),
    "no user": struct.pack("!IIB", 9, 196608, 0),
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_pitfall_34_whoever_does_not_log_in_is_closed_in_time(greeting: str, real: Flightmode):
    wire = raw(real, GREETINGS[greeting])
    began_s = time.monotonic()
    with wire.socket:
        wire.socket.settimeout(5)
        assert wire.is_closed()
    assert time.monotonic() - began_s < 4
    assert is_well(real)


def test_pitfall_34_a_login_byte_by_byte_is_closed_by_its_deadline(real: Flightmode):
    """Each byte is in time; all of them take twice as long as a login may."""
    told = b"nothing"
    with raw(real, b"").socket as connection:
        connection.settimeout(0.05)
        with suppress(ConnectionError):
            for byte in startup():
                connection.sendall(bytes([byte]))
                with suppress(TimeoutError):
                    told = connection.recv(100)
                    break
            else:
                pytest.fail("it may take for ever")
    assert told[:1] != b"R", "it was let in"
    assert is_well(real)


SESSIONS = {
    "a huge query": b"Q" + struct.pack("!I", 0x7FFFFFF0),
    "a length below its own": b"Q" + struct.pack("!I", 3),
    "a negative length": b"Q" + struct.pack("!i", -5),
    "no message": b"\xff" + struct.pack("!I", 4),
    "a huge sync": b"S" + struct.pack("!I", 70000),
    "a password": frame(b"p", b"again\0"),
    "a text without its end": frame(b"Q", b"SELECT 1"),
    "a bind that promises values": frame(b"B", b"\0\0\0\0\xff\xff\0\0"),
}


@pytest.mark.parametrize("message", SESSIONS)
def test_pitfall_47_a_message_that_cannot_be_ends_its_client_and_nobody_else(
    message: str, real: Flightmode
):
    with client(real.port) as wire:
        wire.send(SESSIONS[message])
        if message != "a huge query":
            tag, body = wire.next()
            assert tag == "E"
            assert fields(body)["S"] == "FATAL"
            assert wire.is_closed()
        before_kb = resident_kb(real)
        assert is_well(real)
        assert resident_kb(real) - before_kb < 5000, "nothing is set aside for a length alone"


def test_pitfall_39_a_client_that_does_not_read_costs_no_memory(real: Flightmode):
    before_kb = resident_kb(real)
    with client(real.port) as wire:
        wire.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 300000)"))
        most_kb = 0
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s:
            most_kb = max(most_kb, resident_kb(real) - before_kb)
            time.sleep(0.02)
        assert most_kb < 5000
        rows = [tag for tag, _ in wire.until_ready()].count("D")
        assert rows == 300000, "and gets all of it when it does"


def test_pitfall_39_answers_of_our_own_that_nobody_reads_cost_no_memory(real: Flightmode):
    """Without a server there is nobody but us who could slow it down."""
    before_kb = resident_kb(real)
    with client(real.port) as wire:
        wire.socket.settimeout(1)
        sent, most = 0, 100 << 20
        with suppress(TimeoutError):
            while sent < most:
                sent += wire.socket.send((SYNC * 20_000)[sent % len(SYNC) :])
        assert sent < most, "it is made to wait"
        assert resident_kb(real) - before_kb < 5000
        assert is_well(real), "and nobody else is"
        wire.socket.settimeout(20)
        answers = sent // len(SYNC) * len(READY_IDLE)
        while answers > 0:
            answers -= len(wire.socket.recv(min(answers, 1 << 20)))


def test_pitfall_40_both_sides_full_is_no_deadlock(real: Flightmode):
    """It sends megabytes before it reads any of the megabytes that come back."""
    count = 3000
    with client(real.port) as wire:
        wire.socket.settimeout(40)
        asked = extended(f"SELECT repeat('y', 5000), '{'z' * 3000}'") * count
        sending = threading.Thread(target=wire.send, args=(asked,))
        sending.start()

        def is_full() -> bool:
            return not select.select([], [wire.socket], [], 0.2)[1]

        eventually("no more can be sent", lambda: is_full() or not sending.is_alive())
        for _ in range(count):
            assert wire.until_ready()[-1] == ("Z", b"I")
        sending.join(10)
        assert not sending.is_alive()


def test_a_thousand_half_open_clients_are_gone_after_their_deadline(real: Flightmode):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        before_kb = resident_kb(real)
        crowd = [raw(real, startup()[:9]) for _ in range(1000)]
        assert is_well(real), "they keep nobody out"
        assert resident_kb(real) - before_kb < 30_000
        for wire in crowd:
            wire.socket.settimeout(8)
            assert wire.is_closed()
            wire.socket.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_crowd_that_never_logs_in_leaves_descriptors_for_servers_and_room_for_others():
    with room("fm-hostile-") as base, ExitStack() as stack:
        server = Server(base, "ams")
        stack.callback(server.kill)
        server.create()
        server.start()
        few = base / "few-files"
        few.write_text(f'#!/bin/sh\nulimit -n 128\nexec {flightmode_binary()} "$@"\n')
        few.chmod(0o755)
        front = Front(base, {"ams": server.port}, "ams", secrets={"postgres": ""})
        made = Flightmode(front, program=few, limits={"preauth_s": 60})
        stack.callback(made.stop)
        made.start()
        wire = stack.enter_context(client(made.port))
        for _ in range(300):
            one = stack.enter_context(socket.create_connection((HOST, made.port)))
            with suppress(ConnectionError):
                one.sendall(startup()[:9])
        server.kill()
        server.start()
        assert wire.ask(query("SELECT 1")) == ["T", "1", "SELECT 1", "I"]
        elsewhere = socket.create_connection((HOST, made.port), 20, ("127.0.0.2", 0))
        other = Wire(stack.enter_context(elsewhere))
        other.send(startup())
        assert other.until_ready()[-1] == ("Z", b"I")


def test_thousands_of_logins_leave_nothing_behind(real: Flightmode):
    def log_in(times: int) -> None:
        for _ in range(times):
            assert is_well(real)

    log_in(50)
    before_kb = resident_kb(real)
    threads = [threading.Thread(target=log_in, args=(400,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resident_kb(real) - before_kb < 8000
    assert real.process is not None
    files = Path(f"/proc/{real.process.pid}/fd")
    eventually("their sockets are closed", lambda: len(list(files.iterdir())) < 40)


def test_garbage_in_place_of_a_handshake_is_closed_in_time():
    with room("fm-hostile-") as base, ExitStack() as stack:
        _certificate(base)
        server = Server(base, "ams")
        stack.callback(server.kill)
        server.create()
        server.start()
        tls = {"mode": "allow", "cert": f"{base}/server.crt", "key": f"{base}/server.key"}
        made = stack.enter_context(proxy(base, server.port, client_tls=tls))
        for garbage in (b"", b"\x16", b"\x16\x03\x01\xff\xff" + bytes(100), startup(), bytes(3000)):
            wire = raw(made, SSL_REQUEST)
            assert wire.socket.recv(1) == b"S"
            with wire.socket, suppress(ConnectionError):
                wire.send(garbage)
                wire.socket.settimeout(5)
                assert wire.is_closed()
        wire = raw(made, SSL_REQUEST)
        assert wire.socket.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(wire.socket) as secured:
            inside = Wire(secured)
            inside.send(startup())
            assert inside.until_ready()[-1][0] == "Z"
            inside.send(b"\0" * 50)
            assert inside.next()[0] == "E"
            assert inside.is_closed()


def _certificate(base: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=flightmode"),
            *("-keyout", base / "server.key", "-out", base / "server.crt"),
        ],
        check=True,
        capture_output=True,
    )
    give(base / "server.key")


# ------------------------------------------------------------------ servers


def _after_a_query(answer: bytes, *, then_close: bool = False) -> Script:
    """Everything is answered by this."""

    def script(wire: Wire, _: Sham) -> None:
        while True:
            tag, _body = wire.next()
            if tag in "QS":
                wire.send(answer)
                if then_close:
                    return

    return script


NONSENSE = {
    "no message": b"\xff\0\0\0\4",
    "a huge row": b"D" + struct.pack("!I", 0x7FFFFFFF) + bytes(100),
    "a second login": frame(b"R", bytes(4)),
    "an answer to something else": frame(b"1"),
    "ready in no state": frame(b"Z", b"?"),
    "a short length": b"D\0\0\0\1",
    "an error without its end": frame(b"E", b"SERROR\0C42"),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("answer", NONSENSE)
def test_pitfall_38_nonsense_of_a_server_is_its_loss_and_told_as_that(answer: str):
    with (
        before(_after_a_query(NONSENSE[answer], then_close=True)) as (made, _),
        client(made.port) as wire,
    ):
        wire.send(query("INSERT INTO t VALUES (1)"))
        try:
            told = wire.until_ready()
        except ConnectionResetError:
            assert answer == "a huge row", "it has half a row: nothing can follow that"
            return
        assert fields(told[-2][1])["C"] == "08007"
        assert told[-1] == ("Z", b"I")


@pytest.mark.parametrize("tag", ["E", "T", "A"])
def test_pitfall_47_a_server_whose_message_has_no_end_is_given_up(tag: str):
    def endless(wire: Wire, _: Sham) -> None:
        while wire.next()[0] != "Q":
            """It waits for its turn."""
        wire.send(tag.encode() + struct.pack("!I", 0x3FFFFF00))
        while True:
            wire.send(bytes(65536))

    with before(endless) as (made, _), client(made.port) as wire:
        before_kb = resident_kb(made)
        assert wire.ask(query("INSERT INTO t VALUES (1)")) == ["08007", "I"]
        assert resident_kb(made) - before_kb < 5000


def test_pitfall_47_a_long_notice_goes_on_in_parts():
    notice = frame(b"N", b"SNOTICE\0C00000\0M" + b"x" * 8_000_000 + b"\0\0")
    answer = notice + frame(b"C", b"DO\0") + READY_IDLE
    with before(_after_a_query(answer)) as (made, _), client(made.port) as wire:
        before_kb = most_resident_kb(made)
        assert wire.ask(query("DO 'loud'")) == ["DO", "I"]
        assert most_resident_kb(made) - before_kb < 3000


def test_pitfall_54_a_server_that_stops_inside_a_row_never_makes_an_error_a_part_of_it():
    half = b"D" + struct.pack("!I", 200_000) + b"\0\1" + struct.pack("!I", 199_990) + bytes(100_000)
    with (
        before(_after_a_query(frame(b"T", bytes(2)) + half, then_close=True)) as (made, _),
        client(made.port) as wire,
    ):
        wire.send(query("SELECT long"))
        got = b""
        while more := wire.socket.recv(65536):
            got += more
        assert got.endswith(bytes(1000)), "the row, and nothing behind it"


def test_a_server_that_accepts_and_says_nothing_costs_a_deadline_and_no_more():
    with (
        room("fm-hostile-") as base,
        socket.create_server((HOST, 0)) as listener,
        proxy(base, listener.getsockname()[1]) as made,
    ):
        wire = raw(made, startup())
        began_s = time.monotonic()
        tag, body = wire.next()
        assert (tag, fields(body)["C"]) == ("E", "57P03")
        assert time.monotonic() - began_s < 5
        wire.socket.close()


def test_pitfall_38_a_server_that_sends_for_ever_without_being_asked_is_left():
    def talkative(wire: Wire, _: Sham) -> None:
        while True:
            wire.send(frame(b"1") * 100)

    with before(talkative) as (made, _):
        before_kb = resident_kb(made)
        wire = raw(made, startup())
        with wire.socket:
            assert wire.next()[0] in "RE", "it may get in between two of them"
            wire.send(query("SELECT 1"))
            wire.socket.settimeout(6)
            told = words(wire.until_ready() + wire.until_ready())
            assert {"57P03", "08006", "40001"} & set(told), told
        assert resident_kb(made) - before_kb < 10_000


def test_a_read_that_kills_every_server_is_not_run_for_ever():
    def fragile(wire: Wire, _: Sham) -> None:
        while wire.next()[0] != "Q":
            """It dies of a query."""

    with before(fragile) as (made, server), client(made.port) as wire:
        sessions = server.sessions
        assert wire.ask(query("SELECT 1")) == ["40001", "I"]
        assert server.sessions - sessions < 12


def test_pitfall_42_a_server_that_says_goodbye_while_idle_is_not_handed_out():
    farewell = frame(b"E", b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0")

    def brief(wire: Wire, server: Sham) -> None:
        while True:
            tag, _body = wire.next()
            if tag == "Q":
                wire.send(frame(b"C", b"INSERT 0 1\0"), READY_IDLE)
                if server.sessions == 1:
                    wire.send(farewell)
                    return

    with before(brief) as (made, server), client(made.port) as wire:
        assert wire.ask(query("INSERT INTO t VALUES (1)")) == ["INSERT 0 1", "I"]
        eventually("another session is made", lambda: server.sessions > 1)
        assert wire.ask(query("INSERT INTO t VALUES (1)")) == ["INSERT 0 1", "I"]


def refusing(wire: Wire, server: Sham) -> None:
    """As a standby before Postgres 14, and from its second session on as a primary."""
    refusal = frame(b"E", b"SERROR\0C25006\0Mcannot execute INSERT in a read-only transaction\0\0")
    state = b"I"
    number = server.sessions
    while True:
        tag, body = wire.next()
        if tag != "Q":
            continue
        if b"BEGIN" in body:
            state, answer = b"T", frame(b"C", b"BEGIN\0")
        elif number == 1:
            state, answer = (b"E" if state == b"T" else b"I"), refusal
        else:
            answer = frame(b"C", b"INSERT 0 1\0")
        wire.send(answer, frame(b"Z", state))


LONG_HOLD = {"hold_for_s": 20, "query_wait_s": 0, "server_connect_s": 2}


def test_pitfall_52_a_write_refused_by_a_standby_is_held_and_runs_again():
    with before(refusing, times=LONG_HOLD) as (made, server):
        server.reported.pop(b"in_hot_standby")
        with client(made.port) as wire:
            wire.send(query("INSERT INTO t VALUES (1)"))
            eventually("the store is asked", lambda: "found_in_recovery" in made.log_tail())
            made.primary("ams")
            assert words(wire.until_ready()) == ["INSERT 0 1", "I"]


def test_pitfall_52_a_transaction_refused_by_a_standby_is_to_be_retried():
    with before(refusing, times=LONG_HOLD) as (made, server):
        server.reported.pop(b"in_hot_standby")
        with client(made.port) as wire:
            assert wire.ask(query("BEGIN")) == ["BEGIN", "T"]
            assert wire.ask(query("INSERT INTO t VALUES (1)")) == ["40001", "E"]
            assert wire.ask(query("ROLLBACK")) == ["ROLLBACK", "I"]
        eventually("the store is asked", lambda: "found_in_recovery" in made.log_tail())


def test_pitfall_52_a_primary_that_refuses_a_write_is_none_of_our_affair():
    with before(refusing) as (made, _), client(made.port) as wire:
        assert wire.ask(query("INSERT INTO t VALUES (1)")) == ["25006", "I"]


def test_pitfall_23_a_server_is_not_reused_until_the_cancel_for_it_has_come_through():
    """The cancel's connection stays open: it may strike yet, so the server serves nobody."""
    asked = threading.Event()

    def slow(wire: Wire, server: Sham) -> None:
        while True:
            tag, _body = wire.next()
            if tag == "Q":
                asked.set()
                eventually("its cancel arrived", lambda: server.cancels == 1)
                wire.send(frame(b"C", b"SELECT 0\0"), READY_IDLE)

    one = {"*": {"pool_mode": "transaction", "pool_size": 1}}
    times = {"hold_for_s": 20, "query_wait_s": 0, "server_connect_s": 2}
    with before(slow, databases=one, times=times) as (made, server), ExitStack() as stack:
        server.cancels_end.clear()
        wire = raw(made, startup())
        stack.callback(wire.socket.close)
        key = next(body for tag, body in wire.until_ready() if tag == "K")
        wire.send(query("SELECT 1"))
        assert asked.wait(20)
        cancel = raw(made, struct.pack("!II", 8 + len(key), 80877102) + key)
        stack.callback(cancel.socket.close)
        assert words(wire.until_ready()) == ["SELECT 0", "I"]
        other = stack.enter_context(client(made.port))
        other.send(query("SELECT 2"))
        other.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            other.next()
        assert server.sessions == 1
        server.cancels_end.set()
        other.socket.settimeout(20)
        assert words(other.until_ready()) == ["SELECT 0", "I"]
        assert server.sessions == 1


def test_pitfall_13_an_error_at_a_parse_is_the_clients_and_leaves_the_name_free(real: Flightmode):
    with client(real.port) as wire:
        assert wire.ask(parse("SELEC 1", "s"), SYNC) == ["42601", "I"]
        good = parse("SELECT 1", "s") + bind("s") + execute() + SYNC
        assert wire.ask(good) == ["1", "2", "1", "SELECT 1", "I"]
