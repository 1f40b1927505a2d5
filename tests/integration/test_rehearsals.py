"""Every rehearsal of the demo on a real cluster, and what must not be noticed at all.

Clients write all the while, and at the end of each test their ledger must be sound.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flightmode.agent.clock import SystemClock
from flightmode.demo.loopback import LoopbackLab
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.rehearsals import (
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
    live,
    needs_servers,
)

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
    ],
)
async def test_another_node_takes_over_and_the_old_primary_comes_back(
    here: Live, rehearsal: Rehearsal
) -> None:
    before = await here.whole()
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
    if rehearsal is PARTITION:
        assert result.note == "fenced itself"
