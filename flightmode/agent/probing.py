"""The deep probe: does the primary take a new connection, and its disk a small write (S10)?

Looks over a kept connection see neither a hung postmaster nor a stalled disk: sessions that
stand go on.  It runs beside the loop, and all it waits for has an end.
"""

import asyncio
from collections.abc import Callable

import structlog

from flightmode.agent.bell import Bell
from flightmode.agent.clock import Clock
from flightmode.errors import FlightmodeError, ServerSilent
from flightmode.model.server import NOT_PROBED, Probe, Run
from flightmode.model.view import View
from flightmode.postgres.port import PROBE_S, Postgres

_log = structlog.get_logger("agent.probe")

EVERY_S = 1.0
_AGAIN_S = 0.1


class Prober:
    """Asks this node's primary, and remembers since when it has failed."""

    def __init__(self, clock: Clock, bell: Bell) -> None:
        self._clock = clock
        self._bell = bell
        self.seen = NOT_PROBED

    async def run(self, postgres: Postgres, last_view: Callable[[], View | None]) -> None:
        """Until cancelled."""
        while True:
            view = last_view()
            if view is None or view.server.run not in (Run.PRIMARY, Run.SILENT):
                self.seen = NOT_PROBED
                await asyncio.sleep(EVERY_S)
                continue
            await self._once(postgres)
            await asyncio.sleep(EVERY_S if self.seen.failing_since_s is None else _AGAIN_S)

    async def _once(self, postgres: Postgres) -> None:
        began_s = self._clock.now_s()
        try:
            await postgres.probe()
        except ServerSilent as failure:
            now_s = self._clock.now_s()
            # A machine that stood still meanwhile has not waited for all that time.
            since_s = max(began_s, now_s - 2 * PROBE_S)
            if self.seen.failing_since_s is not None:
                since_s = self.seen.failing_since_s
            else:
                _log.warning("Postgres fails its probe", why=str(failure))
            self.seen = Probe(since_s, str(failure))
            self._bell.ring()
        except FlightmodeError as failure:
            _log.debug("Postgres refuses its probe", why=str(failure))
            self.seen = NOT_PROBED
        else:
            self.seen = NOT_PROBED
