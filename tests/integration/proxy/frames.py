"""Raw frames of the protocol: what no driver would say, and servers that no one would run."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"
SSL_REQUEST = struct.pack("!II", 8, 80877103)
SYNC = b"S\0\0\0\x04"
FLUSH = b"H\0\0\0\x04"
TERMINATE = b"X\0\0\0\x04"
READY_IDLE = b"Z\0\0\0\x05I"

Message = tuple[str, bytes]


def frame(tag: bytes, body: bytes = b"") -> bytes:
    return tag + struct.pack("!I", len(body) + 4) + body


def query(sql: str) -> bytes:
    return frame(b"Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    return frame(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(name: str = "") -> bytes:
    return frame(b"B", b"\0" + name.encode() + b"\0" + bytes(6))


def describe(name: str = "") -> bytes:
    return frame(b"D", b"S" + name.encode() + b"\0")


def execute(max_rows: int = 0) -> bytes:
    return frame(b"E", b"\0" + struct.pack("!I", max_rows))


def extended(sql: str) -> bytes:
    return parse(sql) + bind() + execute() + SYNC


def startup(**parameters: str) -> bytes:
    told = {"user": "postgres", "database": "postgres"} | parameters
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in told.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def fields(body: bytes) -> dict[str, str]:
    """Of an error or notice."""
    parts = body.rstrip(b"\0").split(b"\0")
    return {part[:1].decode(): part[1:].decode() for part in parts if part}


class Wire:
    """A connection of whoever speaks frames."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(20)
        self.unread = b""

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(messages))

    def _exactly(self, count: int) -> bytes:
        while len(self.unread) < count:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError("closed")
            self.unread += more
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def next(self) -> Message:
        head = self._exactly(5)
        (length,) = struct.unpack("!I", head[1:])
        return chr(head[0]), self._exactly(length - 4)

    def opening(self) -> bytes:
        (length,) = struct.unpack("!I", self._exactly(4))
        return self._exactly(length - 4)

    def until_ready(self) -> list[Message]:
        """All messages up to `ReadyForQuery`, with it."""
        told = [self.next()]
        while told[-1][0] != "Z":
            told.append(self.next())
        return told

    def ask(self, *messages: bytes) -> list[str]:
        """Send, and what came: tags, codes of errors, the text of rows, the state at the end."""
        self.send(*messages)
        return words(self.until_ready())

    def is_closed(self) -> bool:
        """Whatever is still said, the end comes.  Raises TimeoutError if it does not."""
        with suppress(ConnectionResetError):
            while self.socket.recv(65536):
                """It goes nowhere."""
        return True


def words(told: list[Message]) -> list[str]:
    found = []
    for tag, body in told:
        if tag == "E":
            found.append(fields(body)["C"])
        elif tag == "D":
            found.append(_row(body))
        elif tag == "C":
            found.append(body.rstrip(b"\0").decode())
        elif tag == "Z":
            found.append(body.decode())
        elif tag not in "SNA":
            found.append(tag)
    return found


def _row(body: bytes) -> str:
    at, values = 2, []
    while at < len(body):
        (length,) = struct.unpack("!i", body[at : at + 4])
        values.append(body[at + 4 : at + 4 + max(length, 0)].decode())
        at += 4 + max(length, 0)
    return ",".join(values)


@contextmanager
def client(port: int, **parameters: str) -> Iterator[Wire]:
    """Logged in by trust."""
    with socket.create_connection((HOST, port), timeout=20) as connection:
        wire = Wire(connection)
        wire.send(startup(**parameters))
        wire.until_ready()
        yield wire


Script = Callable[[Wire, "Sham"], None]


class Sham:
    """A server that lets anybody in and then does as its script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.reported = {b"server_version": b"15.0", b"in_hot_standby": b"off"}
        self.cancels = 0
        self.cancels_end = threading.Event()
        self.cancels_end.set()
        self.sessions = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # It is closed.
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # That the proxy leaves it is what most scripts are about.
        with connection, suppress(OSError):
            wire = Wire(connection)
            opening = wire.opening()
            if opening[:4] == struct.pack("!I", 80877102):
                self.cancels += 1
                self.cancels_end.wait(60)
                return
            self.sessions += 1
            wire.send(
                frame(b"R", bytes(4)),
                *(frame(b"S", b"%s\0%s\0" % pair) for pair in self.reported.items()),
                frame(b"K", struct.pack("!II", 1, 2)),
                READY_IDLE,
            )
            self.script(wire, self)

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()


@contextmanager
def sham(script: Script) -> Iterator[Sham]:
    made = Sham(script)
    try:
        yield made
    finally:
        made.close()
