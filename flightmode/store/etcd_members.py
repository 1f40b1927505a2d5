"""etcd's own members: who they are, how each is, and which one should lead."""

import asyncio
from dataclasses import dataclass

from flightmode.errors import StoreUnknown
from flightmode.store.calls import Call, Calls
from flightmode.store.wire import Json, Malformed, number, objects, read_header


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One row of etcd's member list."""

    id: int
    name: str
    """Empty until the member has started for the first time."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True, slots=True)
class EtcdHealth:
    """What one member says of itself."""

    endpoint: str
    id: int
    leader_id: int
    """0: it knows of no leader."""
    version: str
    raft_term: int
    revision: int
    db_bytes: int
    db_in_use_bytes: int


class EtcdMembers:
    """Calls about the etcd cluster itself, for commands, alerts, and the leader's place."""

    def __init__(self, calls: Calls, urls: tuple[str, ...]) -> None:
        self._calls = calls
        self._urls = urls

    async def list(self) -> tuple[EtcdMember, ...]:
        """All members, up or not.  Raises StoreUnknown.

        etcd 3.4 answers from the member's own knowledge; later ones linearizably.
        """
        return await self._calls.ask(
            Call("/v3/cluster/member/list", {"linearizable": True}, _read_list, local=True)
        )

    async def health(self) -> dict[str, EtcdHealth | StoreUnknown]:
        """What each endpoint says, or why it says nothing; within one deadline.  Never raises."""
        found = await asyncio.gather(*(self._health(url) for url in self._urls))
        return dict(zip(self._urls, found, strict=True))

    async def _health(self, url: str) -> EtcdHealth | StoreUnknown:
        call = Call("/v3/maintenance/status", {}, lambda a: _read_health(url, a), local=True)
        try:
            return await self._calls.ask_one(url, call)
        except StoreUnknown as unknown:
            return unknown

    async def remove(self, member_id: int) -> None:
        """Strike a member off for ever; its data are of no use any more.  Sent once.

        Raises StoreUnknown: it may be done, now or soon; ask `list`.  etcd refuses when the
        members that are left could not decide.
        """
        body = {"ID": str(member_id)}
        await self._calls.send(Call("/v3/cluster/member/remove", body, _read_nothing))

    async def add(self, peer_url: str) -> None:
        """Announce a member that has not started yet, and has no data.  Sent once.

        Raises StoreUnknown, as `remove`.
        """
        body = {"peerURLs": [peer_url], "isLearner": False}
        await self._calls.send(Call("/v3/cluster/member/add", body, _read_nothing))

    async def move_leader(self, member_id: int) -> None:
        """Make `member_id` etcd's leader.  Safe to repeat; nothing to do if it is.

        Raises StoreUnknown: it may have moved, now or soon; ask `health`.  Takes two deadlines
        at most.  Only the leader itself accepts the order, so it has to be an endpoint of ours.
        """
        known = [one for one in (await self.health()).values() if isinstance(one, EtcdHealth)]
        latest = max(known, key=lambda one: one.raft_term, default=None)
        if latest is not None and latest.leader_id == member_id:
            return
        for one in known:
            if latest is not None and one.id == latest.leader_id:
                path, body = "/v3/maintenance/transfer-leadership", {"targetID": str(member_id)}
                call = Call(path, body, _read_nothing, local=True)
                return await self._calls.ask_one(one.endpoint, call)
        raise StoreUnknown("no endpoint of ours leads etcd just now")


def _read_nothing(answer: Json) -> None:
    """An answer of which only the header matters."""


def _read_list(answer: Json) -> tuple[EtcdMember, ...]:
    return tuple(map(_read_member, objects(answer, "members")))


def _read_member(row: Json) -> EtcdMember:
    return EtcdMember(
        number(row, "ID"),
        str(row.get("name", "")),
        tuple(map(str, row.get("peerURLs", ()))),
        tuple(map(str, row.get("clientURLs", ()))),
        row.get("isLearner") is True,
    )


def _read_health(url: str, answer: Json) -> EtcdHealth:
    header = read_header(answer)
    version = answer.get("version")
    if not isinstance(version, str):
        raise Malformed("a status without version")
    return EtcdHealth(
        url,
        header.member_id,
        number(answer, "leader"),
        version,
        header.raft_term,
        header.revision,
        number(answer, "dbSize"),
        number(answer, "dbSizeInUse"),
    )
