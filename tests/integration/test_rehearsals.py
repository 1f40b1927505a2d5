"""Every rehearsal of the demo on a real cluster, and what must not be noticed at all.

Clients write all the while, and at the end of each test their ledger must be sound.
"""

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from flightmode.agent.clock import SystemClock
from flightmode.demo.asking import until_well
from flightmode.demo.cluster import DATABASES
from flightmode.demo.killing import alive
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.rehearsals import (
    HUNG,
    KILL,
    PARTITION,
    POWER,
    SWITCHOVER,
    Rehearsal,
    Stage,
    rehearse,
)
from tests.integration.live_cluster import (
    Live,
    acknowledged,
    errors_since,
    live,
    needs_servers,
    verdict_of,
)
from tests.integration.postgres_server import FLAVOURS, need

MISSING = NamespaceLab.missing()

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
    needs_servers,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[Live]:
    """One cluster for all: each test finds it whole, and leaves it whole."""
    async with live(LoopbackLab if MISSING else NamespaceLab) as made:
        yield made


@pytest.mark.parametrize(
    "rehearsal",
    [
        pytest.param(SWITCHOVER, id="switchover"),
        pytest.param(KILL, id="kill"),
        pytest.param(POWER, id="power"),
        pytest.param(
            PARTITION,
            id="partition",
            marks=[
                pytest.mark.hosts,
                pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
            ],
        ),
        pytest.param(HUNG, id="hung"),
    ],
)
async def test_another_node_takes_over_and_the_old_primary_comes_back(
    here: Live, rehearsal: Rehearsal
) -> None:
    await takes_over(here, rehearsal)


@pytest.mark.parametrize("major", ["18"])
async def test_a_killed_postmaster_of_another_version_without_tls_is_replaced(major: str) -> None:
    """PostgreSQL without TLS keeps all else as it is: etcd, the API and the heartbeats have it."""
    need(major)
    async with live(LoopbackLab, FLAVOURS[major]) as here:
        assert await here.sql("ams", "SHOW ssl") == [("off",)]
        (version,) = await here.sql("ams", "SHOW server_version")
        assert version[0].split(".")[0] == major
        await takes_over(here, KILL)


async def takes_over(here: Live, rehearsal: Rehearsal) -> None:
    """The rehearsal, with clients that write; at the end the cluster is whole again."""
    before = await here.whole()
    postmaster = here.cluster.postmaster(before.state.leader)
    async with here.clients() as workload:
        told: list[str] = []
        result = await rehearse(
            rehearsal, Stage(here.cluster, workload, SystemClock(), told.append)
        )
    after = await here.whole()
    assert after.state.term > before.state.term
    assert (after.state.leader, after.state.previous) == (before.standby, before.state.leader)
    assert after.state.sync == (before.state.leader,), "the old primary is promotable again"
    assert (result.before, result.after) == (before.state.leader, before.standby)
    assert result.acknowledged > 0
    assert result.gap_s < 30
    assert not alive(postmaster), "nobody runs as a primary of an older term"
    if rehearsal is PARTITION:
        assert result.note == "fenced itself"


# ------------------------------------------------------------------ what nobody may notice


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
@pytest.mark.parametrize("of", ["primary", "standby"])
async def test_no_client_notices_that_an_agent_died(
    here: Live, of: str, how: signal.Signals
) -> None:
    before = await here.whole()
    node = before.state.leader if of == "primary" else before.standby
    servers = {name: here.cluster.postmaster(name) for name in DATABASES}
    async with here.clients() as workload:
        began, backends = len(workload.history), await backends_of(here, before.state.leader)
        old = here.cluster.process(node, "agent")
        old.send_signal(how)
        assert await old.wait() == (-how if how is signal.SIGKILL else 0)
        await here.cluster.start_agent(node)
        await until_well(here.cluster, node)
        await acknowledged(workload)
        after = await here.whole()
        assert errors_since(workload, began) == []
        assert await backends_of(here, before.state.leader) == backends, "nobody reconnected"
    assert after.state.term == before.state.term
    assert {name: here.cluster.postmaster(name) for name in DATABASES} == servers


async def test_a_primary_whose_agent_stays_away_is_fenced_and_replaced(here: Live) -> None:
    before = await here.whole()
    node, postmaster = before.state.leader, here.cluster.postmaster(before.state.leader)
    async with here.clients():
        old = here.cluster.process(node, "agent")
        old.kill()
        await old.wait()
        await here.cluster.until(lambda p: p.state.term > before.state.term, "the standby to lead")
        assert not alive(postmaster), "fenced before anybody else led"
        await here.cluster.start_agent(node)
        after = await here.whole()
    assert (after.state.leader, after.state.sync) == (before.standby, (node,))


async def backends_of(here: Live, node: str) -> set[tuple[Any, ...]]:
    """The clients' backends, each by its pid and the time of its start."""
    mine = "SELECT pid, backend_start FROM pg_stat_activity WHERE application_name = '{}'"
    return set(await here.sql(node, mine.format("flightmode-ledger")))


# ------------------------------------------------------------------ the judge


async def test_the_ledger_finds_an_acknowledged_row_that_somebody_deleted(here: Live) -> None:
    async with here.writers() as workload:
        await acknowledged(workload, 50)
        await workload.stop()
        assert (await verdict_of(workload)).sound
        victim = workload.history[-1].row
        row = f"client = {victim.client} AND sequence = {victim.sequence}"
        await here.sql((await here.picture()).state.leader, f"DELETE FROM ledger WHERE {row}")
        verdict = await verdict_of(workload)
    assert not verdict.sound
    assert verdict.lost == (victim,)
    assert (verdict.duplicates, verdict.phantoms, verdict.imbalance) == ((), (), 0)
