"""The Postgres port over the model: what an agent can ask of its server, and how long it takes.

Like the real hand it remembers some things itself, and loses them with its agent: which
postmaster has answered, and since when commits are known to wait for whom.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flightmode.errors import (
    DataInTheWay,
    PostgresCommandFailed,
    ServerSilent,
    ServerUnwilling,
    SourceNotReady,
    SyncNamesUnproven,
)
from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.server import FenceView, Receiver, Replica, Role, Run, Server
from flightmode.model.server import Slot as SlotSeen
from flightmode.postgres.port import PROBE_S, StartCommand
from simulator.copying import clone, initdb, rewind
from simulator.postgres import PRIMARY, STANDBY, SimServer
from simulator.wal import Data, Slot

_COMMAND = StartCommand(("/postgres",), (), 999, 999, Path("/data"), Path("/log"))
_EFFECTIVE_S = 10.0
_PROBE_TAKES_S = 0.003


class SimPostgres:
    """Implements `flightmode.postgres.port.Postgres`, for one life of one agent."""

    def __init__(self, server: SimServer, gate: Callable[[], Any]) -> None:
        self._server = server
        self._gate = gate
        self._answered = 0
        self._proof: tuple[tuple[str, ...], Lsn, int] | None = None
        self._prepared = 0

    async def _takes(self, most_s: float) -> None:
        await self._server.loop.sleep(self._server.dice.uniform(0.1, 1.0) * most_s)
        await self._gate()

    def _running(self, *states: str) -> Data:
        """The data of a server that answers.  Raises ServerUnwilling."""
        server = self._server
        if server.state not in (states or (PRIMARY, STANDBY)) or server.data is None:
            raise ServerUnwilling(f"Postgres is {server.state}")
        if server.hung:
            raise ServerSilent("no new connection was answered in time")
        return server.data

    # ------------------------------------------------------------------ looking

    async def observe(self, fence: FenceView) -> Server:
        await self._takes(0.003)
        server = self._server
        if fence.reachable and not fence.running:
            self._answered = 0
            return self._stopped(fence)
        if server.hung and self._answered != server.started:
            return Server(Run.STARTING)
        if server.state not in (PRIMARY, STANDBY):
            if fence.running:
                return Server(Run.STARTING)
            return Server(Run.DYING if server.postmaster() is None else Run.SILENT)
        self._answered = server.started
        return self._seen()

    async def probe(self) -> None:
        await self._server.loop.sleep(_PROBE_TAKES_S)
        await self._gate()
        server = self._server
        if server.state != PRIMARY:
            raise ServerUnwilling(f"Postgres is {server.state}")
        if not (server.hung or server.stalled):
            return
        await self._server.loop.sleep(PROBE_S)
        await self._gate()
        if server.state != PRIMARY:
            raise ServerUnwilling(f"Postgres is {server.state}")
        if server.hung or server.stalled:
            raise ServerSilent("no new connection, or no write, within the time")

    def _stopped(self, fence: FenceView) -> Server:
        if not fence.tree_empty:
            return Server(Run.DYING)
        data = self._server.data
        if data is None:
            return Server(Run.ABSENT)
        seen = data.as_seen()
        history = data.history_of(seen.timeline)
        return Server(Run.STOPPED, data=seen, history=history, position=seen.position)

    def _seen(self) -> Server:
        server, data = self._server, self._server.data
        assert data is not None
        standby = server.state == STANDBY
        timeline = data.control_timeline() if standby else data.wal.timeline
        receiver = server.receiver
        if receiver is not None:
            timeline = max(timeline, receiver.timeline)
        proof = self._proof
        proven = proof is not None and (proof[0], proof[2]) == (server.sync_names, server.started)
        if not proven:
            self._proof = None
        return Server(
            run=Run.STANDBY if standby else Run.PRIMARY,
            data=data.as_seen(),
            history=data.history_of(timeline),
            position=server.position,
            replayed=server.replayed if standby else server.position,
            following=server.following,
            receiver=None if receiver is None else self._receiver(),
            sync_names=server.sync_names,
            sync_since=proof[1] if proof is not None and proven else None,
            replicas=tuple(self._replicas()),
            slots=tuple(
                SlotSeen(name, name in server.senders, "lost" if slot.lost else "reserved")
                for name, slot in data.slots.items()
            ),
            admits_clients=data.admits,
            disk_free=0.0 if server.full else 0.5,
            prepared=self._prepared == server.started and not standby,
        )

    def _receiver(self) -> Receiver:
        receiver = self._server.receiver
        assert receiver is not None
        return Receiver(
            receiver.streaming,
            receiver.source if receiver.streaming else "",
            receiver.flushed,
            receiver.timeline,
            receiver.heard_ago_s if receiver.streaming else None,
        )

    def _replicas(self) -> list[Replica]:
        return [
            Replica(
                name=sender.name,
                streaming=sender.caught_up,
                sync_state="quorum" if sender.name in sender.sync_names else "async",
                sent=sender.flushed,
                flushed=sender.flushed,
                replayed=sender.flushed,
                reply_marker=str(sender.replies),
            )
            for sender in self._server.senders.values()
        ]

    # ------------------------------------------------------------------ settings

    async def configure(self, role: Role, *, following: str | None, admit: bool) -> StartCommand:
        await self._takes(0.005)
        data = self._server.data
        if data is None:
            raise PostgresCommandFailed("there is no data directory")
        self._proof = None
        # What others have set in postgresql.auto.conf is taken out of it.
        self._server.overruled = False
        data.admits = admit
        data.following = following if role is Role.STANDBY else None
        if role is Role.STANDBY:
            data.sync_names = ()
        data.signal = role is Role.STANDBY
        return _COMMAND

    async def detach(self) -> None:
        await self._point_to(None)
        while self._server.following is not None:
            await self._takes(0.01)
            self._running()

    async def follow(self, member: str) -> None:
        await self._point_to(member)

    async def _point_to(self, member: str | None) -> None:
        await self._takes(0.004)
        data = self._running()
        data.following, data.sync_names = member, ()
        self._server.reload_following()

    async def set_sync_names(self, names: tuple[str, ...]) -> Lsn:
        await self._takes(0.004)
        server = self._server
        data = self._running()
        started = server.started
        self._proof = None
        while server.stalled:
            # The agent itself writes the file: the end of Postgres does not end that.
            await self._takes(0.05)
        data = self._running()
        data.sync_names = tuple(sorted(names))
        server.sessions.reload()
        await self._until(lambda: server.sync_names == names, started)
        if not names:
            return NOWHERE
        # A CHECKPOINT is served after the checkpointer has taken up the setting.
        await self._until(lambda: server.loop.time() > server.sessions.flag_s, started)
        await self._takes(0.05)
        await self._until_disk(started)
        self._running(PRIMARY)
        server.checkpoint()
        await self._takes(0.002)
        since = self._running(PRIMARY).wal.flushed_end
        if server.started == started:
            self._proof = (names, since, started)
        return since

    async def _until(self, holds: Callable[[], bool], started: int) -> None:
        until_s = self._server.loop.time() + _EFFECTIVE_S
        while not holds():
            await self._takes(0.01)
            self._running()
            if self._server.started != started or self._server.loop.time() > until_s:
                raise SyncNamesUnproven("the setting did not take effect")

    async def admit(self) -> None:
        await self._takes(0.004)
        self._running()
        self._server.admit()

    async def apply_settings(self) -> None:
        await self._takes(0.004)
        self._running()

    # ------------------------------------------------------------------ acts

    async def promote(self) -> None:
        await self._takes(0.002)
        self._running(STANDBY)
        self._server.promote()

    async def checkpoint(self) -> None:
        started = self._server.started
        await self._takes(0.3)
        await self._until_disk(started)
        self._running()
        self._server.checkpoint()

    async def _until_disk(self, started: int) -> None:
        """A statement that writes waits for the disk, without end; it ends with its server."""
        while self._server.stalled:
            if self._server.started != started or self._server.postmaster() is None:
                raise ServerUnwilling("the server ended the connection")
            await self._takes(0.05)

    async def prepare(self, slots: tuple[str, ...]) -> None:
        await self._takes(0.02)
        await self._until_disk(self._server.started)
        server, data = self._server, self._running(PRIMARY)
        for name in [name for name in data.slots if name not in slots]:
            if name not in server.senders:
                del data.slots[name]
        for name in slots:
            data.slots.setdefault(name, Slot())
        data.wal.write(data.wal.timeline, "ours", 60)
        data.wal.flush()
        server.pump()
        if data.control_timeline() != data.wal.timeline:
            server.checkpoint()
        self._prepared = server.started

    async def settle(self, within_s: float) -> None:
        await self._takes(within_s)
        self._running(PRIMARY)

    async def end_walsenders(self, keep: tuple[str, ...]) -> None:
        await self._takes(0.01)
        self._server.end_walsenders(keep)

    async def initdb(self) -> None:
        if self._server.data is not None:
            raise DataInTheWay("the directory is not empty; nothing was changed")
        await initdb(self._server, self._takes)

    async def clone(self, member: str) -> None:
        await clone(self._server, member, self._takes)

    async def rewind(self, member: str) -> None:
        if self._server.data is None:
            raise SourceNotReady("there is no data directory")
        await rewind(self._server, member, self._takes)

    async def close(self) -> None:
        """Nothing is held."""
