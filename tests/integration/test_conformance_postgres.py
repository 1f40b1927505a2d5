"""The simulated Postgres does what the real one does: the same scripts on both, the same trace."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flightmode.model.server import Role, Run, Server
from simulator.weather import Weather, fair
from tests.integration.pairs import Pair, RealPair, Script, Stage, Trace, simulated
from tests.integration.postgres_server import Machine, installed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not installed("15"), reason="PostgreSQL 15 is not installed"),
]
WEATHERS = (fair(), Weather(linger_s=0.6, reload_s=0.2, copy_slow_s=6.0))


@pytest_asyncio.fixture
async def machine() -> AsyncIterator[Machine]:
    async with Machine("15") as machine:
        yield machine


async def a_commit_waits_for_who_is_named(pair: Pair) -> Trace:
    stage = Stage(pair)
    await stage.begin()
    trace = [await stage.add(1)]
    await stage.wait_for_fra()
    trace.append(await stage.add(2))
    await pair.end("fra", orderly=True)
    trace += [await stage.add(3), await stage.shows("ams", [1, 2])]
    await pair.hand("ams").set_sync_names(())
    return [*trace, await stage.told(3), await stage.shows("ams", [1, 2, 3])]


async def a_crash_makes_visible_what_waited(pair: Pair) -> Trace:
    stage = Stage(pair)
    await stage.begin()
    await stage.wait_for_fra()
    trace = [await stage.add(1)]
    await pair.end("fra", orderly=True)
    trace += [await stage.add(2), await stage.shows("ams", [1])]
    await pair.end("ams", orderly=False)
    trace.append(await stage.told(2))
    await stage.start("ams", Role.PRIMARY)
    return [*trace, await stage.shows("ams", [1, 2])]


async def a_detach_ends_what_is_acknowledged(pair: Pair) -> Trace:
    stage = Stage(pair)
    await stage.begin()
    await stage.wait_for_fra()
    trace = [await stage.add(1)]
    await _detach(stage)
    trace += [await stage.add(2), await _promote(stage), await stage.shows("fra", [1])]
    trace += [await stage.add(3, to="fra"), await stage.told(2), await stage.shows("ams", [1])]
    return trace


async def a_primary_that_went_too_far_is_rewound(pair: Pair) -> Trace:
    stage = Stage(pair)
    await stage.begin()
    await stage.wait_for_fra()
    trace = [await stage.add(1)]
    await _detach(stage)
    trace += [await stage.add(2), await _promote(stage)]
    await pair.end("ams", orderly=False)
    trace.append(await stage.told(2))
    await pair.hand("fra").prepare(("ams",))
    await pair.hand("ams").rewind("fra")
    await stage.start("ams", Role.STANDBY, "fra")
    await stage.streams("ams", "fra")
    trace += [await stage.add(3, to="fra"), await stage.shows("ams", [1, 3])]
    return [*trace, _history(await pair.observe("ams"))]


async def a_clean_stop_leaves_nothing_behind(pair: Pair) -> Trace:
    """S7: the standby has flushed more than where the shutdown checkpoint begins."""
    stage = Stage(pair)
    await stage.begin()
    trace = [await stage.add(1)]
    await pair.end("ams", orderly=True)
    stopped = await pair.observe("ams")
    assert stopped.data is not None
    begins = stopped.data.position
    await stage.until("fra", lambda seen: seen.position > begins)
    trace.append(f"{stopped.data.control_state}, was primary: {stopped.data.was_primary}")
    await _detach(stage)
    trace.append(await _promote(stage))
    await pair.hand("fra").prepare(("ams",))
    await stage.start("ams", Role.STANDBY, "fra")
    await stage.streams("ams", "fra")
    return [*trace, await stage.add(2, to="fra"), await stage.shows("ams", [1, 2])]


async def _detach(stage: Stage) -> None:
    await stage.pair.hand("fra").detach()
    await stage.until("fra", lambda seen: seen.receiver is None and seen.following is None)


async def _promote(stage: Stage) -> str:
    await stage.pair.hand("fra").promote()
    return "fra: " + _history(await stage.until("fra", lambda seen: seen.run is Run.PRIMARY))


def _history(seen: Server) -> str:
    assert seen.history is not None
    return f"timeline {seen.history.timeline} of {[s.timeline for s in seen.history.ancestors]}"


SCRIPTS: dict[Script, Trace] = {
    a_commit_waits_for_who_is_named: [
        "1 acknowledged",
        "2 acknowledged",
        "3 waits",
        "ams shows [1, 2]",
        "3 acknowledged",
        "ams shows [1, 2, 3]",
    ],
    a_crash_makes_visible_what_waited: [
        "1 acknowledged",
        "2 waits",
        "ams shows [1]",
        "2 broken",
        "ams shows [1, 2]",
    ],
    a_detach_ends_what_is_acknowledged: [
        "1 acknowledged",
        "2 waits",
        "fra: timeline 2 of [1]",
        "fra shows [1]",
        "3 acknowledged",
        "2 waits",
        "ams shows [1]",
    ],
    a_primary_that_went_too_far_is_rewound: [
        "1 acknowledged",
        "2 waits",
        "fra: timeline 2 of [1]",
        "2 broken",
        "3 acknowledged",
        "ams shows [1, 3]",
        "timeline 2 of [1]",
    ],
    a_clean_stop_leaves_nothing_behind: [
        "1 acknowledged",
        "shut down, was primary: True",
        "fra: timeline 2 of [1]",
        "2 acknowledged",
        "ams shows [1, 2]",
    ],
}
NAMES = [script.__name__ for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
async def test_the_real_one(script: Script, machine: Machine) -> None:
    assert await script(RealPair(machine)) == SCRIPTS[script]


@pytest.mark.parametrize("weather", WEATHERS, ids=["fair", "lingering"])
@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_the_simulated_one(script: Script, weather: Weather) -> None:
    for seed in range(20):
        assert simulated(script, seed, weather) == SCRIPTS[script], f"seed {seed}"
