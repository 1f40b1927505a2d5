"""A server with the proxy in front of it, and what the tests of the proxy ask of both."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from proxy_bed import HOST, Server, room
from proxy_peers import Flightmode, Front
from psycopg.rows import dict_row

Rows = list[dict[str, Any]]


@dataclass
class Stage:
    server: Server
    proxy: Flightmode
    base: Path

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        address: dict[str, Any] = {"host": HOST, "port": self.proxy.port, "user": "postgres"}
        address |= {"dbname": "postgres", "autocommit": True, "connect_timeout": 10}
        return psycopg.connect(**(address | options))

    @contextmanager
    def console(self, **options: Any) -> Iterator["Console"]:
        """By the file of the console, unless `options` say otherwise."""
        by_file: dict[str, Any] = {
            "host": str(self.proxy.base),
            "user": "anybody",
            "dbname": "flightmode",
        }
        by_file["prepare_threshold"] = None
        with self.connect(**({"port": 1} | by_file | options)) as connection:
            yield Console(connection)

    def tell(self, line: dict[str, object]) -> None:
        """As the launcher would: a command, or other settings."""
        assert self.proxy.process is not None
        assert self.proxy.process.stdin is not None
        self.proxy.process.stdin.write(json.dumps(line).encode() + b"\n")
        self.proxy.process.stdin.flush()

    def sql(self, text: str) -> object:
        """The first value that the server itself says."""
        with self.server.connect() as connection:
            row = connection.execute(text.encode()).fetchone()
        assert row is not None
        return row[0]


@dataclass
class Console:
    connection: psycopg.Connection[tuple[Any, ...]]

    def __call__(self, text: str) -> Rows:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def one(self, text: str, **where: object) -> dict[str, Any]:
        """The one row of which this is true."""
        found = [row for row in self(text) if where.items() <= row.items()]
        assert len(found) == 1, found
        return found[0]


@contextmanager
def staged(
    *, shards: int = 1, settings: str = "", method: str = "trust", **changed: object
) -> Iterator[Stage]:
    """`changed` are sections of the proxy's settings, or make them of a directory for files; the
    console has the file of port 1.
    """
    with room("fm-proxy-") as base, ExitStack() as stack:
        server = Server(base, "ams", settings=settings, method=method)
        server.create()
        stack.callback(server.kill)
        server.start()
        front = Front(base, {"ams": server.port}, "ams", secrets={"postgres": "any", "app": "app"})
        proxy = Flightmode(front, shards=shards)
        admin = {"unix": str(proxy.base / ".s.PGSQL.1"), "users": ["ops"], "stats_users": ["watch"]}
        made = {name: of(base) if callable(of) else of for name, of in changed.items()}
        proxy.changed |= {"admin": admin} | made
        stack.callback(proxy.stop)
        proxy.start()
        yield Stage(server, proxy, base)
