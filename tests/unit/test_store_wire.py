"""JSON to and from etcd's gateway: what counts as an answer, and above all as *lost*."""

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightmode.store import wire
from flightmode.store.port import Change, Compare, Delete, Put, Txn

HEADER = {"cluster_id": "7", "member_id": "8", "revision": "42", "raft_term": "3"}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def row(key: str, mod_revision: int, value: str = "") -> dict[str, Any]:
    return {"key": b64(key), "mod_revision": str(mod_revision), "value": b64(value)}


# -------------------------------------------------------------------- prefixes


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_the_end_of_a_prefix_is_the_first_key_after_it(prefix: bytes, end: bytes) -> None:
    assert wire.prefix_end(prefix) == end


@given(prefix=st.binary(max_size=4), key=st.binary(min_size=1, max_size=6))
def test_a_key_lies_in_the_range_of_a_prefix_if_and_only_if_it_begins_with_it(
    prefix: bytes, key: bytes
) -> None:
    end = wire.prefix_end(prefix)
    inside = key >= prefix and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


@given(raw=st.binary(min_size=1, max_size=20))
def test_foreign_keys_that_are_not_utf8_survive_the_round_trip(raw: bytes) -> None:
    answer = {
        "header": HEADER,
        "count": "1",
        "kvs": [{"key": base64.b64encode(raw).decode(), "mod_revision": "5"}],
    }
    (key,) = wire.read_range(answer).entries
    assert base64.b64decode(wire.encode(key)) == raw


# --------------------------------------------------------------------- answers


def test_a_range_is_read_whole() -> None:
    answer = {"header": HEADER, "count": "2", "kvs": [row("a", 4, "x"), row("b", 9)]}
    snapshot = wire.read_range(answer)
    assert snapshot.revision == 42
    assert {k: (e.value, e.mod_revision) for k, e in snapshot.entries.items()} == {
        "a": (b"x", 4),
        "b": (b"", 9),
    }


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"kvs": []},
        {"header": {}},
        {"header": {**HEADER, "cluster_id": "0"}},
        {"header": {**HEADER, "revision": "0"}},
        {"header": {**HEADER, "revision": "many"}},
        {"header": {**HEADER, "revision": True}},
        {"header": HEADER, "count": "1"},
        {"header": HEADER, "count": "1", "more": True, "kvs": [row("a", 4)]},
        {"header": HEADER, "count": "1", "kvs": [{"key": "?"}]},
        {"header": HEADER, "count": "1", "kvs": [{"key": b64("a")}]},
        {"header": HEADER, "count": "1", "kvs": ["a"]},
        {"header": HEADER, "count": "1", "kvs": {"a": 1}},
    ],
)
def test_half_a_range_is_no_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(wire.Malformed):
        wire.read_range(answer)


COMPARES = (Compare("a", 4), Compare("b", 0))
OPS = (Put("a", b"x"), Delete("b"))


def lost(a: int | None, b: int | None) -> dict[str, Any]:
    """The answer of a failed transaction that found the keys at these revisions."""
    return {
        "header": HEADER,
        "responses": [
            {"response_range": {"kvs": [row(key, at)]} if at is not None else {}}
            for key, at in (("a", a), ("b", b))
        ],
    }


def test_a_transaction_is_done_if_it_says_so() -> None:
    answer = {"header": HEADER, "succeeded": True, "responses": [{}, {}]}
    assert wire.read_txn(answer, COMPARES, OPS) == Txn(True, 42)


@pytest.mark.parametrize(("a", "b"), [(5, None), (None, None), (4, 7), (3, 7)])
def test_a_transaction_is_lost_if_a_comparison_is_shown_not_to_hold(
    a: int | None, b: int | None
) -> None:
    assert wire.read_txn(lost(a, b), COMPARES, OPS) == Txn(False, 42)


@pytest.mark.parametrize(
    "answer",
    [
        {"header": HEADER},
        {"header": HEADER, "succeeded": False},
        {"header": HEADER, "succeeded": "false"},
        {"header": HEADER, "succeeded": None, "responses": lost(5, None)["responses"]},
        {"header": HEADER, "succeeded": True},
        {"header": HEADER, "succeeded": True, "responses": [{}]},
        {"header": HEADER, "responses": [{}, {}]},
        lost(4, None),
        {**lost(5, None), "header": {**HEADER, "revision": "0"}},
        {"responses": lost(5, None)["responses"]},
    ],
)
def test_a_transaction_neither_done_nor_proved_lost_is_no_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(wire.Malformed):
        wire.read_txn(answer, COMPARES, OPS)


@given(data=st.data())
def test_no_mutilation_makes_lost_out_of_done(data: st.DataObject) -> None:
    """Whatever is missing from the answer of a transaction that was done, it is never *lost*."""
    answer: Any = {
        "header": dict(HEADER),
        "succeeded": True,
        "responses": [{"response_put": {"header": {"revision": "42"}}}, {}],
    }
    mutilated = copy.deepcopy(answer)
    for _ in range(data.draw(st.integers(1, 4))):
        node = mutilated
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            if data.draw(st.booleans()):
                del node[key]
                break
            node = node[key]
    try:
        outcome = wire.read_txn(mutilated, COMPARES, OPS)
    except wire.Malformed:
        return
    assert outcome.succeeded


def test_a_transaction_asks_for_the_proof_of_its_loss() -> None:
    body = wire.txn_body(COMPARES, OPS)
    json.dumps(body)
    assert [each["request_range"]["key"] for each in body["failure"]] == [b64("a"), b64("b")]
    assert body["compare"][1]["mod_revision"] == "0"


# --------------------------------------------------------------------- watches


def test_events_become_changes() -> None:
    message = {
        "result": {
            "header": HEADER,
            "events": [{"kv": row("a", 41, "x")}, {"type": "DELETE", "kv": row("b", 42)}],
        }
    }
    news = wire.read_watch(message)
    assert news.changes == (Change("a", b"x", 41), Change("b", None, 42))
    assert (news.compact_revision, news.canceled) == (0, None)


def test_a_compaction_is_told_with_its_revision() -> None:
    message = {"result": {"header": HEADER, "canceled": True, "compact_revision": "40"}}
    assert wire.read_watch(message).compact_revision == 40


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"result": {}},
        {"result": []},
        {"error": {"grpc_code": 14, "message": "etcdserver: no leader"}},
        {"result": {"header": HEADER, "events": [{}]}},
        {"result": {"header": HEADER, "events": [{"type": "MOVE", "kv": row("a", 41)}]}},
    ],
)
def test_anything_else_on_a_watch_is_no_news(message: dict[str, Any]) -> None:
    with pytest.raises(wire.Malformed):
        wire.read_watch(message)


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "etcdserver: no leader", "message": "etcdserver: no leader", "code": 14},
        {"code": 14, "message": "etcdserver: no leader", "details": []},
        {"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}},
        {"error": "etcdserver: no leader"},
    ],
)
def test_etcds_own_words_are_found_in_an_error_of_any_version(answer: dict[str, Any]) -> None:
    assert wire.error_text(answer) == "etcdserver: no leader"
