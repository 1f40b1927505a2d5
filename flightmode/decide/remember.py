"""Bring what is remembered up to what is seen, before anything is decided.

A new term clears everything but what is measured on standbys that stream now.
"""

from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from flightmode.decide.namesake import namesake, of_another_machine
from flightmode.errors import SyncNamesUnproven
from flightmode.model.cluster import Mode
from flightmode.model.memory import Memory, Watched
from flightmode.model.server import Replica, Run
from flightmode.model.view import JobKind, View

_UNTIL_PRIMARY: Final[dict[str, Any]] = {
    "crashed": False,
    "fenced": False,
    "promoting_since_s": None,
    "starting_since_s": None,
    "dying_since_s": None,
    "standing_at": None,
    "standing_since_s": None,
    "unguarded_since_s": None,
}
"""What is remembered until this node's Postgres runs as the primary, as it is from then on."""
_ON_THE_WAY: Final = attrgetter(*_UNTIL_PRIMARY)
_ARRIVED: Final = tuple(_UNTIL_PRIMARY.values())


def refresh(view: View) -> View:
    """The view with its memory brought up to this moment."""
    state = view.store.state
    memory = view.memory
    if state is not None and memory.term != state.term:
        memory = Memory(
            term=state.term,
            published=memory.published,
            published_s=memory.published_s,
            namesake=memory.namesake,
            namesake_s=memory.namesake_s,
        )
    memory = _namesake(view, memory)
    memory = _task(view, memory)
    memory = _heard_of_wal(view, memory)
    watched = _watched(view, memory)
    if watched != memory.watched:
        memory = replace(memory, watched=watched)
    if state is not None and state.leader == view.me.name:
        memory = _as_leader(view, memory)
    return view if memory is view.memory else replace(view, memory=memory)


def _namesake(view: View, memory: Memory) -> Memory:
    """Both write one record: each look shows only whoever did so last.

    While etcd is silent nobody can write, so that time does not count.
    """
    if not view.store.reachable:
        there = namesake(replace(view, memory=memory))
        return memory if there is None else replace(memory, namesake=there, namesake_s=view.now_s)
    theirs = of_another_machine(view)
    if theirs is None or view.now_s - theirs.changed_s > view.policy.member_fresh_s:
        return memory
    return replace(memory, namesake=theirs.member.machine, namesake_s=theirs.changed_s)


def _task(view: View, memory: Memory) -> Memory:
    """It is over with its request, also when the answer to what ended that was lost: a leader that
    goes on saying that it is about to stop has the proxies hold everybody (S7)."""
    if memory.task is None or any(each.id == memory.task for each in view.store.requests):
        return memory
    return replace(memory, task=None, task_stage="")


def _heard_of_wal(view: View, memory: Memory) -> Memory:
    """When the leader's Postgres last spoke to this standby.

    Without a receiver (also one that has just ended) new WAL is the only trace of it.
    """
    server, receiver = view.server, view.server.receiver
    if server.run is not Run.STANDBY:
        return memory
    heard_s = memory.wal_heard_s
    if receiver is not None and receiver.heard_ago_s is not None:
        now_s = view.now_s - max(0.0, receiver.heard_ago_s)
        heard_s = now_s if heard_s is None else max(now_s, heard_s)
    elif server.position > memory.wal_seen:
        heard_s = view.now_s
    return replace(memory, wal_heard_s=heard_s, wal_seen=server.position)


def _as_leader(view: View, memory: Memory) -> Memory:
    """When Postgres began to run as this term's primary, and whether it has died since."""
    if view.server.run is Run.PRIMARY:
        return _as_primary(view, memory)
    dying_since_s = memory.dying_since_s if view.server.run is Run.DYING else None
    if view.server.run is Run.DYING and dying_since_s is None:
        dying_since_s = view.now_s
    if dying_since_s != memory.dying_since_s:
        memory = replace(memory, dying_since_s=dying_since_s)
    memory = _standing(view, memory)
    unguarded_s = _unguarded_since_s(view, memory)
    if unguarded_s != memory.unguarded_since_s:
        memory = replace(memory, unguarded_since_s=unguarded_s)
    gone = view.server.run in (Run.STOPPED, Run.DYING)
    if gone and memory.primary_since_s is not None:
        memory = replace(
            memory,
            primary_since_s=None,
            crashed=True,
            fenced=view.fence.reachable and view.fence.expired,
            admit_from=None,
        )
    # A server that is being stopped refuses connections as one that starts does.
    stopping = view.job is not None and view.job.kind is JobKind.STOP
    if view.server.run is Run.STARTING and memory.starting_since_s is None and not stopping:
        memory = replace(memory, starting_since_s=view.now_s)
    return memory


def _as_primary(view: View, memory: Memory) -> Memory:
    """The same value when nothing of it is news, as at most looks."""
    since_s = view.now_s if memory.primary_since_s is None else memory.primary_since_s
    admit_from = memory.admit_from or view.server.position
    overruled = _overruled(view, memory)
    known = (memory.primary_since_s, memory.admit_from, memory.overruled)
    if known == (since_s, admit_from, overruled) and _ON_THE_WAY(memory) == _ARRIVED:
        return memory
    return replace(
        memory,
        primary_since_s=since_s,
        admit_from=admit_from,
        overruled=overruled,
        **_UNTIL_PRIMARY,
    )


def _standing(view: View, memory: Memory) -> Memory:
    """A promotion first replays what was received, and that may be much."""
    asked = memory.promote_asked and view.server.run is Run.STANDBY
    at = view.server.replayed if asked else None
    if at == memory.standing_at:
        return memory
    return replace(memory, standing_at=at, standing_since_s=view.now_s if asked else None)


def _unguarded_since_s(view: View, memory: Memory) -> float | None:
    if view.fence.reachable or view.server.run is not Run.STANDBY:
        return None
    return view.now_s if memory.unguarded_since_s is None else memory.unguarded_since_s


def _overruled(view: View, memory: Memory) -> bool:
    """Whether the names are somebody else's: seen in mode sync, or because ours took no effect."""
    server, state, since_s = view.server, view.store.state, memory.primary_since_s
    assert state is not None
    if state.mode is Mode.SYNC:
        return server.admits_clients and server.sync_names != state.sync
    if since_s is None or server.sync_since is not None:
        return False
    result = view.result(JobKind.SYNC_NAMES)
    if result is not None and result.ended_s > since_s and result.error is not None:
        return memory.overruled or result.error.startswith(SyncNamesUnproven.code)
    return memory.overruled


def _watched(view: View, memory: Memory) -> tuple[Watched, ...]:
    """Each streaming standby, with since when it streams and when it last gave a sign of life.

    A sign of life is a change of what it says; the time it writes in is its own clock's
    and is only compared with itself.
    """
    if view.server.run is not Run.PRIMARY:
        return ()
    before = {watched.name: watched for watched in memory.watched}
    return tuple(
        _watch(row, before.get(row.name), view) for row in view.server.replicas if row.streaming
    )


def _watch(row: Replica, before: Watched | None, view: View) -> Watched:
    marker, now_s = f"{row.reply_marker} {row.flushed}", view.now_s
    if before is None:
        return Watched(row.name, now_s, now_s, marker)
    if marker == before.marker:
        return before
    # A connection outlives a silence; the standby has to prove itself anew after one (S2).
    broken = now_s - before.spoke_s >= view.policy.standby_silent_s
    return Watched(row.name, now_s if broken else before.since_s, now_s, marker)
