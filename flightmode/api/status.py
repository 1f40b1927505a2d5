"""The whole cluster as one node sees it: the answer of /status, and of `flightmode status`."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from flightmode.decide.route import route
from flightmode.model.cluster import ClusterState
from flightmode.model.decision import Decision
from flightmode.model.member import Member, MemberSeen, Node
from flightmode.model.server import Run
from flightmode.model.view import View


class Answer(BaseModel):
    """An answer of the API."""

    model_config = ConfigDict(frozen=True)


class StateStatus(Answer):
    """What the cluster has agreed on."""

    term: int = Field(description="Grows by one at each change of leader.")
    leader: str
    previous: str | None = Field(description="Who led before.")
    mode: str = Field(
        description="`sync`: a commit waits for a node of `sync`. `solo`: it waits for nobody, "
        "and nobody else can take over without loss."
    )
    sync: tuple[str, ...] = Field(description="Who holds every acknowledged commit.")
    since_wall_s: float = Field(description="When this term began, unix time.")
    reason: str = Field(description="Why this term began: the last failover and why.")
    handover_to: str | None
    paused_until_wall_s: float | None
    paused_by: str | None


class NodeStatus(Answer):
    """What one node said of itself last."""

    name: str
    kind: str
    host: str
    role: str = Field(
        description="leader | primary (of an older term!) | standby | witness | stopped | …"
    )
    run: str | None = Field(description="The state of its Postgres; null: it never said a word.")
    term: int | None
    timeline: int | None
    position: str | None = Field(description="How far its WAL goes, as Postgres prints it.")
    lag_bytes: int | None = Field(description="How far it is behind the leader, as last said.")
    following: str | None
    streaming: bool
    sync: bool = Field(description="It holds every acknowledged commit.")
    admits_clients: bool
    fence_level: str | None
    disk_free: float | None = Field(description="0..1")
    job: str | None
    problem: str | None
    pending_restart: tuple[str, ...]
    warnings: tuple[str, ...]
    heard: bool = Field(description="It spoke within `member_fresh_s`.")
    silent_s: float | None = Field(description="Since when it has not spoken; null: unknown.")
    version: str | None


class RequestStatus(Answer):
    """Something that a person asked for and that is not done yet."""

    id: str
    kind: str
    node: str | None
    asked_by: str
    expires_wall_s: float


class ClusterStatus(Answer):
    """The answer of /status."""

    node: str = Field(description="Who says this.")
    version: str
    wall_s: float
    age_s: float = Field(description="How old this picture is.")
    store_reachable: bool = Field(description="etcd answered; if not, all the rest may be old.")
    store_age_s: float | None
    system_identifier: str | None
    state: StateStatus | None
    writes: str | None = Field(description="The node that accepts writes, if any does.")
    reads: tuple[str, ...]
    route: str = Field(description="Why so.")
    nodes: tuple[NodeStatus, ...]
    requests: tuple[RequestStatus, ...]
    rule: str | None = Field(description="What this node decided last …")
    why: str | None = Field(description="… and why.")
    problem: str | None


def status_of(view: View, decision: Decision | None, now_s: float) -> ClusterStatus:
    """From the last look; pure."""
    current = replace(view, now_s=now_s)
    state, way = view.store.state, route(current)
    return ClusterStatus(
        node=view.me.name,
        version=view.version,
        wall_s=view.wall_s,
        age_s=round(now_s - view.now_s, 3),
        store_reachable=view.store.reachable,
        store_age_s=None if view.store.read_s < 0 else round(now_s - view.store.read_s, 3),
        system_identifier=None if state is None else state.system_identifier,
        state=None if state is None else _state(state),
        writes=way.writes,
        reads=way.reads,
        route=way.reason,
        nodes=tuple(_node(current, node) for node in view.policy.nodes),
        requests=tuple(
            RequestStatus(
                id=each.id,
                kind=each.kind,
                node=each.node,
                asked_by=each.asked_by,
                expires_wall_s=each.expires_wall_s,
            )
            for each in view.store.requests
        ),
        rule=None if decision is None else decision.rule,
        why=None if decision is None else decision.why,
        problem=None if decision is None else decision.problem,
    )


def _state(state: ClusterState) -> StateStatus:
    return StateStatus(
        term=state.term,
        leader=state.leader,
        previous=state.previous,
        mode=state.mode,
        sync=state.sync,
        since_wall_s=state.since_wall_s,
        reason=state.reason,
        handover_to=None if state.handover is None else state.handover.to,
        paused_until_wall_s=None if state.pause is None else state.pause.until_wall_s,
        paused_by=None if state.pause is None else state.pause.asked_by,
    )


def _node(view: View, node: Node) -> NodeStatus:
    seen = next((each for each in view.store.members if each.member.name == node.name), None)
    if seen is None:
        return _never_heard(node)
    member, state = seen.member, view.store.state
    silent_s = _silent_s(view, seen)
    return NodeStatus(
        name=node.name,
        kind=node.kind,
        host=node.host,
        role=_role(member, state),
        run=member.run,
        term=member.term,
        timeline=None if member.history is None else member.history.timeline,
        position=str(member.position) if member.position else None,
        lag_bytes=_lag_bytes(view, member),
        following=member.following,
        streaming=member.streaming,
        sync=state is not None and node.name in state.sync,
        admits_clients=member.admits_clients,
        fence_level=member.fence_level,
        disk_free=member.disk_free,
        job=member.job,
        problem=member.problem,
        pending_restart=member.pending_restart,
        warnings=member.warnings,
        heard=silent_s is not None and silent_s <= view.policy.member_fresh_s,
        silent_s=silent_s,
        version=member.version,
    )


def _never_heard(node: Node) -> NodeStatus:
    return NodeStatus(
        name=node.name,
        kind=node.kind,
        host=node.host,
        role="unknown",
        run=None,
        term=None,
        timeline=None,
        position=None,
        lag_bytes=None,
        following=None,
        streaming=False,
        sync=False,
        admits_clients=False,
        fence_level=None,
        disk_free=None,
        job=None,
        problem=None,
        pending_restart=(),
        warnings=(),
        heard=False,
        silent_s=None,
        version=None,
    )


def _role(member: Member, state: ClusterState | None) -> str:
    if member.kind == "witness":
        return "witness"
    if state is not None and member.name == state.leader:
        return "leader"
    return str(member.run)


def _silent_s(view: View, seen: MemberSeen) -> float | None:
    """None: it has not changed since before this agent's first look."""
    return None if seen.changed_s < 0 else round(max(view.now_s - seen.changed_s, 0.0), 3)


def _lag_bytes(view: View, member: Member) -> int | None:
    """Both positions are as last published, about a second old: a standby may seem ahead."""
    state = view.store.state
    leader = None if state is None else view.store.member(state.leader)
    if leader is None or leader.run is not Run.PRIMARY or member.name == leader.name:
        return None
    return max(int(leader.position) - int(member.position), 0) if member.position else None
