"""Two servers and a contestant in front of them; how the primary goes and another one comes."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import Flightmode, Front, Peer

NODES = ("ams", "fra")
RULES = """
table inet {table} {{
  chain input {{
    type filter hook input priority 0;
    tcp dport {port} drop
    tcp sport {port} drop
  }}
}}
"""


class Checks:
    """Answers the health checks of both nodes as an agent beside each would."""

    def __init__(self) -> None:
        self.primary = ""
        self._servers = {name: self._serve(name) for name in NODES}
        self.ports = {name: server.server_address[1] for name, server in self._servers.items()}

    def _serve(self, node: str) -> ThreadingHTTPServer:
        checks = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if checks.primary == node else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


Maker = Callable[[Front, Checks], Peer]


@contextmanager
def stage(
    make: Maker, tables: tuple[str, ...], *, pool_size: int
) -> Iterator[tuple[dict[str, Server], Checks, Peer]]:
    with room("fm-hold-") as base, ExitStack() as stack:
        servers = _pair(base, stack, tables)
        checks = Checks()
        stack.callback(checks.close)
        checks.primary = "ams"
        ports = {name: server.port for name, server in servers.items()}
        front = Front(
            base, ports, "ams", pool_size=pool_size, secrets={"postgres": "", "admin": ""}
        )
        peer = make(front, checks)
        stack.callback(peer.stop)
        peer.start()
        eventually("it answers", lambda: _answers(peer.port))
        yield servers, checks, peer


def _pair(base: Path, stack: ExitStack, tables: tuple[str, ...]) -> dict[str, Server]:
    """A primary `ams`, and a standby `fra` that has all of it."""
    servers = {name: Server(base, name) for name in NODES}
    for server in servers.values():
        stack.callback(server.kill)
    servers["ams"].create()
    servers["ams"].start()
    servers["ams"].sql(
        *tables, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"
    )
    servers["fra"].copy(servers["ams"])
    servers["fra"].start()
    return servers


def _answers(port: int) -> bool:
    """By the primary and nobody else: health checks take a while to find that out."""
    try:
        return not any(_is_standby(port) for _ in NODES)
    except psycopg.OperationalError:
        return False


def _is_standby(port: int) -> bool:
    with psycopg.connect(
        host=HOST, port=port, user="postgres", dbname="postgres", sslmode="disable"
    ) as connection:
        row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return row is None or bool(row[0])


def move(server: Server, peer: Peer) -> float:
    """Promote it and tell the contestant; when it was first seen to accept writes."""
    with server.connect() as watcher:
        server.promote()
        if isinstance(peer, Flightmode):
            peer.primary(server.name)
        while True:
            row = watcher.execute("SELECT pg_is_in_recovery()").fetchone()
            if row is not None and not row[0]:
                break
            time.sleep(0.001)
        at_s = time.monotonic()
    if not isinstance(peer, Flightmode):
        peer.primary(server.name)
    return at_s


@contextmanager
def dropping(port: int) -> Iterator[None]:
    """Packets to and from this port are dropped: no RST, no FIN, no ICMP."""
    table = f"flightmode_bench_{port}"
    rules = RULES.format(table=table, port=port)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)
