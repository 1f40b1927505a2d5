"""What this node knows of the store's content, and since when by its own clock.

Every decision rests on one linearizable read (S1); what a read does not tell is kept
here: when a revision was first seen, and which swap of ours has an unknown outcome.
Of a state that can't be read nothing is known, as of a store that does not answer; a member or
a request that can't be read is passed over.
"""

from collections.abc import Callable

from flightmode.errors import StoreError
from flightmode.model.cluster import ClusterState, Request
from flightmode.model.member import Member, MemberSeen
from flightmode.model.view import Renewed, StoreView
from flightmode.store import codec, keys
from flightmode.store.port import Entry, Snapshot, Store


class Tracker:
    """Reads the cluster's keys and remembers what the store can't know."""

    def __init__(self, store: Store, cluster: str, now_s: Callable[[], float]) -> None:
        """`now_s`: CLOCK_BOOTTIME in seconds, of whoever reads."""
        self._store = store
        self._prefix = keys.prefix(cluster)
        self._key = keys.state(cluster)
        self._members_prefix = keys.members(cluster)
        self._requests_prefix = keys.requests(cluster)
        self._now_s = now_s
        self._view = StoreView(False, -1.0, None, 0, now_s(), None)
        self._seen: dict[str, MemberSeen] = {}
        self.revision = 0
        """The store's revision as of the last answered read; 0: none was answered yet."""
        self._doubt: int | None = None
        self.renewed: Renewed | None = None

    @property
    def view(self) -> StoreView:
        """What was last known."""
        return self._view

    @property
    def state(self) -> ClusterState | None:
        """The state as last read."""
        return self._view.state

    def doubted(self, expected_revision: int) -> None:
        """A swap that compared with this revision has an unknown outcome."""
        self._doubt = expected_revision

    async def read(self) -> StoreView:
        """One linearizable read.  Never raises: a store that does not answer is in the view."""
        sent_s = self._now_s()
        try:
            snapshot = await self._store.read(self._prefix)
            if snapshot.revision < self.revision:
                raise StoreError("the store answered with something older than before")
            self._view = self._take(snapshot, sent_s)
        except StoreError:
            self._view = _unreachable(self._view, self._doubt)
        return self._view

    def _take(self, snapshot: Snapshot, sent_s: float) -> StoreView:
        self.revision = snapshot.revision
        entry = snapshot.entries.get(self._key)
        revision = 0 if entry is None else entry.mod_revision
        now_s = self._now_s()
        unchanged = self._view.read_s >= 0 and revision == self._view.state_revision
        state = self._view.state
        if not unchanged:
            state = None if entry is None else codec.load(ClusterState, entry.value)
        if self._doubt is not None and self._doubt != revision:
            self._doubt = None
        ordered = sorted(snapshot.entries.items())
        members, unreadable = self._members(ordered, now_s)
        requests, unreadable_too = self._requests(ordered)
        return StoreView(
            reachable=True,
            read_s=sent_s,
            state=state,
            state_revision=revision,
            state_changed_s=self._view.state_changed_s if unchanged else now_s,
            in_doubt=self._doubt,
            members=members,
            saw_change=self._view.saw_change or (self._view.read_s >= 0 and not unchanged),
            saw_term_begin=self._saw_begin(state),
            requests=requests,
            unreadable=(*unreadable, *unreadable_too),
            first_read_s=sent_s if self._view.first_read_s is None else self._view.first_read_s,
        )

    def _saw_begin(self, state: ClusterState | None) -> bool:
        before = self._view.state
        if state is None or before is None:
            return False
        return before.term < state.term or (self._view.saw_term_begin and before.term == state.term)

    def _members(
        self, ordered: list[tuple[str, Entry]], now_s: float
    ) -> tuple[tuple[MemberSeen, ...], list[str]]:
        """Those that can be read, and the keys of the others."""
        seen: dict[str, MemberSeen] = {}
        unreadable: list[str] = []
        for key, entry in ordered:
            if not key.startswith(self._members_prefix):
                continue
            before = self._seen.get(key)
            if before is not None and before.revision == entry.mod_revision:
                seen[key] = before
                continue
            member = codec.load_known(Member, entry.value)
            if member is None:
                unreadable.append(key.removeprefix(self._prefix))
                continue
            # What was there before this agent's first look says nothing of the present.
            changed_s = now_s if before is not None or self._view.read_s >= 0 else -1e9
            seen[key] = MemberSeen(member, entry.mod_revision, changed_s)
        self._seen = seen
        return tuple(seen.values()), unreadable

    def _requests(self, ordered: list[tuple[str, Entry]]) -> tuple[tuple[Request, ...], list[str]]:
        """Those that can be read, and the keys of the others.

        One record that nobody here can read must not cost all the others (I9).
        """
        requests: list[Request] = []
        unreadable: list[str] = []
        for key, entry in ordered:
            if not key.startswith(self._requests_prefix):
                continue
            request = codec.load_known(Request, entry.value)
            if request is None:
                unreadable.append(key.removeprefix(self._prefix))
            else:
                requests.append(request)
        return tuple(requests), unreadable


def _unreachable(view: StoreView, doubt: int | None) -> StoreView:
    return StoreView(
        reachable=False,
        read_s=view.read_s,
        state=view.state,
        state_revision=view.state_revision,
        state_changed_s=view.state_changed_s,
        in_doubt=doubt,
        members=view.members,
        saw_change=view.saw_change,
        saw_term_begin=view.saw_term_begin,
        requests=view.requests,
        unreadable=view.unreadable,
        first_read_s=view.first_read_s,
    )
