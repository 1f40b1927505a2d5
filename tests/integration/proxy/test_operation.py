"""How the proxy is run: settings read again, metrics, and an end that cuts nobody off."""

import asyncio
import os
import signal
import socket
import time
import urllib.request
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from proxy_bed import free_port

from flightmode.demo.cluster import APP, NODES, DemoCluster
from flightmode.demo.loopback import LoopbackLab
from flightmode.proxy.takeover import peer_of
from tests.integration.live_cluster import BIN, TIMING, Live, needs_servers, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
    needs_servers,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[Live]:
    """A cluster and a proxy, on loopback, so that its ports can be asked from here."""
    async with (
        LoopbackLab((*NODES, APP)) as lab,
        DemoCluster(lab, BIN, timing=TIMING) as cluster,
    ):
        toml = cluster.directory / "app.toml"
        port, metrics = free_port(), free_port()
        toml.write_text(
            toml.read_text().replace("[proxy]", f"[proxy]\nport = {port}\nmetrics_port = {metrics}")
        )
        await cluster.start()
        await cluster.make_database()
        yield Live(cluster, lab, cluster.operator_toml())


def setting(here: Live, name: str) -> int:
    toml = (here.cluster.directory / "app.toml").read_text()
    (line,) = [each for each in toml.splitlines() if each.startswith(f"{name} = ")]
    return int(line.partition("=")[2])


