"""Keeps the peer lease: what this node has promised, and what was promised to it (S6).

It answers beside the loop, because a look takes a second while etcd is silent and the fence's
deadline comes nearer.  A promise and a claim never cross: who is about to claim, or in doubt
of a claim, promises nothing, and who has promised does not send a claim.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from flightmode.agent.clock import Clock
from flightmode.agent.steady import Steadiness
from flightmode.decide.lease import leased_until_s, promised_for_s, promises, whom_to_ask
from flightmode.errors import FenceError
from flightmode.fence.port import Fence
from flightmode.model.cluster import ClusterState
from flightmode.model.lease import Leased
from flightmode.model.policy import Policy
from flightmode.store.tracker import Tracker

_log = structlog.get_logger("agent.lease")

LONG_AGO_S = -1e9
# A deadline that moved by less is not worth a datagram.
_WORTH_S = 0.3


class LeaseBook:
    """One node's, for one life of its agent; implements `flightmode.pulse.port.Leases`."""

    def __init__(self, me: str, policy: Policy, tracker: Tracker, clock: Clock) -> None:
        self._me = me
        self._policy = policy
        self._tracker = tracker
        self._clock = clock
        self.steady = Steadiness(clock)
        self._claiming = False
        self.alone = True
        """No other machine carries this node's name: a promise is not another one's to break."""
        self._news = asyncio.Event()
        self.telling = asyncio.Lock()
        """Held while the fence is told until when: what was decided later must arrive later."""
        self.granted_until_s = LONG_AGO_S
        """Until then, by our clock, this node has promised not to claim."""
        self.leased: Leased | None = None
        """The best promise that this node has in hand."""

    # ------------------------------------------------------------------ promising

    def asked(self, node: str, term: int) -> float | None:
        """For how long we promise `node` not to claim; None: we don't.  The promise stands."""
        if (
            self._claiming
            or not self.alone
            or not promises(self._tracker.view, self._me, node, term)
        ):
            return None
        for_s = promised_for_s(self._tracker.state, self._policy)
        until_s = self._clock.now_s() + for_s
        if until_s - self.granted_until_s > 2 * for_s:
            _log.info("promising not to take over while etcd is silent", leader=node, term=term)
        self.granted_until_s = max(self.granted_until_s, until_s)
        return for_s

    @property
    def in_hand(self) -> Leased | None:
        """The same, unless this machine has stood still since it was asked for."""
        leased, since_s = self.leased, self.steady.look()
        return None if leased is None or leased.sent_s < since_s else leased

    @property
    def promised(self) -> bool:
        """A promise of ours stands now."""
        return self._clock.now_s() < self.granted_until_s

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """While a claim of ours is under way; what is unknown after it is in doubt (S1)."""
        self._claiming = True
        try:
            yield
        finally:
            self._claiming = False

    # ------------------------------------------------------------------ being promised

    def wish(self) -> tuple[int, tuple[str, ...]] | None:
        """For which term we would like a promise, and whose; None: for none."""
        state = self._tracker.state
        whom = whom_to_ask(state, self._me)
        return (state.term, whom) if state is not None and whom else None

    def granted(self, leased: Leased) -> None:
        """A promise has arrived."""
        known = self.leased
        newer = known is None or (known.term, known.sent_s) < (leased.term, leased.sent_s)
        if newer:
            self.leased = leased
            self._news.set()

    def _alone(self, term: int) -> bool:
        """Mode solo was confirmed, also when no look has seen it yet: no deadline (I6)."""
        renewed = self._tracker.renewed
        return renewed is not None and renewed.term == term and renewed.solo

    async def extend(self, fence: Fence) -> None:
        """Tell the fence of promises as they come, until cancelled."""
        told_s = LONG_AGO_S
        while True:
            await self._news.wait()
            self._news.clear()
            async with self.telling:
                told_s = await self._tell(fence, told_s)

    def _until_s(self, state: ClusterState) -> float | None:
        """Until when the promise in hand lets Postgres run; a pause that lasts longer does (I7)."""
        until_s = leased_until_s(state, self.in_hand, self._policy)
        if until_s is None or state.pause is None:
            return until_s
        return max(until_s, self._clock.now_s() + state.pause.until_wall_s - self._clock.wall_s())

    async def _tell(self, fence: Fence, told_s: float) -> float:
        """Until when the fence has been told, after it has heard of the newest promise."""
        state = self._tracker.state
        until_s = None
        if state is not None and state.leader == self._me and not self._alone(state.term):
            until_s = self._until_s(state)
        if state is None or until_s is None or until_s - told_s < _WORTH_S:
            return told_s
        try:
            await fence.extend(state.term, until_s)
        except FenceError as failure:
            _log.info("the fence does not take a peer's promise", why=str(failure))
            return told_s
        return until_s
