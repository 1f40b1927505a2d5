"""What the data path is told: who takes writes, who follows, how far behind.  Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from flightmode.decide.route import obstacle_to_writes
from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.member import Member
from flightmode.model.policy import Policy
from flightmode.model.server import Run
from flightmode.model.view import StoreView


@dataclass(frozen=True, slots=True)
class Outlook:
    """The store as somebody sees it who is no node: see `decide.route.Outlook`."""

    now_s: float
    policy: Policy
    store: StoreView


@dataclass(frozen=True, slots=True)
class Following:
    """A standby that clients may read from."""

    node: str
    lag_bytes: int
    lag_s: float
    """So long ago it had everything that the primary had: an upper bound of its data's age."""
    replayed: str


@dataclass(frozen=True, slots=True)
class News:
    """One piece of news, in the shape that `rust/proxy/src/config.rs` reads."""

    term: int
    revision: int
    """The store's; orders the news of one term."""
    primary: str | None
    standbys: tuple[Following, ...]
    reason: str = field(compare=False)
    """For people: why nobody takes writes, or why this node does."""
    parting: bool = False
    """The primary is about to be stopped on purpose: nothing is to be begun there."""

    @property
    def serving(self) -> str | None:
        """Who a client that writes goes to now."""
        return None if self.parting else self.primary

    def as_json(self) -> dict[str, object]:
        """Without the reason, which is not the data path's business."""
        told = asdict(self)
        del told["reason"]
        return told


def news_of(outlook: Outlook, revision: int, caught_up_s: Mapping[str, float]) -> News | None:
    """What to tell; None: nothing is known yet.

    `revision`: of the read that `outlook.store` is.  `caught_up_s`: see `catch_up`.
    """
    state = outlook.store.state
    if state is None:
        return None
    obstacle = obstacle_to_writes(outlook)
    leader = outlook.store.member(state.leader)
    end = NOWHERE if leader is None else leader.position
    standbys = tuple(
        Following(
            name,
            max(0, end - member.replayed),
            max(0.0, outlook.now_s - caught_up_s[name]),
            str(Lsn(member.replayed)),
        )
        for name, member in _standbys(outlook).items()
        if name in caught_up_s
    )
    parting = obstacle is None and _parts(outlook, state.leader)
    about_to = f"{state.leader} is about to be stopped" if parting else None
    return News(
        state.term,
        revision,
        state.leader if obstacle is None else None,
        standbys,
        obstacle or about_to or state.reason,
        parting,
    )


def _parts(outlook: Outlook, leader: str) -> bool:
    """Whether it is about to be stopped.

    Who has said so and nothing since is not: its agent has died in between, and its Postgres may
    go on.
    """
    since_s = outlook.now_s - outlook.policy.member_fresh_s
    return any(
        seen.member.name == leader and seen.member.parting and seen.changed_s >= since_s
        for seen in outlook.store.members
    )


def catch_up(before: Mapping[str, float], outlook: Outlook) -> dict[str, float]:
    """When each standby last had everything that its primary had, on the own clock.

    A standby that does not stream keeps its last moment: its data age from then on, although
    nobody may have written since, for that can't be known.
    """
    state = outlook.store.state
    if state is None:
        return dict(before)
    leader = outlook.store.member(state.leader)
    moments = dict(before)
    for name, member in _standbys(outlook).items():
        follows = member.streaming and member.following == state.leader
        if follows and leader is not None and member.replayed >= leader.position:
            moments[name] = outlook.store.read_s
    return moments


def _standbys(outlook: Outlook) -> dict[str, Member]:
    state, policy = outlook.store.state, outlook.policy
    found: dict[str, Member] = {}
    for seen in outlook.store.members:
        member = seen.member
        fresh = outlook.now_s - seen.changed_s <= policy.member_fresh_s
        if (
            member.name in policy.databases
            and member.run is Run.STANDBY
            and member.admits_clients
            and fresh
            and state is not None
            and member.name != state.leader
        ):
            found[member.name] = member
    return found
