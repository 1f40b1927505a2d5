"""A whole cluster for the tests of one file, and what people and clients do to it.

Real etcd, PostgreSQL, fences and agents, exactly as the demo starts them.
"""

import asyncio
import json
import os
import pwd
import shutil
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import psycopg
import pytest

from flightmode.config.derive import api_url
from flightmode.demo.cluster import NODES, DemoCluster, Picture
from flightmode.demo.lab import Lab
from flightmode.demo.ledger import Outcome, Verdict, check
from flightmode.demo.workload import Workload
from flightmode.pki import client_context
from tests.integration.postgres_server import FLAVOURS, Flavour

BIN = Path("/usr/lib/postgresql/15/bin")
CLIENTS = 8
TIMING = MappingProxyType({"stable_after_flap_s": 1.0})
"""The demo's, but a standby that comes back is trusted again sooner: tests take turns on it."""

needs_servers = pytest.mark.skipif(
    not (BIN / "postgres").exists() or shutil.which("etcd") is None,
    reason="PostgreSQL 15 and etcd are needed",
)

_TABLES = "DROP TABLE IF EXISTS ledger, account"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a node's API said."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Live:
    """A cluster that runs, and a person with the operator's certificate and a shell."""

    cluster: DemoCluster
    lab: Lab
    toml: Path

    async def whole(self) -> Picture:
        return await self.cluster.until(lambda picture: picture.whole, "the cluster to be whole")

    async def picture(self) -> Picture:
        return await self.cluster.until(lambda _: True, "the store to answer")

    def home(self, node: str) -> Path:
        return self.cluster.directory / node

    def pid(self, node: str, what: str) -> int:
        """Of the `agent`, `fence` or `etcd` that was last started there."""
        return self.cluster.process(node, what).pid

    # ---------------------------------------------------------------- a person

    async def types(self, verb: str, *words: object, within_s: float = 60.0) -> Ran:
        argv = [verb, *map(str, words)]
        if verb != "replay":
            argv += ["--config", str(self.toml)]
        return await command(*argv, within_s=within_s)

    async def done(self, verb: str, *words: object) -> Ran:
        """The same, and it went well."""
        ran = await self.types(verb, *words)
        assert ran.status == 0, f"{verb}: {ran.out}{ran.err}"
        return ran

    async def status(self) -> Any:
        """What `flightmode status --json` shows, whether writes are accepted or not."""
        ran = await self.types("status", "--json")
        assert ran.out, ran.err
        return ran.json

    async def node(self, name: str) -> Any:
        """One node, as `flightmode status --json` shows it."""
        return next(each for each in (await self.status())["nodes"] if each["name"] == name)

    # ---------------------------------------------------------------- a program

    async def asks(
        self,
        node: str,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        certificate: bool = True,
    ) -> Answered:
        """One request to a node's API; without `certificate` as anybody on the network."""
        operator = self.cluster.directory / "operator"
        tls = client_context(operator, "client")
        if not certificate:
            tls = ssl.create_default_context(cafile=str(operator / "ca.crt"))
        url = api_url(self.cluster.config, node) + path
        timeout = aiohttp.ClientTimeout(total=10.0)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout
            ) as session,
            session.request(method, url, json=body, headers=dict(headers)) as answer,
        ):
            return Answered(answer.status, await answer.text())

    async def sql(self, node: str, query: str) -> list[tuple[Any, ...]]:
        """Over TLS, as the application's user."""
        async with await psycopg.AsyncConnection.connect(
            self.cluster.conninfo(node), autocommit=True, connect_timeout=5
        ) as link:
            cursor = await link.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []

    # ---------------------------------------------------------------- clients

    @asynccontextmanager
    async def writers(self) -> AsyncIterator[Workload]:
        """Clients that write all the while, in a new ledger."""
        leader = (await self.whole()).state.leader
        await self.sql(leader, _TABLES)
        nodes = {name: self.cluster.conninfo(name) for name in self.cluster.policy.databases}
        async with Workload(nodes, clients=CLIENTS) as workload:
            await workload.prepare()
            workload.start()
            await acknowledged(workload)
            yield workload

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Workload]:
        """The same; at the end they still get answers, and their ledger must be sound."""
        async with self.writers() as workload:
            yield workload
            await acknowledged(workload)
            await workload.stop()
            verdict = await verdict_of(workload)
            assert verdict.sound, verdict

    def log(self, node: str, what: str = "agent") -> str:
        return (self.home(node) / f"{what}.log").read_text()


async def verdict_of(workload: Workload) -> Verdict:
    """What the clients were told, held against what the database has now."""
    rows, imbalance = await workload.rows(), await workload.imbalance()
    return check(workload.history, rows, imbalance=imbalance)


async def acknowledged(workload: Workload, count: int = CLIENTS, within_s: float = 60.0) -> None:
    """Wait until so many more commits were acknowledged."""
    seen = len(workload.history)

    def news() -> int:
        return sum(each.outcome is Outcome.ACKNOWLEDGED for each in workload.history[seen:])

    await until(lambda: news() >= count, f"{count} acknowledged commits", within_s)


def errors_since(workload: Workload, number: int) -> list[str]:
    """What clients were told other than "done", from the `number`th transaction on."""
    news = workload.history[number:]
    return [each.error for each in news if each.outcome is not Outcome.ACKNOWLEDGED]


async def until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, within_s: float = 30.0
) -> None:
    """Wait for a condition, which may be asked with `await`."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline_s, f"waited {within_s:.0f} s for {what}"
        await asyncio.sleep(0.05)


async def command(*argv: str, within_s: float = 60.0) -> Ran:
    """`flightmode …`, as whoever runs the tests."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flightmode.cli.main", *argv, stdout=-1, stderr=-1
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Ran(process.returncode or 0, out.decode(), err.decode())


def owner() -> int:
    """The user that agents and Postgres run as."""
    return pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else os.geteuid()


@asynccontextmanager
async def unborn(
    make_lab: Callable[[tuple[str, ...]], Lab], flavour: Flavour = FLAVOURS["15"]
) -> AsyncIterator[Live]:
    """Three nodes with their files, and nothing started; everything is removed at the end."""
    async with (
        make_lab(NODES) as lab,
        DemoCluster(lab, flavour.bin_dir, timing=TIMING, tls=flavour.tls) as cluster,
    ):
        yield Live(cluster, lab, cluster.operator_toml())


@asynccontextmanager
async def live(
    make_lab: Callable[[tuple[str, ...]], Lab], flavour: Flavour = FLAVOURS["15"]
) -> AsyncIterator[Live]:
    """The same, whole and with the application's database."""
    async with unborn(make_lab, flavour) as made:
        await made.cluster.start()
        await made.cluster.make_database()
        yield made
