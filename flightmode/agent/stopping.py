"""A planned stop of Postgres that cannot hang (S5).

Where clients are not to notice, the proxies have been told: they begin nothing more, and what is
under way gets a moment to end.  The time for that is short, for one open transaction of a client
that sleeps would hold up all others.

Fast shutdown waits for walsenders that never confirm and for an archiver that never
ends; after `patience_s` the former are ended, and after as long again Postgres is
stopped the way a fence would.
"""

import asyncio

import structlog

from flightmode.agent.clock import Clock
from flightmode.errors import AgentError, PostgresError
from flightmode.fence.port import Fence
from flightmode.model.action import StopPostgres
from flightmode.postgres.port import Postgres

_log = structlog.get_logger("agent.stopping")

_POLL_S = 0.003
_KILLED_AFTER_S = 5.0


class NotStopped(AgentError):
    """Postgres is still there after everything was tried."""

    code = "FM623"
    hint = "flightmode logs --postgres"


async def stop_postgres(
    action: StopPostgres, postgres: Postgres, fence: Fence, clock: Clock
) -> None:
    """Until nothing of Postgres runs.  Raises NotStopped."""
    if not action.fast:
        await _stop(fence, clock, "immediate", _KILLED_AFTER_S)
        return
    if action.settle_s > 0:
        await _settled(postgres, action.settle_s)
    if await _stop_within(fence, clock, "fast", action.patience_s):
        return
    await postgres.end_walsenders(())
    if await _stop_within(fence, clock, "fast", action.patience_s):
        return
    await _stop(fence, clock, "immediate", _KILLED_AFTER_S)


async def _settled(postgres: Postgres, within_s: float) -> None:
    try:
        await postgres.settle(within_s)
    except PostgresError as failure:
        # Whoever does not answer has to be stopped all the more.
        _log.info("clients are not waited for", why=str(failure))


async def _stop(fence: Fence, clock: Clock, mode: str, patience_s: float) -> None:
    if await _stop_within(fence, clock, mode, patience_s):
        return
    await fence.kill()
    if not await _gone(fence, clock, _KILLED_AFTER_S):
        raise NotStopped("Postgres does not end, not even by SIGKILL: is its disk stalled?")


async def _stop_within(fence: Fence, clock: Clock, mode: str, patience_s: float) -> bool:
    status = await fence.status()
    if status.running:
        await fence.stop(mode)
    return await _gone(fence, clock, patience_s)


async def _gone(fence: Fence, clock: Clock, patience_s: float) -> bool:
    """Whether everything has ended within the time.  Only a positive sign counts."""
    until_s = clock.now_s() + patience_s
    while True:
        status = await fence.status()
        if not status.running and status.tree_empty:
            return True
        if clock.now_s() >= until_s:
            return False
        await asyncio.sleep(_POLL_S)
