"""Sessions of clients on one postmaster, and how their commits are acknowledged.

A commit is written, flushed, and then, if the shared flag of syncrep.c is set, waits for a
walsender whose own synchronous_standby_names counts its standby.  The flag is the
checkpointer's, each walsender reloads for itself: a new setting takes effect in pieces.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from flightmode.model.lsn import NOWHERE, Lsn
from simulator.wal import Record

if TYPE_CHECKING:
    from simulator.postgres import SimServer
    from simulator.replication import Sender

Answer = Callable[[str, int | None], None]
"""What a client is told: acknowledged | refused | broken | seen, and a row."""


class Sessions:
    """Of one life of the server."""

    def __init__(self, server: "SimServer") -> None:
        self._server = server
        self.waits = False
        """The shared flag: commits wait for a standby."""
        self.flag_s = 0.0
        """When the checkpointer will have taken up the last change."""
        self.newest: int | None = None
        """The newest row that a new snapshot shows."""
        self._waiting: deque[tuple[int, int, Answer]] = deque()
        self._released = NOWHERE
        self._running: dict[int, Answer] = {}

    def open(self) -> None:
        """Recovery is over: everything in the WAL is visible; the flag is still to be set."""
        data = self._server.data
        assert data is not None
        rows = (record.row for record in reversed(data.wal.records) if record.row is not None)
        self.newest = next(rows, None)
        if data.sync_names:
            self.reload()

    @property
    def _admitting(self) -> bool:
        server = self._server
        return server.state == "primary" and server.data is not None and server.data.admits

    # ------------------------------------------------------------------ clients

    def read(self, answer: Answer) -> None:
        if self._admitting and self.newest is not None and not self._server.hung:
            answer("seen", self.newest)

    def commit(self, row: int, answer: Answer) -> None:
        server, data = self._server, self._server.data
        if not self._admitting or data is None:
            answer("refused", row)
            return
        if server.hung and server.dice.random() < 0.5:
            # A new connection; the sessions that stand go on.
            return
        if server.full:
            answer("broken", row)
            server.later(0.0, server.panic)
            return
        record = data.wal.write(data.wal.timeline, "row", 200, row)
        self._running[row] = answer
        server.flush(self._flushed, record, len(data.wal.records))

    def _flushed(self, record: Record, count: int) -> None:
        server, data = self._server, self._server.data
        assert data is not None
        assert record.row is not None
        data.wal.flushed = max(data.wal.flushed, count)
        server.pump()
        answer = self._running.pop(record.row, None)
        if answer is None:
            return
        if not self.waits or record.end <= self._released:
            self._done(record.row, answer)
        else:
            self._waiting.append((record.end, record.row, answer))

    def _done(self, row: int, answer: Answer) -> None:
        self.newest = row
        answer("acknowledged", row)

    def release(self) -> None:
        """A standby that counts has flushed more (SyncRepReleaseWaiters)."""
        flushed = [s.flushed for s in self._server.senders.values() if s.counts()]
        if not flushed:
            return
        self._released = max(self._released, Lsn(max(flushed)))
        while self._waiting and self._waiting[0][0] <= self._released:
            _, row, answer = self._waiting.popleft()
            self._done(row, answer)

    # ------------------------------------------------------------------ settings

    def reload(self) -> None:
        """synchronous_standby_names was changed and the server was told to reload.

        Each process reads the file when it gets to it.
        """
        server = self._server
        server.later(self._soon_s(), self._visible)
        for sender in server.senders.values():
            server.later(self._soon_s(), self._sender_reloads, sender)
        flag_s = self._soon_s()
        if server.chance(server.weather.checkpointer_busy):
            flag_s += server.dice.uniform(0.0, 3.0)
        self.flag_s = max(self.flag_s, server.loop.time() + flag_s)
        server.later(self.flag_s - server.loop.time(), self._flag)

    def _soon_s(self) -> float:
        return self._server.dice.uniform(0.0, self._server.weather.reload_s)

    def _names(self) -> tuple[str, ...]:
        server = self._server
        return () if server.data is None or server.overruled else server.data.sync_names

    def _visible(self) -> None:
        self._server.sync_names = self._names()

    def _sender_reloads(self, sender: "Sender") -> None:
        sender.sync_names = self._names()

    def _flag(self) -> None:
        self.waits = bool(self._names())
        if not self.waits:
            waiting, self._waiting = self._waiting, deque()
            for _, row, answer in waiting:
                self._done(row, answer)

    # ------------------------------------------------------------------ ends

    def break_off(self) -> None:
        """The connections are closed: nobody knows what became of what was under way."""
        answers = [*self._running.items(), *((row, a) for _, row, a in self._waiting)]
        self.vanish()
        for row, answer in answers:
            answer("broken", row)

    def vanish(self) -> None:
        """Without a word."""
        self._running = {}
        self._waiting.clear()
