"""What clients do to a contestant, and what it costs: pgbench, and raw clients where it can't."""

import hashlib
import hmac
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy_bed import BIN, HOST

SALT = b"flightmode-bench"
ITERATIONS = 4096
PASSWORD = b"a bench has no secrets"


@dataclass(frozen=True)
class Run:
    """One run of pgbench."""

    tps: float
    transactions: int
    latencies_us: Sequence[int]
    cpu_us: float
    """CPU time of the contestant per transaction."""


def cpu_ns(pids: Sequence[int]) -> int:
    """CPU time of all threads of these processes so far."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def pgbench(
    port: int,
    pids: Sequence[int],
    *,
    mode: str,
    clients: int,
    seconds: float = 0.0,
    transactions: int = 0,
    log_in: Path | None = None,
) -> Run:
    """Select-only transactions; every latency as well if there is a place to log them."""
    how = ["-T", str(max(1, round(seconds)))] if not transactions else ["-t", str(transactions)]
    log = ["-l", f"--log-prefix={log_in / 'txn'}"] if log_in else []
    argv = [str(BIN / "pgbench"), "-n", "-S", "-M", mode, "-c", str(clients), "-j", "1", *how, *log]
    before = cpu_ns(pids)
    done = subprocess.run(
        [*argv, "-h", HOST, "-p", str(port), "-U", "postgres", "postgres"],
        env=os.environ | {"PGSSLMODE": "disable"},
        capture_output=True,
        text=True,
    )
    spent = cpu_ns(pids) - before
    if done.returncode != 0 or "aborted" in done.stderr:
        raise RuntimeError(f"pgbench: {done.stderr[-500:]}")
    count = int(_find(r"actually processed: (\d+)", done.stdout))
    tps = float(_find(r"tps = ([\d.]+)", done.stdout))
    latencies = _latencies(log_in) if log_in else []
    return Run(tps, count, latencies, spent / 1e3 / max(count, 1))


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"pgbench says something new: {text[-500:]}")
    return found[1]


def _latencies(folder: Path) -> list[int]:
    """In microseconds; the first tenth of them, which connects and warms up, is left out."""
    read: list[int] = []
    for path in folder.glob("txn.*"):
        read += [int(line.split()[2]) for line in path.read_text().splitlines()]
        path.unlink()
    return read[len(read) // 10 :]


def quantile(figures: Sequence[float], share: float) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def syscalls_per_transaction(port: int, pid: int, *, transactions: int, clients: int = 1) -> float:
    """Counted by strace over a known number of transactions."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-qq", "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        _until_traced(pid)
        run = pgbench(
            port, [], mode="prepared", clients=clients, transactions=transactions // clients
        )
    finally:
        tracer.send_signal(2)
        _, told = tracer.communicate(timeout=20)
    total = [line for line in told.splitlines() if line.rstrip().endswith("total")]
    fields = total[0].split()
    return int(fields[3]) / run.transactions


def _until_traced(pid: int) -> None:
    until = time.monotonic() + 5
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > until:
            raise TimeoutError("strace does not attach")
        time.sleep(0.01)


