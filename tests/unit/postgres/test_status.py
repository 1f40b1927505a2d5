"""What a server answers, in our words."""

import json
from typing import Any

import pytest

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.server import Run, Slot
from flightmode.model.timeline import History
from flightmode.postgres import status
from flightmode.postgres.settings import conninfo
from tests.unit.postgres.ams import CONFIG

RECEIVER = {
    "status": "streaming",
    "host": "10.0.0.2",
    "flushed": "0/5",
    "timeline": 2,
    "heard_ago": 0.5,
}


def answer(**changed: Any) -> str:
    told: dict[str, Any] = {
        "started": "then",
        "recovery": False,
        "system": "77",
        "major": 15,
        "position": "0/9",
        "replayed": "0/9",
        "timeline": 1,
        "settings": {"primary_conninfo": "", "synchronous_standby_names": ""},
        "segment": 16 << 20,
        "receiver": None,
        "receiving": False,
        "replicas": None,
        "slots": None,
        "pending_restart": None,
    }
    return json.dumps(told | changed)


def standby(**changed: Any) -> str:
    to = conninfo(CONFIG, "fra")
    names = {"primary_conninfo": to, "synchronous_standby_names": ""}
    return answer(**{"recovery": True, "settings": names} | changed)


def test_a_primary_with_a_replica_and_a_slot() -> None:
    replica = {
        "name": "fra",
        "state": "streaming",
        "sync_state": "quorum",
        "sent": "0/9",
        "flushed": "0/8",
        "replayed": None,
        "reply": None,
    }
    slot = {"name": "fra", "active": True, "wal_status": None}
    names = {"primary_conninfo": "", "synchronous_standby_names": 'ANY 1 ("fra")'}
    text = answer(replicas=[replica], slots=[slot], settings=names, pending_restart=["port"])
    seen = status.server(text, CONFIG, History)
    assert (seen.run, seen.position, seen.sync_names) == (Run.PRIMARY, Lsn(9), ("fra",))
    assert seen.slots == (Slot("fra", True, "reserved"),)
    assert seen.replicas[0].flushed == Lsn(8)
    assert seen.replicas[0].replayed == NOWHERE
    assert seen.pending_restart == ("port",)
    assert seen.following is None


def test_a_standby_names_the_member_it_follows() -> None:
    seen = status.server(standby(receiver=RECEIVER, receiving=True), CONFIG, History)
    assert (seen.run, seen.following) == (Run.STANDBY, "fra")
    assert seen.receiver is not None
    assert seen.receiver.streaming
    assert seen.data is not None
    assert seen.data.timeline == 2, "the receiver knows it before the control file"


def test_a_stranger_is_told_by_its_address() -> None:
    names = {"primary_conninfo": "host=192.0.2.9", "synchronous_standby_names": ""}
    assert status.server(standby(settings=names), CONFIG, History).following == "192.0.2.9:5432"


def test_a_receiver_without_a_row_is_still_one() -> None:
    seen = status.server(standby(receiving=True), CONFIG, History)
    assert seen.receiver is not None
    assert not seen.receiver.streaming


def test_without_a_receiver_the_timeline_is_that_of_the_wal() -> None:
    text = standby()
    assert status.alone(text) == status.Alone(Lsn(9), 16 << 20)
    seen = status.server(text, CONFIG, History, received=3)
    assert (seen.data and seen.data.timeline, seen.history) == (3, History(3))


@pytest.mark.parametrize("text", [answer(), standby(receiver=RECEIVER, receiving=True)])
def test_who_tells_a_timeline_is_not_alone(text: str) -> None:
    assert status.alone(text) is None


def test_a_history_that_is_not_there_yet_is_not_invented() -> None:
    assert status.server(answer(timeline=2), CONFIG, lambda _: None).history is None