async def connect(
    here: Live, dbname: str = "ledger"
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    conninfo = here.cluster.proxied().replace("port=6432", f"port={setting(here, 'port')}")
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


def proxy_pid(here: Live) -> int:
    return here.pid(APP, "proxy")


async def test_metrics_tell_what_clients_did(here: Live) -> None:
    async with await connect(here) as link:
        for _ in range(7):
            await link.execute("SELECT 1")
        url = f"http://127.0.0.1:{setting(here, 'metrics_port')}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            text = answer.read().decode()
    samples = {
        (sample.name, sample.labels.get("database", ""), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["flightmode_proxy_has_primary", "", ""] == 1
    assert samples["flightmode_proxy_term", "", ""] == 1
    assert samples["flightmode_proxy_queries_total", "ledger", ""] >= 7
    assert samples["flightmode_proxy_logins_total", "", ""] >= 1
    whole = samples["flightmode_proxy_transaction_seconds_bucket", "ledger", "+Inf"]
    assert whole == samples["flightmode_proxy_transaction_seconds_count", "ledger", ""] >= 7


async def test_settings_that_are_read_again_drop_no_client(here: Live) -> None:
    toml = here.cluster.directory / "app.toml"
    before = toml.read_text()
    async with await connect(here) as link:
        await link.execute("SELECT 1")
        toml.write_text(before.replace("[proxy]", "[proxy]\nmax_clients = 1"))
        os.kill(proxy_pid(here), signal.SIGHUP)

        async def is_full() -> bool:
            try:
                await (await connect(here)).close()
            except psycopg.OperationalError as wrong:
                return "max_clients is 1" in str(wrong)
            return False

        await until(is_full, "the new limit to hold")
        await link.execute("SELECT 1")
        toml.write_text(before.replace("[proxy]", "[proxy]\nmax_clients = nonsense"))
        os.kill(proxy_pid(here), signal.SIGHUP)
        await until(
            lambda: "were not read again" in here.log(APP, "proxy"), "the mistake to be logged"
        )
        await link.execute("SELECT 1")
        toml.write_text(before)
        os.kill(proxy_pid(here), signal.SIGHUP)

        async def is_open() -> bool:
            return not await is_full()

        await until(is_open, "the old limit to hold again")


async def test_a_proxy_that_is_told_to_end_cuts_no_transaction_off(here: Live) -> None:
    idle, busy = await connect(here), await connect(here)
    await busy.execute("BEGIN")
    await busy.execute("CREATE TABLE IF NOT EXISTS ended (n int)")
    process = here.cluster.process(APP, "proxy")
    process.send_signal(signal.SIGTERM)

    async def is_shut() -> bool:
        try:
            await (await connect(here)).close()
        except psycopg.OperationalError:
            return True
        return False

    await until(is_shut, "nobody to be let in")
    assert process.returncode is None, "it waits for the transaction"
    await busy.execute("INSERT INTO ended VALUES (1)")
    await busy.execute("COMMIT")
    began_s = time.monotonic()
    async with asyncio.timeout(9):
        assert await process.wait() == 0
    assert time.monotonic() - began_s < 8
    for link in (idle, busy):
        with pytest.raises(psycopg.OperationalError):
            await link.execute("SELECT 1")
        await link.close()
    await here.cluster.start_proxy()

    async def is_back() -> bool:
        return not await is_shut()

    await until(is_back, "the proxy to listen again")
    async with await connect(here) as again:
        cursor = await again.execute("SELECT n FROM ended")
        assert await cursor.fetchall() == [(1,)]


async def keeps_writing(here: Live, told: asyncio.Event) -> int:
    """One client that writes all the time: how often it did."""
    count = 0
    async with await connect(here) as link:
        while not told.is_set():
            await link.execute("INSERT INTO handed VALUES (%s)", (count,))
            count += 1
    return count


async def handed(link: psycopg.AsyncConnection[tuple[object, ...]]) -> int:
    """How much has been written."""
    row = await (await link.execute("SELECT count(*) FROM handed")).fetchone()
    assert row is not None
    return int(str(row[0]))


async def keeps_coming(here: Live, told: asyncio.Event) -> int:
    """Clients that come, write and go."""
    count = 0
    while not told.is_set():
        async with await connect(here) as link:
            await link.execute("INSERT INTO handed VALUES (%s)", (-1,))
        count += 1
    return count


def heirs_pid(here: Live) -> int:
    """Who would be taken over now; 0: nobody, for this moment."""
    place = next((here.cluster.directory / APP).rglob("proxy-takeover.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        try:
            link.connect(str(place))
        except (ConnectionRefusedError, FileNotFoundError):
            return 0
        return peer_of(link)[0]


@pytest.mark.parametrize("how", ["a new process is started", "by a signal"])
async def test_a_proxy_is_replaced_and_nobody_between_transactions_notices(
    here: Live, how: str
) -> None:
    old = here.cluster.process(APP, "proxy")
    told = asyncio.Event()
    async with await connect(here) as first:
        await first.execute("CREATE TABLE IF NOT EXISTS handed (n int)")
        await first.execute("TRUNCATE handed")
    idle = [await connect(here) for _ in range(20)]
    for number, link in enumerate(idle):
        await link.execute(f"SET application_name = 'idle{number}'".encode())
    busy = await connect(here)
    await busy.execute("BEGIN")
    await busy.execute("INSERT INTO handed VALUES (-2)")
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(keeps_writing(here, told)) for _ in range(4)]
        comers = [tasks.create_task(keeps_coming(here, told)) for _ in range(2)]
        if how == "by a signal":
            os.kill(heirs_pid(here), signal.SIGUSR2)
        else:
            await here.cluster.start_proxy(take_over=True)

        async def is_replaced() -> bool:
            return heirs_pid(here) not in (0, before)

        before = old.pid
        await until(is_replaced, "another process to listen")
        async with await connect(here) as link:
            had = await handed(link)

            async def goes_on() -> bool:
                return await handed(link) > had + 20

            await until(goes_on, "traffic through the new one alone, beside the old one's rest")
        assert old.returncode is None, "it has a client in a transaction"
        await busy.execute("INSERT INTO handed VALUES (-2)")
        await busy.execute("COMMIT")
        async with asyncio.timeout(10):
            assert await old.wait() == 0
        told.set()
    wrote = sum([await task for task in writers])
    came = sum([await task for task in comers])
    assert wrote > 0
    assert came > 0
    for number, link in enumerate(idle):
        cursor = await link.execute("SHOW application_name")
        assert await cursor.fetchone() == (f"idle{number}",)
        await link.close()
    cursor = await busy.execute("SELECT count(*) FROM handed")
    assert await cursor.fetchone() == (wrote + came + 2,)
    await busy.close()
