"""Streaming replication: a WAL receiver on a standby, a walsender on its primary.

The receiver flushes and acknowledges until it has really ended, which may be a while
after its primary_conninfo was cleared.  Either side gives up a silent connection after
four seconds.
"""

from typing import TYPE_CHECKING

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.timeline import History
from simulator.network import Stream
from simulator.wal import Record

if TYPE_CHECKING:
    from simulator.postgres import SimServer

TIMEOUT_S = 4.0
_STATUS_S = 1.0


class Receiver:
    """The standby's side of a connection."""

    def __init__(self, server: "SimServer", source: str) -> None:
        self.server = server
        self.source = source
        self.streaming = False
        self.ended = False
        self.flushed: Lsn = NOWHERE
        self.timeline = 0
        self.sender: Sender | None = None
        self.out: Stream | None = None
        self._heard_s = server.loop.time()
        self._unflushed = 0

    @property
    def heard_ago_s(self) -> float:
        """As pg_stat_wal_receiver's last_msg_receipt_time tells it."""
        return self.server.loop.time() - self._heard_s

    def connect(self) -> None:
        """Ask for WAL; what comes of it is told later, or never."""
        server, data = self.server, self.server.data
        assert data is not None
        serve = server.peer(self.source).serve
        server.network.send(server.name, self.source, serve, self, data.wal.end, data.wal.timeline)
        server.later(2.0, self._no_answer)

    def _no_answer(self) -> None:
        if self.sender is None:
            self.end()

    def refused(self) -> None:
        if self.sender is None:
            self.end()

    def accepted(self, sender: "Sender", histories: dict[int, History], timeline: int) -> None:
        """The connection stands; its first act is to fetch the history files."""
        if self.ended or self.server.receiver is not self or self.server.data is None:
            sender.end()
            return
        self.sender = sender
        self.out = Stream(self.server.network, self.server.name, self.source)
        self.server.data.histories.update(
            {tl: h for tl, h in histories.items() if tl not in self.server.data.histories}
        )
        self.timeline = timeline
        self.streaming = True
        self._heard_s = self.server.loop.time()
        self._reply()
        self.server.later(_STATUS_S, self._status)

    def receive(self, records: tuple[Record, ...]) -> None:
        """WAL has arrived: write it, flush it, say so."""
        if self.ended:
            return
        server = self.server
        self._heard_s = server.loop.time()
        data = server.data
        assert data is not None
        for record in records:
            if record.end <= data.wal.end:
                continue
            # Bytes are written where they belong: it does not notice that it had others before.
            end = data.wal.end
            if record.start != end:
                record = Record(record.timeline, end, record.end, "torn")
            data.wal.put(record)
            self.timeline = record.timeline
        if records:
            server.heard_wal(self.source)
            self._unflushed += 1
            server.flush(self._flush, len(data.wal.records))

    def _flush(self, count: int) -> None:
        """Also a receiver that is about to end has what it received flushed."""
        data = self.server.data
        self._unflushed -= 1
        if self.ended or data is None:
            return
        data.wal.flushed = max(data.wal.flushed, min(count, len(data.wal.records)))
        self.flushed = data.wal.flushed_end
        self.server.standby_received(self.flushed)
        self._reply()

    def _reply(self) -> None:
        if self.out is not None and self.sender is not None and self.server.data is not None:
            self.out.write(self.sender.told, self.server.data.wal.flushed_end)

    def _status(self) -> None:
        if self.ended:
            return
        if self.server.loop.time() - self._heard_s > TIMEOUT_S:
            self.end()
            return
        if not (self.server.stalled and self._unflushed):
            # A receiver that waits for its disk says nothing.
            self._reply()
        self.server.later(_STATUS_S, self._status)

    def end(self, *, orderly: bool = True) -> None:
        """The process is gone."""
        if self.ended:
            return
        self.ended, self.streaming = True, False
        if orderly and self.server.data is not None:
            # WalRcvDie: what was received is flushed, and nobody is told.
            self.server.data.wal.flush()
            self.server.standby_received(self.server.data.wal.flushed_end)
        if self.out is not None:
            self.out.close()
        if self.sender is not None:
            network = self.server.network
            network.send(self.server.name, self.source, self.sender.end)
        self.server.receiver_ended(self)


class Sender:
    """The primary's side: one walsender."""

    def __init__(self, server: "SimServer", receiver: Receiver, start: Lsn) -> None:
        self.server = server
        self.receiver = receiver
        self.name = receiver.server.name
        assert server.data is not None
        self.sent = server.data.wal.index(start)
        self.flushed = NOWHERE
        self.caught_up = False
        self.replies = 0
        self.ended = False
        self.sync_names = server.sync_names
        """synchronous_standby_names as this process has it."""
        self.out = Stream(server.network, server.name, self.name)
        self._heard_s = server.loop.time()
        server.later(_STATUS_S, self._status)

    def pump(self) -> None:
        """Send what is flushed and not sent."""
        data = self.server.data
        if self.ended or data is None:
            return
        count = data.wal.flushed
        if count > self.sent:
            records = tuple(data.wal.records[self.sent : count])
            self.sent = count
            self.out.write(self.receiver.receive, records)
        elif not self.caught_up:
            self.caught_up = True

    def told(self, flushed: Lsn) -> None:
        """The standby's reply."""
        if self.ended:
            return
        self._heard_s = self.server.loop.time()
        self.replies += 1
        self.flushed = max(self.flushed, flushed)
        data = self.server.data
        if data is not None and not self.caught_up:
            self.caught_up = self.sent >= data.wal.flushed
        self.server.standby_flushed(self)

    def counts(self) -> bool:
        """Whether commits may be acknowledged by what this one's standby has flushed."""
        return self.caught_up and not self.ended and self.name in self.sync_names

    def _status(self) -> None:
        if self.ended:
            return
        if self.server.loop.time() - self._heard_s > TIMEOUT_S:
            self.end()
            return
        self.out.write(self.receiver.receive, ())
        self.server.later(_STATUS_S, self._status)

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self.out.close()
        network = self.server.network
        network.send(self.server.name, self.name, self.receiver.end)
        self.server.sender_ended(self)
