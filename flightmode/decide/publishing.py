"""What the node says of itself in the store, and when."""

from dataclasses import fields, replace
from operator import attrgetter

from flightmode.decide.namesake import keeps_silent
from flightmode.decide.suspicion import deaf_to, suspects
from flightmode.model.action import Publish
from flightmode.model.cluster import RequestKind
from flightmode.model.decision import Decision
from flightmode.model.member import NO_FENCE, Member
from flightmode.model.memory import Memory
from flightmode.model.server import Run, Slot
from flightmode.model.view import View

_DISK_ALERT = 0.2
_OFTEN_CHANGES = {"position", "replayed", "disk_free", "warnings", "slots"}
_LASTING = attrgetter(*(each.name for each in fields(Member) if each.name not in _OFTEN_CHANGES))
_HELD = attrgetter(*(each.name for each in fields(Slot) if each.name != "active"))


def publish(view: View, decision: Decision) -> Decision:
    """Add the publication, when it is due or something of weight has changed."""
    if not view.store.reachable or keeps_silent(view):
        return decision
    memory = decision.memory
    member = _member(view, decision)
    due = view.now_s - memory.published_s >= view.policy.renew_every_s
    if not due and not _weighty(view, memory.published, member):
        return decision
    memory = replace(memory, published=member, published_s=view.now_s)
    return replace(decision, actions=(*decision.actions, Publish(member)), memory=memory)


def _parts(view: View, memory: Memory) -> bool:
    """A stop that somebody asked for: the proxies hold their clients before it comes (S7)."""
    planned = memory.task is not None and memory.task_stage == "stop"
    return planned and view.server.run is Run.PRIMARY


def _weighty(view: View, before: Member | None, now: Member) -> bool:
    """A change that others wait for; positions only while a switchover does."""
    if before is None:
        return True
    if any(request.kind is RequestKind.SWITCHOVER for request in view.store.requests):
        return before != now
    return _LASTING(before) != _LASTING(now) or _idle(before.slots) != _idle(now.slots)


def _idle(slots: tuple[Slot, ...]) -> list[object]:
    """All of them, but for whether somebody streams from them."""
    return [_HELD(slot) for slot in slots]


def _member(view: View, decision: Decision) -> Member:
    server, data = view.server, view.server.data
    return Member(
        name=view.me.name,
        kind=view.me.kind,
        version=view.version,
        machine=view.machine,
        term=view.memory.term,
        run=server.run,
        system_identifier=None if data is None else data.system_identifier,
        history=server.history,
        position=server.position,
        replayed=server.replayed,
        following=server.following,
        streaming=server.receiver is not None and server.receiver.streaming,
        slots=server.slots,
        admits_clients=server.admits_clients,
        job=None if view.job is None else view.job.kind,
        problem=decision.problem,
        disk_free=round(server.disk_free, 2),
        fence_level=view.fence.level if view.fence.reachable else NO_FENCE,
        pending_restart=server.pending_restart,
        warnings=_warnings(view),
        suspects=suspects(view),
        takes_up=True,
        fence_term=view.fence.term if view.fence.reachable else 0,
        parting=_parts(view, decision.memory),
    )


def _warnings(view: View) -> tuple[str, ...]:
    warnings = [f"synchronous_commit is lowered for {who}" for who in view.server.lowered_commit]
    warnings += [f"{stray}: safety rests on another value" for stray in view.server.stray_settings]
    refused = view.server.refused_settings
    warnings += [f"{each}: PostgreSQL keeps the settings of before" for each in refused]
    if view.server.disk_free < _DISK_ALERT:
        warnings.append(f"only {view.server.disk_free:.0%} of the disk is free")
    if not view.fence.reachable and view.me.name in view.policy.databases:
        warnings.append("the fence does not answer")
    if view.probe.failing_since_s is not None:
        warnings.append(f"Postgres fails its probe: {view.probe.why}")
    warnings += [f"etcd holds what this version cannot read: {k}" for k in view.store.unreadable]
    deaf = deaf_to(view)
    if deaf is not None:
        warnings.append(f"a lost primary is missed only after the whole ttl; {deaf}")
    return tuple(warnings)
