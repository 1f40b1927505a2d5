"""What travels between us and etcd's JSON gateway, as pure functions.

The gateway speaks protobuf's JSON: bytes are base64, 64-bit numbers are strings,
and a field at its zero value is left out.  So "succeeded: false" arrives as *no*
field, exactly as it would in a mutilated answer.  To tell the two apart, a
transaction asks on its failure branch for the keys it compared: an answer counts
as *lost* only if it shows a comparison that does not hold (S1).

Source: etcd 3.4 to 3.6, api/etcdserverpb/rpc.proto and mvccpb/kv.proto.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flightmode.store.port import Change, Compare, Entry, Op, Put, Snapshot, Txn

Json = dict[str, Any]


class Malformed(Exception):
    """An answer that etcd would not give."""


@dataclass(frozen=True, slots=True)
class Header:
    """What every answer says about the member that gave it (`ResponseHeader`)."""

    cluster_id: int
    member_id: int
    raft_term: int
    revision: int
    """0 where the answer does not carry one (the cluster RPCs)."""


def number(of: Json, name: str) -> int:
    """A 64-bit number field; 0 if it was left out."""
    value = of.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Malformed(f"{name} is no number")
    try:
        return int(value)
    except ValueError as error:
        raise Malformed(f"{name} is no number") from error


def objects(of: Json, name: str) -> list[Json]:
    """A repeated message field; empty if it was left out."""
    value = of.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Malformed(f"{name} is no list of objects")
    return value


def encode(key: str) -> str:
    """A key as base64.  Foreign keys that are not UTF-8 survive the round trip."""
    return base64.b64encode(key.encode(errors="surrogateescape")).decode()


def _bytes(of: Json, name: str) -> bytes:
    value = of.get(name, "")
    if not isinstance(value, str):
        raise Malformed(f"{name} is no base64")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise Malformed(f"{name} is no base64") from error


def _key(of: Json) -> str:
    return _bytes(of, "key").decode(errors="surrogateescape")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that begin with `prefix`; one zero byte means "no end"."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"


def key_range(prefix: str) -> Json:
    """The fields that select every key under `prefix`; the empty prefix selects all keys."""
    start = prefix.encode(errors="surrogateescape")
    return {
        "key": base64.b64encode(start or b"\0").decode(),
        "range_end": base64.b64encode(prefix_end(start)).decode(),
    }


def read_header(answer: Json) -> Header:
    """The header, which no answer lacks."""
    header = answer.get("header")
    if not isinstance(header, dict):
        raise Malformed("an answer without header")
    found = Header(
        number(header, "cluster_id"),
        number(header, "member_id"),
        number(header, "raft_term"),
        number(header, "revision"),
    )
    if not found.cluster_id or not found.member_id or not found.raft_term:
        raise Malformed("an answer with half a header")
    return found


# ------------------------------------------------------------------- range


def range_body(prefix: str) -> Json:
    """`RangeRequest`: everything under `prefix`, linearizably."""
    return {**key_range(prefix), "serializable": False}


def read_range(answer: Json) -> Snapshot:
    """The answer to `range_body`."""
    revision = read_header(answer).revision
    rows = objects(answer, "kvs")
    if revision < 1 or answer.get("more") or len(rows) != number(answer, "count"):
        raise Malformed("half a range")
    return Snapshot(revision, {entry.key: entry for entry in map(_entry, rows)})


def _entry(row: Json) -> Entry:
    entry = Entry(_key(row), _bytes(row, "value"), number(row, "mod_revision"))
    if not entry.key or entry.mod_revision < 1:
        raise Malformed("half an entry")
    return entry


# --------------------------------------------------------------------- txn


def txn_body(compares: Sequence[Compare], ops: Sequence[Op]) -> Json:
    """`TxnRequest`; its failure branch reads the compared keys, as the proof of *lost*."""
    return {
        "compare": [
            {
                "key": encode(compare.key),
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": str(compare.mod_revision),
            }
            for compare in compares
        ],
        "success": [_op(op) for op in ops],
        "failure": [
            {"request_range": {"key": encode(compare.key), "keys_only": True}}
            for compare in compares
        ],
    }


def _op(op: Op) -> Json:
    if isinstance(op, Put):
        value = base64.b64encode(op.value).decode()
        return {"request_put": {"key": encode(op.key), "value": value}}
    return {"request_delete_range": {"key": encode(op.key)}}


def read_txn(answer: Json, compares: Sequence[Compare], ops: Sequence[Op]) -> Txn:
    """The answer to `txn_body`: done, or *lost* with its proof; else Malformed."""
    revision = read_header(answer).revision
    succeeded, responses = answer.get("succeeded", False), objects(answer, "responses")
    if revision < 1 or not isinstance(succeeded, bool):
        raise Malformed("half a transaction")
    if succeeded and len(responses) == len(ops):
        return Txn(True, revision)
    if not succeeded and _proves_lost(responses, compares):
        return Txn(False, revision)
    raise Malformed("a transaction neither done nor lost")


def _proves_lost(responses: Sequence[Json], compares: Sequence[Compare]) -> bool:
    """One of the compared keys has another revision than the one it was compared with."""
    if len(responses) != len(compares):
        return False
    found = [_found_revision(response) for response in responses]
    return any(compare.mod_revision != at for compare, at in zip(compares, found, strict=True))


def _found_revision(response: Json) -> int:
    inner = response.get("response_range")
    if not isinstance(inner, dict):
        raise Malformed("a comparison's key was not read")
    rows = objects(inner, "kvs")
    return number(rows[0], "mod_revision") if rows else 0


# ------------------------------------------------------------------- watch


def watch_body(prefix: str, from_revision: int) -> Json:
    """`WatchCreateRequest`."""
    return {
        "create_request": {
            **key_range(prefix),
            "start_revision": str(from_revision),
            "progress_notify": True,
        }
    }


@dataclass(frozen=True, slots=True)
class WatchNews:
    """One message of a watch stream.

    The header's revision is deliberately no part of it: that of `created` and (before etcd 3.5.8
    and 3.4.25) that of a progress message may be ahead of events that are still to come.
    """

    header: Header
    changes: tuple[Change, ...] = ()
    compact_revision: int = 0
    canceled: str | None = None
    """Why etcd ended the watch; None while it goes on."""


def read_watch(message: Json) -> WatchNews:
    """One line of the stream; raises Malformed also for the error that ends a stream."""
    result = message.get("result")
    if not isinstance(result, dict):
        raise Malformed(error_text(message))
    ended = str(result.get("cancel_reason") or "no reason given")
    return WatchNews(
        read_header(result),
        tuple(map(_change, objects(result, "events"))),
        number(result, "compact_revision"),
        ended if result.get("canceled") else None,
    )


def _change(event: Json) -> Change:
    row = event.get("kv")
    kind = event.get("type", "PUT")
    if not isinstance(row, dict) or kind not in ("PUT", "DELETE"):
        raise Malformed("half an event")
    entry = _entry(row)
    return Change(entry.key, None if kind == "DELETE" else entry.value, entry.mod_revision)


def error_text(answer: Json) -> str:
    """What an error answer says, in whichever of the gateway's three shapes it comes."""
    inner = answer.get("error")
    source = inner if isinstance(inner, dict) else answer
    text = source.get("message") or source.get("error") or "an answer without a result"
    return str(text)