def rss_bytes(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(_find(r"VmRSS:\s+(\d+) kB", status)) * 1024
    return total


def settled_rss_bytes(pids: Sequence[int], within_s: float = 5.0) -> int:
    """Once it has not changed for half a second: buffers of idle clients may be given back."""
    until = time.monotonic() + within_s
    seen = [rss_bytes(pids)]
    while time.monotonic() < until and not (len(seen) > 10 and len(set(seen[-10:])) == 1):
        time.sleep(0.05)
        seen.append(rss_bytes(pids))
    return seen[-1]


# ------------------------------------------------------------------ raw clients


def startup(user: str = "postgres", database: str = "postgres") -> bytes:
    body = struct.pack("!i", 196608)
    for word in ("user", user, "database", database):
        body += word.encode() + b"\0"
    body += b"\0"
    return struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    body = text.encode() + b"\0"
    return b"Q" + struct.pack("!i", len(body) + 4) + body


@contextmanager
def idle_clients(port: int, count: int, tls: ssl.SSLContext | None) -> Iterator[None]:
    """That many clients that are logged in, asked one thing, and are silent from then on."""
    clients: list[socket.socket] = []
    try:
        for _ in range(count):
            client = connect(port, tls)
            log_in(client)
            client.sendall(query("SELECT 1"))
            read_until_ready(client)
            clients.append(client)
        yield
    finally:
        for client in clients:
            client.close()


def connect(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection((HOST, port), timeout=20)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return plain
    plain.sendall(struct.pack("!ii", 8, 80877103))
    if plain.recv(1) != b"S":
        raise RuntimeError("no TLS here")
    return tls.wrap_socket(plain, server_hostname="localhost")


def message(client: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(client, 5)
    body = _exactly(client, struct.unpack("!i", head[1:])[0] - 4)
    if head[:1] == b"E":
        raise RuntimeError(body.replace(b"\0", b" ").decode(errors="replace"))
    return head[:1], body


def _exactly(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = client.recv(count - len(got))
        if not more:
            raise ConnectionError("closed")
        got += more
    return got


def read_until_ready(client: socket.socket) -> None:
    """All that has come may be read at once: nothing follows a ReadyForQuery by itself."""
    seen = b""
    while seen[-6:-1] != b"Z\0\0\0\x05":
        more = client.recv(65536)
        if not more:
            raise ConnectionError("closed")
        seen += more


def log_in(client: socket.socket, keys: "Keys | None" = None) -> None:
    """As it is asked: at once, or by SCRAM-SHA-256."""
    client.sendall(startup())
    kind, body = message(client)
    (asked,) = struct.unpack("!i", body[:4])
    if kind == b"R" and asked == 10:
        _scram(client, keys or Keys.of(PASSWORD))
    read_until_ready(client)


@dataclass(frozen=True)
class Keys:
    """What a client may keep between logins, so that its own work does not drown the proxy's."""

    client_key: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: bytes) -> "Keys":
        salted = hashlib.pbkdf2_hmac("sha256", password, SALT, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(client_key, hashlib.sha256(client_key).digest(), server_key)

    def secret(self) -> str:
        """As PostgreSQL writes it into pg_authid."""
        stored, server = b64encode(self.stored_key), b64encode(self.server_key)
        return (
            f"SCRAM-SHA-256${ITERATIONS}:{b64encode(SALT).decode()}"
            f"${stored.decode()}:{server.decode()}"
        )


def _scram(client: socket.socket, keys: Keys) -> None:
    bare = b"n=,r=" + b64encode(os.urandom(18))
    first = b"n,," + bare
    _send_password(client, b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
    server_first = message(client)[1][4:]
    fields = dict(part.split(b"=", 1) for part in server_first.split(b","))
    if b64decode(fields[b"s"]) != SALT or int(fields[b"i"]) != ITERATIONS:
        raise RuntimeError("the secret is not the one that was given to the contestant")
    final = b"c=biws,r=" + fields[b"r"]
    signed = b",".join((bare, server_first, final))
    signature = hmac.digest(keys.stored_key, signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(keys.client_key, signature, strict=True))
    _send_password(client, final + b",p=" + b64encode(proof))
    answer = message(client)[1][4:]
    if b64decode(answer[2:]) != hmac.digest(keys.server_key, signed, "sha256"):
        raise RuntimeError("a server that does not know the password")


def _send_password(client: socket.socket, body: bytes) -> None:
    client.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)


def logins(
    port: int, pids: Sequence[int], tls: ssl.SSLContext, *, seconds: float, threads: int = 8
) -> tuple[float, float]:
    """Logins per second, and the contestant's CPU time for each, in microseconds."""
    keys = Keys.of(PASSWORD)
    counts = [0] * threads
    errors: list[BaseException] = []
    until = time.monotonic() + seconds

    def work(index: int) -> None:
        try:
            while time.monotonic() < until:
                with connect(port, tls) as client:
                    log_in(client, keys)
                    client.sendall(b"X\0\0\0\x04")
                counts[index] += 1
        except BaseException as error:
            errors.append(error)

    began, spent = time.monotonic(), cpu_ns(pids)
    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    took, cpu = time.monotonic() - began, cpu_ns(pids) - spent
    return sum(counts) / took, cpu / 1e3 / sum(counts)
