"""The proxy as it is shipped, on hosts of their own: told everything by flightmode.toml.

Beside an application with `[proxy.auth_query]`, and on the database nodes themselves, where it
goes by the node's own certificate and files.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flightmode.config.derive import locations_of
from flightmode.demo.cluster import APP, DATABASES, NODES, DemoCluster
from flightmode.demo.command import run_beside
from flightmode.demo.namespaces import NamespaceLab
from tests.integration.live_cluster import BIN, TIMING, Live, Ran, needs_servers, until

MISSING = NamespaceLab.missing()

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
    needs_servers,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

Link = psycopg.AsyncConnection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, an application's host, and a proxy on that and on each database node."""

    live: Live

    @property
    def cluster(self) -> DemoCluster:
        return self.live.cluster

    def toml(self, host: str) -> Path:
        return self.cluster.directory / f"{host}.toml"

    async def start_proxy(self, host: str) -> None:
        argv = [*self._as_owner(), *self._types("proxy", host)]
        log = self.live.home(host) / "proxy.log"
        process = await self.live.lab.spawn(host, argv, log=log)

        async def comes_in() -> bool:
            assert process.returncode is None, log.read_text()
            return await self.is_let_in(host, **self.app())

        await until(comes_in, f"the proxy on {host}", 60)

    async def check(self, host: str) -> Ran:
        """`flightmode proxy check`, there."""
        argv = [
            *self.live.lab.prefix(host),
            *self._as_owner(),
            *self._types("proxy", host, "check"),
        ]
        process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    def _types(self, verb: str, host: str, *words: str) -> list[str]:
        config = ["--config", str(self.toml(host))]
        return [sys.executable, "-m", "flightmode.cli.main", verb, *words, *config]

    def _as_owner(self) -> list[str]:
        """As the user of the node's files; a checkout may be root's own."""
        owner = self.live.home(APP).stat()
        argv = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
        return [*argv, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]

    def app(self) -> dict[str, str]:
        """Who is in the users file."""
        told = conninfo_to_dict(self.cluster.proxied())
        return {name: str(told[name]) for name in ("user", "password")}

    async def connect(self, host: str, **who: str) -> Link:
        """By the proxy on that host, through its socket file."""
        where = {"host": str(self.live.home(host) / "run"), "port": "6432", "dbname": "ledger"}
        return await psycopg.AsyncConnection.connect(
            make_conninfo(**who, **where), autocommit=True, connect_timeout=10
        )

    async def is_let_in(self, host: str, **who: str) -> bool:
        try:
            await (await self.connect(host, **who)).close()
        except psycopg.OperationalError:
            return False
        return True

    async def as_superuser(self, *statements: str) -> None:
        """At the primary, as a person would: locally."""
        picture = await self.live.whole()
        where = locations_of(self.cluster.config, picture.state.leader).socket_dir
        psql = [str(BIN / "psql"), f"--host={where}", "--no-psqlrc", "--username=postgres"]
        commands = [f"--command={statement}" for statement in statements]
        await run_beside([*self._as_owner(), *psql, "--dbname=postgres", *commands])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with (
        NamespaceLab((*NODES, APP)) as lab,
        DemoCluster(lab, BIN, timing=TIMING) as cluster,
    ):
        made = Site(Live(cluster, lab, cluster.operator_toml()))
        of_nodes = (cluster.directory / "flightmode.toml").read_text()
        for node in DATABASES:
            made.toml(node).write_text(f'{of_nodes}[proxy]\nsocket_dir = "{node}/run"\n')
        secret = made.live.home(APP) / "secrets/asker"
        secret.write_text("asks\n")
        secret.chmod(0o600)
        os.chown(secret, made.live.home(APP).stat().st_uid, -1)
        with made.toml(APP).open("a") as toml:
            toml.write(f'[proxy.auth_query]\nuser = "asker"\nsecret_file = "{secret}"\n')
        await cluster.start()
        await cluster.make_database()
        await made.as_superuser(
            "CREATE ROLE asker LOGIN PASSWORD 'asks'",
            "GRANT SELECT ON pg_authid TO asker",
            "CREATE ROLE bob LOGIN PASSWORD 'first'",
        )
        yield made


