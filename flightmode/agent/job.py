"""The one long job of a node: a clone, a rewind, a start, a stop.

The loop goes on beside it (renewals must not wait), sees it in the next view, and
learns how it ended from there.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from flightmode.agent.bell import Bell
from flightmode.agent.clock import Clock
from flightmode.errors import AgentError, FlightmodeError
from flightmode.model.view import Job, JobResult

_log = structlog.get_logger("agent.job")


class Busy(AgentError):
    """Another job runs; this one is not begun."""

    code = "FM620"
    retry = True


class JobRunner:
    """Runs at most one job at a time and remembers the last result of each kind."""

    def __init__(self, clock: Clock, bell: Bell) -> None:
        self._clock = clock
        self._bell = bell
        self._task: asyncio.Task[None] | None = None
        self._results: dict[str, JobResult] = {}
        self.running: Job | None = None

    @property
    def results(self) -> tuple[JobResult, ...]:
        return tuple(self._results.values())

    def begin(self, kind: str, term: int, work: Coroutine[Any, Any, object]) -> None:
        """Start `work`.  Raises Busy (and closes `work`) when another job runs."""
        if self.running is not None:
            work.close()
            raise Busy(f"{self.running.kind} is under way; {kind} has to wait")
        self.running = Job(kind, term, self._clock.now_s())
        self._task = asyncio.create_task(self._run(self.running, work), name=f"job {kind}")

    async def _run(self, job: Job, work: Coroutine[Any, Any, object]) -> None:
        error: str | None = None
        try:
            await work
        except FlightmodeError as failure:
            error = str(failure)
            _log.error("job failed", job=job.kind, term=job.term, error=error)
        except Exception as failure:
            error = f"FM699: {type(failure).__name__}: {failure}"
            _log.exception("job failed in a way nobody foresaw", job=job.kind, term=job.term)
        finally:
            self._results[job.kind] = JobResult(job.kind, job.term, self._clock.now_s(), error)
            self.running = None
            self._bell.ring()

    async def cancel(self) -> None:
        """Cancel what runs and wait until it is gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
