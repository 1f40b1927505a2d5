"""What a node knows of etcd's content when some of it can't be read."""

import asyncio

from flightmode.model.cluster import RequestKind
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import Put
from flightmode.store.tracker import Tracker
from tests.unit.decide.worlds import FRA, STANDBY, SYNC, member, request

CLUSTER = "main"
WISH = request(RequestKind.SWITCHOVER)
GOOD = {
    keys.state(CLUSTER): codec.dump(SYNC),
    keys.member(CLUSTER, "fra"): codec.dump(member(FRA, STANDBY)),
    keys.request(CLUSTER, "switchover"): codec.dump(WISH),
}
OF_A_NEWER_VERSION = {
    keys.member(CLUSTER, "ber"): codec.dump(member(FRA, STANDBY)).replace(b"standby", b"asleep"),
    keys.request(CLUSTER, "dance"): codec.dump(WISH).replace(b"switchover", b"dance"),
    keys.requests(CLUSTER) + "junk": b"\x00",
}


def read(tracker: Tracker, cluster: MemoryCluster, content: dict[str, bytes]) -> None:
    cluster.commit((), tuple(Put(key, value) for key, value in content.items()))
    asyncio.run(tracker.read())


def made() -> tuple[MemoryCluster, Tracker]:
    cluster = MemoryCluster()
    return cluster, Tracker(MemoryStore(cluster), CLUSTER, lambda: 1000.0)


def test_members_and_requests_that_cannot_be_read_are_passed_over_and_told() -> None:
    cluster, tracker = made()
    read(tracker, cluster, GOOD | OF_A_NEWER_VERSION)
    view = tracker.view
    assert view.reachable
    assert view.state == SYNC
    assert [seen.member.name for seen in view.members] == ["fra"]
    assert view.requests == (WISH,)
    assert view.unreadable == ("members/ber", "requests/dance", "requests/junk")


def test_a_member_that_becomes_readable_counts_from_then_on() -> None:
    cluster, tracker = made()
    spoilt = {key: OF_A_NEWER_VERSION[keys.member(CLUSTER, "ber")] for key in list(GOOD)[1:2]}
    read(tracker, cluster, GOOD | spoilt)
    assert tracker.view.members == ()
    read(tracker, cluster, GOOD)
    (seen,) = tracker.view.members
    assert (seen.member.name, seen.changed_s) == ("fra", 1000.0)
    assert tracker.view.unreadable == ()


def test_of_a_state_that_cannot_be_read_nothing_is_known() -> None:
    cluster, tracker = made()
    read(tracker, cluster, GOOD)
    read(
        tracker, cluster, {keys.state(CLUSTER): codec.dump(SYNC).replace(b'"sync"', b'"quorum"', 1)}
    )
    assert not tracker.view.reachable
    assert tracker.view.state == SYNC, "what was last known"