async def value(link: Link, sql: str) -> object:
    row = await (await link.execute(sql.encode())).fetchone()
    assert row is not None
    return row[0]


async def test_auth_query_of_the_file_lets_in_whom_the_database_knows(site: Site) -> None:
    async with await site.connect(APP, user="bob", password="first") as bob:
        assert await value(bob, "SELECT current_user") == "bob"
    async with await site.connect(APP, **site.app()) as app:
        assert await value(app, "SELECT current_user") == "app", "the users file goes first"
    for user, word in (("bob", "wrong"), ("nobody", "first"), ("asker", "")):
        with pytest.raises(psycopg.OperationalError):
            await site.connect(APP, user=user, password=word)
    await site.as_superuser("ALTER ROLE bob PASSWORD 'second'")

    async def is_known() -> bool:
        return await site.is_let_in(APP, user="bob", password="second")

    await until(is_known, "the new password to be known")
    assert not await site.is_let_in(APP, user="bob", password="first")
    await site.as_superuser("ALTER ROLE bob NOLOGIN")

    async def is_shut_out() -> bool:
        return not await site.is_let_in(APP, user="bob", password="second")

    await until(is_shut_out, "a role without LOGIN to be refused")
    await site.as_superuser("ALTER ROLE bob LOGIN")


async def test_a_secret_of_auth_query_that_anybody_may_read_is_refused(site: Site) -> None:
    assert (await site.check(APP)).status == 0
    secret = site.live.home(APP) / "secrets/asker"
    secret.chmod(0o644)
    try:
        ran = await site.check(APP)
        assert ran.status == 77
        assert str(secret) in ran.out + ran.err
    finally:
        secret.chmod(0o600)


async def test_auth_query_asks_the_new_primary_after_a_switchover(site: Site) -> None:
    picture = await site.live.whole()
    await site.as_superuser("CREATE ROLE carol LOGIN PASSWORD 'carols'")
    await site.live.done("switchover", "--to", picture.standby)
    await site.as_superuser("ALTER ROLE carol PASSWORD 'changed'")
    async with await site.connect(APP, user="carol", password="changed") as carol:
        assert await value(carol, "SELECT pg_is_in_recovery()") is False


async def test_a_proxy_on_each_node_leads_to_the_primary_and_holds_through_its_loss(
    site: Site,
) -> None:
    lost = (await site.live.whole()).state.leader
    (stays,) = (node for node in DATABASES if node != lost)
    for node in DATABASES:
        assert "it will listen on" in (await site.check(node)).out
        await site.start_proxy(node)
    async with await site.connect(lost, **site.app()) as link:
        await link.execute("CREATE TABLE beside (who text)")
    idle = [await site.connect(stays, **site.app()) for _ in range(3)]
    for link in idle:
        assert await value(link, "SELECT pg_is_in_recovery()") is False, "not of its own node"
    await site.live.lab.power_loss(lost)

    async def asks(link: Link) -> None:
        # Nobody knows of the loss yet: a write that is sent there at once would be in doubt.
        await value(link, "SELECT count(*) FROM beside")
        await link.execute("INSERT INTO beside VALUES ('held')")

    async def comes() -> None:
        async with await site.connect(stays, **site.app()) as link:
            await asks(link)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for link in idle:
            tasks.create_task(asks(link))
        tasks.create_task(comes())
    await site.cluster.power_on(lost)
    await site.live.whole()
    await site.start_proxy(lost)
    async with await site.connect(lost, **site.app()) as link:
        assert await value(link, "SELECT count(*) FROM beside") == 4
        assert await value(link, "SELECT pg_is_in_recovery()") is False
    for link in idle:
        await link.close()
