"""The programs of docs/how-to, run as they stand there while the database fails over."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flightmode.agent.clock import SystemClock
from flightmode.demo.cluster import APP, NODES, DemoCluster
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.proxied import Application, Seen
from flightmode.demo.rehearsals import KILL, SWITCHOVER, Stage, rehearse
from tests.integration.live_cluster import BIN, TIMING, Live, needs_servers, until

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
PROGRAMS = ("psycopg", "asyncpg", "sqlalchemy", "django")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
    needs_servers,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[Live]:
    """A cluster with an application's host, and the proxy on it."""
    make_lab = LoopbackLab if NamespaceLab.missing() else NamespaceLab
    async with (
        make_lab((*NODES, APP)) as lab,
        DemoCluster(lab, BIN, timing=TIMING) as cluster,
    ):
        await cluster.start()
        await cluster.make_database()
        yield Live(cluster, lab, cluster.operator_toml())


def program(name: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (HOW_TO / f"{name}.md").read_text(), re.DOTALL)
    return str(code)


async def tables(here: Live) -> set[str]:
    leader = (await here.picture()).state.leader
    found = await here.sql(leader, "SELECT relname FROM pg_class WHERE relname LIKE '%_orders'")
    return {str(name) for (name,) in found}


async def test_an_application_notices_nothing_of_a_failover(here: Live, tmp_path: Path) -> None:
    """All four at once; what each counted as placed is in the database, once, and nothing else."""
    url = here.cluster.proxied_url()
    running: dict[str, asyncio.subprocess.Process] = {}
    try:
        for name in PROGRAMS:
            path = tmp_path / f"{name}_orders.py"
            path.write_text(program(name))
            running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                path,
                env={**os.environ, "DATABASE_URL": url},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )

        async def all_live() -> None:
            dead = [name for name, each in running.items() if each.returncode is not None]
            assert not dead, [await running[name].communicate() for name in dead]

        async def all_write() -> bool:
            await all_live()
            return await tables(here) == {f"{name}_orders" for name in PROGRAMS}

        await until(all_write, "four programs to write")
        async with Application(here.cluster.proxied(), writers=2) as others:
            await others.prepare()
            others.start()
            stage = Stage(here.cluster, others, SystemClock(), print)
            killed, switched = [await rehearse(each, stage) for each in (KILL, SWITCHOVER)]
            await others.stop()
        await all_live()
        assert killed.errors is not None
        assert killed.errors.as_promised
        assert switched.errors == Seen(0, 0, 0, ()), "who is in a transaction may end it"
        for each in running.values():
            each.send_signal(signal.SIGTERM)
        said = {name: await each.communicate() for name, each in running.items()}
    finally:
        for each in running.values():
            if each.returncode is None:
                each.kill()
                await each.wait()
    assert {name: errors for name, (_, errors) in said.items() if errors} == {}
    leader = (await here.whole()).state.leader
    for name, (out, _) in said.items():
        placed = int(out)
        assert placed > 50, name
        query = f"SELECT count(*), count(DISTINCT id), max(id) FROM {name}_orders"
        assert await here.sql(leader, query) == [(placed, placed, placed - 1)]
        stock = await here.sql(leader, f"SELECT -pieces FROM {name}_stock")
        assert stock == [(placed,)], name


async def test_the_check_of_the_proxy_says_what_it_would_do(here: Live) -> None:
    toml = here.cluster.directory / "app.toml"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flightmode.cli.main", "proxy", "check", "--config", toml),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"it will listen on 127.0.0.1:6432" in out
    assert b"servers: ams, fra" in out
