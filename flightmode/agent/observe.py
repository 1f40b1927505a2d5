"""Build a View: the store, the fence and Postgres, looked at together."""

import asyncio
from dataclasses import dataclass

import structlog

from flightmode.agent.hands import Hands
from flightmode.agent.job import JobRunner
from flightmode.agent.lease import LeaseBook
from flightmode.agent.probing import Prober
from flightmode.errors import FenceError
from flightmode.model.heartbeat import Listening
from flightmode.model.member import Node
from flightmode.model.memory import Memory
from flightmode.model.policy import Policy
from flightmode.model.server import FenceView, Run, Server
from flightmode.model.view import StoreView, View
from flightmode.store.tracker import Tracker

_log = structlog.get_logger("agent.observe")

_NO_FENCE = FenceView(reachable=False)
_NO_SERVER = Server(Run.ABSENT)
_NO_PULSE = Listening(deaf="there is no key for heartbeats")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is."""

    node: Node
    machine: str
    version: str


class Observer:
    """Looks; never changes anything, never raises for a sick world."""

    def __init__(
        self,
        identity: Identity,
        policy: Policy,
        hands: Hands,
        tracker: Tracker,
        jobs: JobRunner,
        leases: LeaseBook,
        prober: Prober,
    ) -> None:
        self._identity = identity
        self._hands = hands
        self._tracker = tracker
        self._jobs = jobs
        self._leases = leases
        self._prober = prober
        self.policy = policy
        self.ending = False

    async def view(self, memory: Memory) -> View:
        """This moment, with what is remembered."""
        # Before the looks: a job that ends during them is still under way in what they saw.
        job, results = self._jobs.running, self._jobs.results
        store, (fence, server) = await self._both()
        clock, pulse = self._hands.clock, self._hands.pulse
        renewed, since_s = self._tracker.renewed, self._leases.steady.look()
        return View(
            now_s=clock.now_s(),
            wall_s=clock.wall_s(),
            me=self._identity.node,
            machine=self._identity.machine,
            version=self._identity.version,
            policy=self.policy,
            store=store,
            server=server,
            fence=fence,
            renewed=None if renewed is None or renewed.sent_s < since_s else renewed,
            job=job,
            results=results,
            memory=memory,
            listening=_NO_PULSE if pulse is None else pulse.listening(),
            probe=self._prober.seen,
            leased=self._leases.in_hand,
            granted_until_s=self._leases.granted_until_s,
            ending=self.ending,
        )

    async def _both(self) -> tuple[StoreView, tuple[FenceView, Server]]:
        """At the same time: a store that does not answer makes nothing older that is here."""
        local = asyncio.create_task(self._local())
        try:
            return await self._tracker.read(), await local
        finally:
            local.cancel()

    async def _local(self) -> tuple[FenceView, Server]:
        fence, postgres = self._hands.fence, self._hands.postgres
        if fence is None or postgres is None:
            return _NO_FENCE, _NO_SERVER
        try:
            seen = await fence.status()
        except FenceError:
            seen = _NO_FENCE
        try:
            return seen, await postgres.observe(seen)
        except Exception:
            # Whatever is wrong with the look, the store has to be talked to all the same.
            _log.exception("Postgres can't be looked at")
            return seen, Server(Run.SILENT)
