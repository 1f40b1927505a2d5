"""From the answer of `queries.OBSERVE` to a Server.  Pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.server import DataDirectory, Receiver, Replica, Run, Server, Slot
from flightmode.model.timeline import History
from flightmode.postgres.settings import PostgresConfig, parse_sync_names

Histories = Callable[[int], History | None]


def loaded_wall_s(answer: str) -> float:
    """When the server last read its configuration, pg_hba.conf with it."""
    return float(json.loads(answer)["loaded"])


def started(answer: str) -> str:
    """When the postmaster that answered was started."""
    return str(json.loads(answer)["started"])


@dataclass(frozen=True, slots=True)
class Alone:
    """A standby whose receiver does not tell a timeline."""

    position: Lsn
    segment_bytes: int


def alone(answer: str) -> Alone | None:
    """None: it is a primary, or its receiver tells the timeline."""
    told: dict[str, Any] = json.loads(answer)
    receiver = _receiver(told)
    if not told["recovery"] or (receiver is not None and receiver.streaming):
        return None
    return Alone(_lsn(told["position"]), int(told["segment"]))


def server(answer: str, config: PostgresConfig, histories: Histories, received: int = 0) -> Server:
    """What the answer says.  What this node remembers beside it is put in by the caller.

    `received`: the timeline of the WAL at its position, where that is known (`Alone`).
    """
    told: dict[str, Any] = json.loads(answer)
    recovery = bool(told["recovery"])
    receiver = _receiver(told)
    timeline = max(int(told["timeline"]), received)
    if receiver is not None:
        timeline = max(timeline, receiver.timeline)
    position = _lsn(told["position"])
    return Server(
        run=Run.STANDBY if recovery else Run.PRIMARY,
        data=DataDirectory(
            system_identifier=told["system"],
            pg_major=int(told["major"]),
            timeline=timeline,
            control_state="in archive recovery" if recovery else "in production",
            position=position,
            standby_signal=recovery,
        ),
        history=histories(timeline),
        position=position,
        replayed=_lsn(told["replayed"]),
        following=_member(told["settings"]["primary_conninfo"], config) if recovery else None,
        receiver=receiver,
        sync_names=parse_sync_names(told["settings"]["synchronous_standby_names"]),
        replicas=tuple(_replica(row) for row in told["replicas"] or ()),
        slots=tuple(
            Slot(row["name"], bool(row["active"]), row["wal_status"] or "reserved")
            for row in told["slots"] or ()
        ),
        pending_restart=tuple(told["pending_restart"] or ()),
    )


def _receiver(told: dict[str, Any]) -> Receiver | None:
    """Also a receiver that has no row yet is one: it may go on to stream (S3)."""
    row = told["receiver"]
    if row is not None:
        flushed = _lsn(row["flushed"])
        return Receiver(
            row["status"] == "streaming",
            row["host"] or "",
            flushed,
            row["timeline"] or 0,
            row["heard_ago"],
        )
    return Receiver(False, "", NOWHERE, 0) if told["receiving"] else None


def _replica(row: dict[str, Any]) -> Replica:
    return Replica(
        name=row["name"],
        streaming=row["state"] == "streaming",
        sync_state=row["sync_state"],
        sent=_lsn(row["sent"]),
        flushed=_lsn(row["flushed"]),
        replayed=_lsn(row["replayed"]),
        reply_marker=row["reply"] or "",
    )


def _member(primary_conninfo: str, config: PostgresConfig) -> str | None:
    """The peer that a primary_conninfo leads to; its address when it is none of ours."""
    if not primary_conninfo.strip():
        return None
    where = conninfo_to_dict(primary_conninfo)
    host, port = where.get("host"), int(where.get("port") or 5432)
    for peer in config.peers:
        if (peer.host, peer.port) == (host, port):
            return peer.name
    return f"{host}:{port}"


def _lsn(text: str | None) -> Lsn:
    return NOWHERE if text is None else Lsn.parse(text)
