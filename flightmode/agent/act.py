"""Carry out what was decided: one match over every verb.

Before an act the world is asked again whether the act still fits: the term may have
changed since the view was taken.  When one action of a decision fails, the ones after
it are left out; the next look decides anew.
"""

from dataclasses import dataclass
from typing import assert_never

import structlog

from flightmode.agent.hands import Hands
from flightmode.agent.job import JobRunner
from flightmode.agent.lease import LeaseBook
from flightmode.agent.stopping import stop_postgres
from flightmode.errors import AgentError, FlightmodeError
from flightmode.fence.port import Fence, StartRequest
from flightmode.model import action as verbs
from flightmode.model.action import Action
from flightmode.model.cluster import Mode, Outcome
from flightmode.model.decision import Decision
from flightmode.model.server import Role
from flightmode.model.view import JobKind, Renewed
from flightmode.postgres.port import Postgres
from flightmode.store import codec, keys
from flightmode.store.port import Compare, Delete, Put
from flightmode.store.tracker import Tracker

_log = structlog.get_logger("agent.act")

# So many changes of leader are kept.
_HISTORY = 200


class Stale(AgentError):
    """The term changed between the decision and the act."""

    code = "FM621"
    retry = True


class Lost(AgentError):
    """Somebody else changed the state first: nothing was written."""

    code = "FM622"
    retry = True


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one action: error None, it was carried out (a job: begun)."""

    action: Action
    error: str | None


class Executor:
    """The hands' one user."""

    def __init__(
        self, me: str, hands: Hands, tracker: Tracker, jobs: JobRunner, leases: LeaseBook
    ) -> None:
        self._me = me
        self._hands = hands
        self._state_key = keys.state(hands.cluster)
        self._member_key = keys.member(hands.cluster, me)
        self._tracker = tracker
        self._jobs = jobs
        self._leases = leases
        self._steady_since_s = leases.steady.since_s

    async def act(self, decision: Decision) -> tuple[Done, ...]:
        """Each action in order, up to the first that fails."""
        outcomes: list[Done] = []
        self._steady_since_s = self._leases.steady.since_s
        for action in decision.actions:
            try:
                await self._one(action)
            except FlightmodeError as failure:
                outcomes.append(Done(action, str(failure)))
                _log.info("not done", action=type(action).__name__, why=str(failure))
                break
            except Exception as failure:
                # A full disk under one file must not end the renewals of a healthy primary.
                outcomes.append(Done(action, f"FM699: {type(failure).__name__}: {failure}"))
                _log.exception(
                    "not done, for a reason nobody foresaw", action=type(action).__name__
                )
                break
            outcomes.append(Done(action, None))
        return tuple(outcomes)

    async def _one(self, action: Action) -> None:
        match action:
            case verbs.SwapState(purpose="claim"):
                await self._claim(action)
            case verbs.SwapState():
                await self._swap(action)
            case verbs.Publish():
                put = Put(self._member_key, codec.dump(action.member))
                await self._hands.store.commit((), (put,))
            case verbs.FinishRequest():
                await self._finish(action)
            case verbs.ExtendFence():
                self._awake(self._steady_since_s)
                async with self._leases.telling:
                    await self._fence.extend(action.term, action.deadline_s)
            case verbs.LiftFence():
                async with self._leases.telling:
                    await self._fence.lift(action.term)
            case verbs.FencePostgres():
                _log.warning("fencing Postgres", why=action.why, term=action.term)
                await self._fence.void()
            case verbs.KillRemnants():
                await self._fence.kill()
            case verbs.Promote():
                await self._promote(action)
            case verbs.Detach():
                self._still(action.term)
                await self._postgres.detach()
            case verbs.Follow():
                self._still(action.term)
                await self._postgres.follow(action.leader)
            case verbs.Admit():
                self._leading(action.term)
                await self._postgres.admit()
            case verbs.SetSyncNames(names=()):
                self._leading(action.term)
                await self._postgres.set_sync_names(())
            case _:
                self._begin(action)

    def _begin(self, action: Action) -> None:
        """The verbs that take long: a job each."""
        postgres = self._postgres
        match action:
            case verbs.Initdb():
                self._jobs.begin(JobKind.INITDB, 0, postgres.initdb())
            case verbs.StartPostgres():
                self._still(action.term)
                work = self._start(action, self._steady_since_s)
                self._jobs.begin(JobKind.START, action.term, work)
            case verbs.StopPostgres():
                work = stop_postgres(action, postgres, self._fence, self._hands.clock)
                self._jobs.begin(JobKind.STOP, action.term, work)
            case verbs.SetSyncNames():
                self._leading(action.term)
                work_ = postgres.set_sync_names(action.names)
                self._jobs.begin(JobKind.SYNC_NAMES, action.term, work_)
            case verbs.Prepare():
                self._leading(action.term)
                self._jobs.begin(JobKind.PREPARE, action.term, postgres.prepare(action.slots))
            case verbs.ApplySettings():
                self._jobs.begin(JobKind.SETTINGS, action.term, postgres.apply_settings())
            case verbs.Checkpoint():
                self._jobs.begin(JobKind.CHECKPOINT, action.term, postgres.checkpoint())
            case verbs.Clone():
                self._still(action.term)
                self._jobs.begin(JobKind.CLONE, action.term, postgres.clone(action.leader))
            case verbs.Rewind():
                self._still(action.term)
                self._jobs.begin(JobKind.REWIND, action.term, postgres.rewind(action.leader))
            case (
                verbs.SwapState()
                | verbs.Publish()
                | verbs.FinishRequest()
                | verbs.ExtendFence()
                | verbs.LiftFence()
                | verbs.FencePostgres()
                | verbs.KillRemnants()
                | verbs.Promote()
                | verbs.Detach()
                | verbs.Follow()
                | verbs.Admit()
            ):
                raise AssertionError(f"{type(action).__name__} is no job")
            case never:
                assert_never(never)

    # -------------------------------------------------------------- preconditions

    def _still(self, term: int) -> None:
        state = self._tracker.state
        if state is None or state.term != term:
            raise Stale(f"decided in term {term}, which is over")

    def _leading(self, term: int) -> None:
        self._still(term)
        state = self._tracker.state
        if state is None or state.leader != self._me:
            raise Stale(f"{self._me} does not lead term {term}")

    def _awake(self, since_s: float) -> None:
        """S1: a deadline that was counted before this machine stood still is over already."""
        if self._leases.steady.look() != since_s:
            raise Stale("this machine has stood still since that was decided")

    @property
    def _postgres(self) -> Postgres:
        if self._hands.postgres is None:
            raise AgentError("this node has no database")
        return self._hands.postgres

    @property
    def _fence(self) -> Fence:
        if self._hands.fence is None:
            raise AgentError("this node has no database, so no fence")
        return self._hands.fence

    # -------------------------------------------------------------- the store

    async def _claim(self, action: verbs.SwapState) -> None:
        """A promise to the leader of before may have been given since the view was taken (S6)."""
        state = self._tracker.state
        offered = state is not None and state.handover is not None
        if self._leases.promised and not offered:
            raise Stale("this node has promised the leader not to claim yet")
        with self._leases.claiming():
            await self._swap(action)

    async def _swap(self, action: verbs.SwapState) -> None:
        """One compare-and-swap; what it wrote is known to this node as soon as it is confirmed."""
        state, cluster = action.state, self._hands.cluster
        ops: list[Put | Delete] = [Put(self._state_key, codec.dump(state))]
        if action.history is not None:
            ops.append(Put(keys.history(cluster, state.term), codec.dump(action.history)))
            if state.term > _HISTORY:
                ops.append(Delete(keys.history(cluster, state.term - _HISTORY)))
        sent_s = self._hands.clock.now_s()
        compare = Compare(self._state_key, action.expected_revision)
        try:
            txn = await self._hands.store.commit((compare,), tuple(ops))
        except Exception:
            # Whatever went wrong after the sending: it may have been carried out (S1).
            self._tracker.doubted(action.expected_revision)
            raise
        if not txn.succeeded:
            raise Lost(f"{action.purpose}: the state was changed by somebody else")
        if state.leader == self._me:
            self._tracker.renewed = Renewed(state.term, sent_s, state.mode is Mode.SOLO)
        if action.purpose != "renew":
            _log.info("state changed", purpose=action.purpose, term=state.term, leader=state.leader)

    async def _finish(self, action: verbs.FinishRequest) -> None:
        request, cluster = action.request, self._hands.cluster
        wall_s = self._hands.clock.wall_s()
        outcome = Outcome(request.id, request.kind, request.node, action.ok, action.why, wall_s)
        event = keys.event(cluster, request.kind, request.node)
        ops = (
            Delete(keys.request(cluster, request.kind, request.node)),
            Put(event, codec.dump(outcome)),
        )
        await self._hands.store.commit((), ops)
        _log.info("request ended", kind=request.kind, ok=action.ok, why=action.why)

    # -------------------------------------------------------------- Postgres

    async def _promote(self, action: verbs.Promote) -> None:
        self._leading(action.term)
        await self._fence.set_role(Role.PRIMARY, action.term)
        await self._postgres.promote()

    async def _start(self, action: verbs.StartPostgres, since_s: float) -> None:
        self._still(action.term)
        command = await self._postgres.configure(
            action.role, following=action.following, admit=action.role is Role.STANDBY
        )
        self._still(action.term)
        lifted = action.deadline_s is None
        if action.role is Role.PRIMARY:
            self._leading(action.term)
            if lifted:
                async with self._leases.telling:
                    await self._fence.lift(action.term)
        if not lifted:
            self._awake(since_s)
        request = StartRequest(command, action.role, action.term, action.deadline_s)
        await self._fence.start(request)
