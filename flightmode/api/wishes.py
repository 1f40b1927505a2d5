"""Writing down what a person asks for, and reading how it ended."""

from dataclasses import dataclass
from typing import Final

from flightmode.errors import RequestOpen, RequestUnknown
from flightmode.model.cluster import HistoryEntry, Outcome, Request, RequestKind
from flightmode.store import codec, keys
from flightmode.store.port import Compare, Put, Snapshot, Store

PATIENCE_S: Final[dict[RequestKind, float]] = {
    RequestKind.SWITCHOVER: 60.0,
    RequestKind.FAILOVER: 120.0,
    RequestKind.PAUSE: 60.0,
    RequestKind.RESUME: 60.0,
    RequestKind.RESTART: 300.0,
    RequestKind.RELOAD: 60.0,
    RequestKind.REINIT: 86400.0,
}
"""After so long an unfinished request expires and is ended by the leader."""

FOR_EVERYBODY: Final = frozenset(
    {RequestKind.SWITCHOVER, RequestKind.FAILOVER, RequestKind.PAUSE, RequestKind.RESUME}
)
"""Of these only one may be open, whichever node it names."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and how it ended if it has."""

    request_id: str
    open: bool
    outcome: Outcome | None


async def write_down(store: Store, cluster: str, request: Request, wall_s: float) -> None:
    """Put the request where its node finds it.

    Raises RequestOpen while another one of the kind is open, StoreUnknown when it is not known
    whether it was written: then look for its id before asking again.
    """
    key = keys.request(cluster, request.kind, request.node)
    snapshot = await store.read(keys.requests(cluster))
    for each, other in _requests(snapshot):
        clash = each == key or (request.kind is other.kind and request.kind in FOR_EVERYBODY)
        if clash and other.expires_wall_s > wall_s and other.id != request.id:
            raise RequestOpen(_open_text(other))
    entry = snapshot.entries.get(key)
    compare = Compare(key, 0 if entry is None else entry.mod_revision)
    done = await store.commit((compare,), (Put(key, codec.dump(request)),))
    if not done.succeeded:
        raise RequestOpen(f"another {request.kind} was asked for in the same moment")


def _open_text(request: Request) -> str:
    node = "" if request.node is None else f" of {request.node}"
    return f"a {request.kind}{node} asked for by {request.asked_by} is not finished yet"


async def standing_of(store: Store, cluster: str, request_id: str) -> Standing:
    """How a request stands.  Raises RequestUnknown when it is neither open nor the last that ended.

    Only the last outcome of each kind and node is kept.
    """
    snapshot = await store.read(keys.prefix(cluster))  # of one instant: it is here or there
    for key, entry in snapshot.entries.items():
        if key.startswith(keys.events(cluster)):
            outcome = codec.load_known(Outcome, entry.value)
            if outcome is not None and outcome.request_id == request_id:
                return Standing(request_id, False, outcome)
        if not key.startswith(keys.requests(cluster)):
            continue
        request = codec.load_known(Request, entry.value)
        if request is not None and request.id == request_id:
            return Standing(request_id, True, None)
    raise RequestUnknown(f"no request {request_id} is open or has just ended")


def _requests(snapshot: Snapshot) -> list[tuple[str, Request]]:
    """Those that this version can read."""
    found = (
        (key, codec.load_known(Request, entry.value))
        for key, entry in sorted(snapshot.entries.items())
    )
    return [(key, request) for key, request in found if request is not None]


async def histories(store: Store, cluster: str, count: int) -> tuple[HistoryEntry, ...]:
    """The last `count` changes of leader, oldest first."""
    snapshot = await store.read(keys.histories(cluster))
    entries = sorted(snapshot.entries.items())[-count:]
    return tuple(codec.load(HistoryEntry, entry.value) for _, entry in entries)
