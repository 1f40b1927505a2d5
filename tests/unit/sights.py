"""Views of a small healthy cluster, and ways to spoil them: values, nothing more."""

from dataclasses import replace

from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.lsn import Lsn
from flightmode.model.member import Member, MemberSeen, Node, NodeKind
from flightmode.model.memory import Memory
from flightmode.model.policy import Policy
from flightmode.model.server import FenceView, Receiver, Replica, Role, Run, Server, Slot
from flightmode.model.timeline import History
from flightmode.model.view import Renewed, StoreView, View

NOW_S = 1000.0
WALL_S = 1_800_000_000.0
POSITION = Lsn.parse("0/5000000")

NODES = (
    Node("ams", NodeKind.DATABASE, "10.0.0.1"),
    Node("fra", NodeKind.DATABASE, "10.0.0.2"),
    Node("wit", NodeKind.WITNESS, "10.0.0.3"),
)
POLICY = Policy(NODES, bootstrap="ams", pg_major=15)
STATE = ClusterState("7001", 4, "ams", Mode.SYNC, ("fra",), 17, "bootstrap", WALL_S - 60)


def member(name: str, **changes: object) -> Member:
    """What a healthy node of that name says: ams leads, fra follows."""
    kind = next(node.kind for node in NODES if node.name == name)
    run = {"ams": Run.PRIMARY, "fra": Run.STANDBY, "wit": Run.ABSENT}[name]
    healthy = Member(
        name=name,
        kind=kind,
        version="1.0",
        machine=f"machine-{name}",
        term=4,
        run=run,
        system_identifier="7001",
        history=History(2),
        position=POSITION,
        replayed=POSITION,
        following="ams" if name == "fra" else None,
        streaming=name == "fra",
        slots=(),
        admits_clients=True,
        job=None,
        problem=None,
        disk_free=0.5,
        fence_level="cgroup",
        pending_restart=(),
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]


def seen(about: Member, ago_s: float = 0.5) -> MemberSeen:
    """That record, last changed so long ago."""
    return MemberSeen(about, 10, NOW_S - ago_s)


def store(*members: MemberSeen, state: ClusterState | None = STATE, **changes: object) -> StoreView:
    """A store that answers; all three members have just spoken unless some are given."""
    about = members or tuple(seen(member(node.name)) for node in NODES)
    healthy = StoreView(True, NOW_S, state, 50, NOW_S - 0.3, None, about)
    return replace(healthy, **changes)  # type: ignore[arg-type]


_SERVERS = {
    "ams": Server(
        Run.PRIMARY,
        history=History(2),
        position=POSITION,
        sync_names=("fra",),
        replicas=(Replica("fra", True, "quorum", POSITION, Lsn(POSITION - 100), POSITION, "t"),),
        slots=(Slot("fra", True, "reserved"),),
    ),
    "fra": Server(
        Run.STANDBY,
        history=History(2),
        position=POSITION,
        replayed=Lsn(POSITION - 1000),
        following="ams",
        receiver=Receiver(True, "10.0.0.1", POSITION, 2),
    ),
    "wit": Server(Run.ABSENT),
}
_FENCES = {
    "ams": FenceView(True, True, False, Role.PRIMARY, 4, NOW_S + 4),
    "fra": FenceView(True, True, False, Role.STANDBY, 4),
    "wit": FenceView(False),
}


def view(me: str = "ams", **changes: object) -> View:
    """A moment of a healthy cluster as `me` sees it."""
    node = next(node for node in NODES if node.name == me)
    healthy = View(
        now_s=NOW_S,
        wall_s=WALL_S,
        me=node,
        machine=f"machine-{me}",
        version="1.0",
        policy=POLICY,
        store=store(),
        server=_SERVERS[me],
        fence=_FENCES[me],
        renewed=Renewed(4, NOW_S - 0.3, False) if me == "ams" else None,
        job=None,
        results=(),
        memory=Memory(term=4),
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]
