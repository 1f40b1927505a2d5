"""The store's records: what is written is read back, by this version and its neighbours."""

import json
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightmode.errors import RecordUnreadable
from flightmode.model.action import Action, Admit, Detach, KillRemnants
from flightmode.model.cluster import ClusterState, HistoryEntry, Mode, Outcome, Request
from flightmode.model.decision import Decision
from flightmode.model.lsn import Lsn
from flightmode.model.member import Member
from flightmode.model.memory import Memory
from flightmode.model.view import View
from flightmode.store.codec import VERSION, dump, from_data, load, to_data

lsns = st.integers(0, 2**64 - 1).map(Lsn)
st.register_type_strategy(Lsn, lsns)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

# Whole views are large; a handful of each shows every field.
few = settings(max_examples=15, deadline=None)

WORDS = (ClusterState, HistoryEntry, Request, Outcome, Member, Memory, Decision, View)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.__name__)
@few
@given(data=st.data())
def test_every_word_comes_back_as_it_went(word: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(word))
    assert load(word, dump(value)) == value


@pytest.mark.parametrize("verb", get_args(Action), ids=lambda verb: verb.__name__)
@few
@given(data=st.data())
def test_every_verb_keeps_its_class_inside_a_decision(verb: type, data: st.DataObject) -> None:
    action = data.draw(st.from_type(verb))
    decision = Decision("rule", "why", (action,), Memory(), 0.5)
    assert type(load(Decision, dump(decision)).actions[0]) is verb


def test_verbs_with_equal_fields_are_not_taken_for_each_other() -> None:
    actions = (Admit(3), Detach(3), KillRemnants(3))
    decision = Decision("rule", "why", actions, Memory(), 0.5)
    assert load(Decision, dump(decision)).actions == actions


STATE = ClusterState("7001", 4, "ams", Mode.SYNC, ("fra",), 17, "bootstrap", 1.5)


def test_a_record_says_its_version() -> None:
    assert json.loads(dump(STATE))["v"] == VERSION


def test_a_position_is_written_as_postgres_prints_it() -> None:
    entry = HistoryEntry(2, "ams", None, "bootstrap", 0.0, Lsn.parse("0/16B3748"))
    assert to_data(entry)["lsn"] == "0/16B3748"


def test_fields_of_a_newer_version_are_ignored() -> None:
    newer = {**to_data(STATE), "v": VERSION + 1, "colour": "green"}
    assert load(ClusterState, json.dumps(newer)) == STATE


def test_fields_that_an_older_version_did_not_write_take_their_defaults() -> None:
    older = to_data(STATE)
    for field in ("previous", "handover", "pause", "crashes_wall_s"):
        del older[field]
    assert from_data(ClusterState, older) == STATE


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        json.dumps({**to_data(STATE), "term": "4"}),
        json.dumps({**to_data(STATE), "term": True}),
        json.dumps({**to_data(STATE), "term": 4.5}),
        json.dumps({**to_data(STATE), "leader": None}),
        json.dumps({**to_data(STATE), "mode": "chaos"}),
        json.dumps({**to_data(STATE), "sync": 3}),
        json.dumps({**to_data(STATE), "sync": "fra"}),
        json.dumps({**to_data(STATE), "handover": {"to": "fra"}}),
        b"\xff\xfe",
    ],
)
def test_what_is_not_a_state_is_refused_with_one_error(record: bytes | str) -> None:
    with pytest.raises(RecordUnreadable, match="ClusterState"):
        load(ClusterState, record)


def test_an_unreadable_record_of_a_newer_version_is_named_as_such() -> None:
    newer = {**to_data(STATE), "v": VERSION + 1, "mode": "quorum"}
    with pytest.raises(RecordUnreadable, match=f"of version {VERSION}, but {VERSION + 1}"):
        from_data(ClusterState, newer)


@given(st.binary())
def test_any_bytes_are_a_state_or_the_one_error(record: bytes) -> None:
    try:
        load(ClusterState, record)
    except RecordUnreadable:
        return
    pytest.fail("random bytes made a state")


def test_an_unknown_verb_is_refused() -> None:
    data = to_data(Decision("rule", "why", (Admit(3),), Memory(), 0.5))
    data["actions"][0]["_type"] = "Explode"
    with pytest.raises(RecordUnreadable):
        from_data(Decision, data)


def test_any_dataclass_may_be_a_record() -> None:
    @dataclass(frozen=True)
    class Pair:
        left: int
        right: tuple[str, ...] = ()

    assert load(Pair, dump(Pair(1, ("a",)))) == Pair(1, ("a",))
