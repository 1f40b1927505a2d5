"""Views for the tests of decide: a healthy cluster of ams, fra, wit, and what differs from it."""

from dataclasses import replace

from flightmode.model.cluster import ClusterState, Mode, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.lsn import Lsn
from flightmode.model.member import Member, MemberSeen, Node, NodeKind
from flightmode.model.memory import Memory, Watched
from flightmode.model.policy import Policy
from flightmode.model.server import (
    DataDirectory,
    FenceView,
    Receiver,
    Replica,
    Role,
    Run,
    Server,
    Slot,
)
from flightmode.model.timeline import History, Switch
from flightmode.model.view import JobResult, Renewed, StoreView, View

SYSTEM = "7000000000000000001"
NOW_S = 1000.0
WALL_S = 1_800_000_000.0
HERE = Lsn(0x5000000)

AMS = Node("ams", NodeKind.DATABASE, "10.0.0.1")
FRA = Node("fra", NodeKind.DATABASE, "10.0.0.2")
WIT = Node("wit", NodeKind.WITNESS, "10.0.0.3")
POLICY = Policy(nodes=(AMS, FRA, WIT), bootstrap="ams", pg_major=15)

SYNC = ClusterState(
    SYSTEM, 3, "ams", Mode.SYNC, ("fra",), 40, "test", WALL_S - 100, "fra", ttl_s=5.0
)
SOLO = replace(SYNC, mode=Mode.SOLO, sync=())

ON_3 = History(3, (Switch(1, Lsn(0x1000000)), Switch(2, Lsn(0x2000000))))
STREAMING = Replica("fra", True, "quorum", HERE, HERE, HERE, "12:00:00")
SLOT = Slot("fra", True, "reserved")

PRIMARY = Server(
    Run.PRIMARY,
    data=DataDirectory(SYSTEM, 15, 3, "in production", HERE, False),
    history=ON_3,
    position=HERE,
    replayed=HERE,
    sync_names=("fra",),
    sync_since=Lsn(0x4000000),
    replicas=(STREAMING,),
    slots=(SLOT,),
    prepared=True,
)
RECEIVER = Receiver(True, "10.0.0.1", HERE, 3)
STANDBY = Server(
    Run.STANDBY,
    data=DataDirectory(SYSTEM, 15, 3, "in archive recovery", HERE, True),
    history=ON_3,
    position=HERE,
    replayed=HERE,
    following="ams",
    receiver=RECEIVER,
)
DETACHED = replace(STANDBY, following=None, receiver=None)
CRASHED = Server(Run.STOPPED, data=DataDirectory(SYSTEM, 15, 3, "in production", HERE, False))
STOPPED = Server(Run.STOPPED, data=DataDirectory(SYSTEM, 15, 3, "shut down", HERE, False))
STOPPED_STANDBY = Server(
    Run.STOPPED, data=DataDirectory(SYSTEM, 15, 3, "shut down in recovery", HERE, True)
)
ABSENT = Server(Run.ABSENT)

ARMED = FenceView(True, True, False, Role.PRIMARY, 3, NOW_S + 4.0)
LIFTED = FenceView(True, True, False, Role.PRIMARY, 3, None, lifted=True)
IDLE = FenceView(True, term=3)


def member(node: Node, server: Server, **changes: object) -> Member:
    """What a node in that state publishes."""
    data = server.data
    told = Member(
        name=node.name,
        kind=node.kind,
        version="0.1.0",
        machine=f"machine of {node.name}",
        term=3,
        run=server.run,
        system_identifier=None if data is None else data.system_identifier,
        history=server.history,
        position=server.position,
        replayed=server.replayed,
        following=server.following,
        streaming=server.receiver is not None,
        slots=server.slots,
        admits_clients=True,
        job=None,
        problem=None,
        disk_free=0.5,
        fence_level="fence",
        pending_restart=(),
    )
    return replace(told, **changes)  # type: ignore[arg-type]


def seen(told: Member, *, ago_s: float = 0.3) -> MemberSeen:
    """A record that changed so long ago."""
    return MemberSeen(told, 7, NOW_S - ago_s)


ALL_WELL = (seen(member(AMS, PRIMARY)), seen(member(FRA, STANDBY)), seen(member(WIT, ABSENT)))


def store(state: ClusterState | None = SYNC, **changes: object) -> StoreView:
    """The store, read just now; the state last changed 0.4 s ago."""
    revision = 0 if state is None else 90
    view = StoreView(True, NOW_S - 0.01, state, revision, NOW_S - 0.4, None, ALL_WELL)
    return replace(view, **changes)  # type: ignore[arg-type]


def memory(term: int = 3, **changes: object) -> Memory:
    """Has watched fra stream for a minute, and published a moment ago."""
    watched = (Watched("fra", NOW_S - 60, NOW_S - 0.2, f"12:00:00 {HERE}"),)
    base = Memory(term=term, watched=watched, published_s=NOW_S - 0.1)
    return replace(base, **changes)  # type: ignore[arg-type]


def view(me: Node = AMS, **changes: object) -> View:
    """A moment of a node."""
    base = View(
        now_s=NOW_S,
        wall_s=WALL_S,
        me=me,
        machine=f"machine of {me.name}",
        version="0.1.0",
        policy=POLICY,
        store=store(),
        server=PRIMARY,
        fence=ARMED,
        renewed=Renewed(3, NOW_S - 0.4, solo=False),
        job=None,
        results=(),
        memory=memory(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def leader(**changes: object) -> View:
    """ams leads term 3 in mode sync, and all is well."""
    steady = memory(primary_since_s=NOW_S - 60, admit_from=Lsn(1))
    return view(AMS, **{"memory": steady, **changes})


def solo_leader(**changes: object) -> View:
    """ams leads term 3 alone; fra has streamed for a minute."""
    alone = {
        "store": store(SOLO),
        "fence": LIFTED,
        "renewed": Renewed(3, NOW_S - 0.4, solo=True),
        "memory": memory(primary_since_s=NOW_S - 60, admit_from=Lsn(1)),
    }
    return view(AMS, **{**alone, **changes})


def follower(**changes: object) -> View:
    """fra is the promotable standby of ams."""
    base = {"server": STANDBY, "fence": IDLE, "renewed": None, "memory": memory(watched=())}
    return view(FRA, **{**base, **changes})


def silent_leader(**changes: object) -> View:
    """fra has seen the state unchanged for longer than the ttl."""
    quiet = store(state_changed_s=NOW_S - 5.1)
    return follower(**{"store": quiet, **changes})


def request(kind: RequestKind, node: str | None = None, **changes: object) -> Request:
    base = Request("r1", kind, node, "ada", WALL_S + 60)
    return replace(base, **changes)  # type: ignore[arg-type]


def result(kind: str, *, error: str | None = None, ago_s: float = 0.1, term: int = 3) -> JobResult:
    return JobResult(kind, term, NOW_S - ago_s, error)


def done(decision: Decision, kind: type) -> list[object]:
    """The actions of one kind."""
    return [action for action in decision.actions if isinstance(action, kind)]


def verbs(decision: Decision) -> list[str]:
    """The names of the actions in order, without the publication; swaps by their purpose."""
    return [
        getattr(action, "purpose", type(action).__name__)
        for action in decision.actions
        if type(action).__name__ != "Publish"
    ]
