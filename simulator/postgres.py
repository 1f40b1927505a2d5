"""A PostgreSQL server as a model: its processes, from start to end.

Sources: Postgres 15 manual and source, where a behaviour is not obvious it is named in
place.  Sessions and synchronous commit are in sessions.py, streaming in replication.py.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from flightmode.errors import FenceRefused
from flightmode.fence.port import StartRequest
from flightmode.model.lsn import NOWHERE, Lsn
from simulator.history import Discarded
from simulator.host import Host
from simulator.network import Network
from simulator.replication import Receiver, Sender
from simulator.sessions import Sessions
from simulator.wal import Data
from simulator.weather import Weather

_RETRY_S = 0.1
"""wal_retrieve_retry_interval"""
_CHECKPOINT_EVERY_S = 20.0

DOWN, STARTING, STANDBY, PRIMARY, STOPPING = "down", "starting", "standby", "primary", "stopping"


class SimServer:
    """One node's PostgreSQL; for the fence it is the tree of processes that it holds."""

    def __init__(self, host: Host, network: Network, dice: Random, weather: Weather) -> None:
        self.host = host
        self.loop = host.loop
        self.name = host.name
        self.network = network
        self.dice = dice
        self.weather = weather
        self.data: Data | None = None
        self.kept: list[Data] = []
        """Old data directories (I10)."""
        self.state = DOWN
        self.promoting = False
        self.stuck = False
        """Its next promotion does not end."""
        self.wedged = False
        """Its next promotion does not end in this life of Postgres."""
        self.cut_short = False
        """Its next promotion is cut off between its two durable steps."""
        self.ending = False
        """It was asked to end at once (SIGQUIT)."""
        self.hung = False
        """The postmaster is stopped (SIGSTOP): what runs goes on, nothing begins or ends by it."""
        self.stalled = False
        """The disk answers nothing."""
        self.full_since_s: float | None = None
        """The disk has no room since then: a primary panics at its next segment of WAL."""
        self.busy_with: str | None = None
        """clone | rewind | initdb: its directory is being written by a program."""
        self.life = 0
        self.started = 0
        """Tells postmasters apart, as pg_postmaster_start_time does."""
        self.following: str | None = None
        """The effective primary_conninfo."""
        self.receiver: Receiver | None = None
        self.senders: dict[str, Sender] = {}
        self.replayed = NOWHERE
        self.received = NOWHERE
        self.sync_names: tuple[str, ...] = ()
        """synchronous_standby_names as a new connection sees it."""
        self.overruled = False
        """Somebody else has set it to nothing, in a file that is read after ours."""
        self.sessions = Sessions(self)
        self.peer: Callable[[str], SimServer]
        self.changed: Callable[[], None] = lambda: None
        """Called whenever a process has ended."""
        self.heard_wal: Callable[[str], None] = lambda _: None
        """WAL has arrived from there."""
        self.became_primary: Callable[[SimServer, bool], None] = lambda *_: None
        self.discarded: Callable[[Discarded], None] = lambda _: None
        self.parts: Callable[[], None] = lambda: None
        """As a primary that was asked to stop it is about to end its sessions."""
        self.copy_begins: Callable[[str], None] = lambda _: None
        """Its directory is about to be written by that program."""
        self._pid: int | None = None
        self._remnants = False

    @property
    def full(self) -> bool:
        return self.full_since_s is not None

    def later(self, delay_s: float, act: Callable[..., object], *args: Any) -> None:
        """In this life of these processes."""
        self.host.later(delay_s, self._fire, self.life, act, args)

    def _fire(self, life: int, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        if life == self.life:
            act(*args)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.dice.random() < probability

    def flush(self, act: Callable[..., object], *args: Any) -> None:
        """Do `act` when the disk has taken what was written."""
        if self.stalled:
            self.later(0.05, self.flush, act, *args)
        else:
            self.later(self._flush_s(), act, *args)

    def _flush_s(self) -> float:
        if self.chance(self.weather.slow_flush):
            return self.dice.uniform(0.2, 1.5)
        return 0.0003 + 0.002 * self.dice.random()

    # ------------------------------------------------------------------ the fence's tree

    def start(self, request: StartRequest) -> int:
        if self.data is None:
            raise FenceRefused("start_failed", "there is no data directory")
        self.life += 1
        self.hung = False
        self.started += 1
        self._pid = self.started
        self.state, self.ending = STARTING, False
        self.received = self.replayed = NOWHERE
        data = self.data
        self.following = data.following if data.signal else None
        self.sync_names = data.sync_names
        self.sessions = Sessions(self)
        took_s = self.dice.uniform(0.03, 0.2)
        if self.chance(self.weather.recovery_slow):
            took_s += self.dice.choice((1.0, 4.0, 12.0)) * self.dice.random()
        if self.chance(self.weather.start_fails):
            self.later(took_s, self._crash)
        else:
            if data.signal:
                data.control_state = "in archive recovery"
            elif data.control_state != "shut down":
                data.control_state = "in crash recovery"
            self.later(took_s, self.flush, self._come_up)
        return self._pid

    def signal(self, mode: str) -> None:
        if self._pid is None:
            return
        # Also while it is hung it is being ended: SIGKILL follows (S4).
        self.ending |= mode == "immediate"
        if self.hung or (self.stalled and mode != "immediate"):
            # A stopped process takes its signals when it goes on; SIGKILL it cannot hold off.
            self.later(0.05, self.signal, mode)
        elif mode == "immediate":
            self.later(self.dice.uniform(0.01, 0.06), self._crash)
        elif self.state == PRIMARY:
            self._stop_primary()
        elif self.state == STANDBY:
            self.state = STOPPING
            self.later(self.dice.uniform(0.02, 0.1), self._stopped_standby)
        elif self.state == STARTING:
            self.later(self.dice.uniform(0.01, 0.1), self._crash)

    def kill(self) -> None:
        """SIGKILL for everything."""
        self.host.later(self.dice.uniform(0.001, 0.005), self._killed, self.started)

    def _killed(self, started: int) -> None:
        if self.started == started:
            self._remnants = False
            self._crash()

    def postmaster(self) -> int | None:
        return self._pid

    def empty(self) -> bool:
        return self._pid is None and not self._remnants

    # ------------------------------------------------------------------ ends

    def kill_postmaster(self) -> None:
        """SIGKILL for the postmaster alone: its children notice, or are stuck."""
        if self._pid is None:
            return
        self._end()
        self._remnants = True
        if not self.chance(self.weather.orphans):
            self.host.later(self.dice.uniform(0.005, 0.1), self._orphans_end, self.started)
        self.changed()

    def _orphans_end(self, started: int) -> None:
        if self.started == started and self._pid is None:
            self._remnants = False
            self.changed()

    def power_off(self) -> None:
        """Without a word to anybody."""
        self.life += 1
        self._pid, self._remnants, self.state = None, False, DOWN
        self.promoting, self.busy_with = False, None
        self.receiver = None
        self.senders = {}
        self.sessions.vanish()
        self._lose_unflushed(all_of_it=self.chance(0.5))

    def lose_data(self) -> None:
        """The disk is gone, and another one is there, empty."""
        if self.busy_with is None:
            self.kill_postmaster()
            self.data = None

    def panic(self) -> None:
        """A process could not write WAL: all of them end."""
        if self.state in (PRIMARY, STANDBY):
            self._crash()

    def _crash(self) -> None:
        """Every process is gone, nothing was finished."""
        if self._pid is not None:
            self._end()
        self.changed()

    def _end(self) -> None:
        """The processes end; the kernel closes their connections."""
        self.life += 1
        self._pid, self.state, self.promoting = None, DOWN, False
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.end(orderly=False)
        for sender in list(self.senders.values()):
            sender.end()
        self.sessions.break_off()
        self._lose_unflushed(all_of_it=False)

    def _lose_unflushed(self, *, all_of_it: bool) -> None:
        """What was not flushed may be there or not, from the front."""
        if self.data is None:
            return
        wal = self.data.wal
        kept = 0 if all_of_it else self.dice.randint(0, len(wal.records) - wal.flushed)
        wal.cut(wal.flushed + kept)
        wal.flush()

    def _stop_primary(self) -> None:
        """Fast shutdown: sessions end, a checkpoint, the walsenders send all of it (SIGUSR2)."""
        self.parts()
        self.state = STOPPING
        self.sessions.break_off()
        self.later(self.dice.uniform(0.02, 0.15), self._shutdown_checkpoint)

    def _shutdown_checkpoint(self) -> None:
        data = self.data
        assert data is not None
        record = data.wal.write(data.wal.timeline, "shutdown", 120)
        data.wal.flush()
        data.wrote_checkpoint(record)
        data.control_state = "shut down"
        self.pump()
        self._exit_if_sent()

    def _exit_if_sent(self) -> None:
        data = self.data
        if self.state != STOPPING or data is None or data.control_state != "shut down":
            return
        if all(sender.flushed >= data.wal.end for sender in self.senders.values()):
            self.later(self.dice.uniform(0.005, 0.03), self._crash)

    def _stopped_standby(self) -> None:
        data = self.data
        assert data is not None
        if self.receiver is not None:
            self.receiver.end()
        data.wal.flush()
        data.control_state = "shut down in recovery"
        data.recovered, data.recovered_timeline = data.wal.end, data.wal.timeline
        self._crash()

    def end_walsenders(self, keep: tuple[str, ...]) -> None:
        for name, sender in list(self.senders.items()):
            if name not in keep:
                sender.end()

    # ------------------------------------------------------------------ begins

    def _come_up(self) -> None:
        data = self.data
        assert data is not None
        if self.full:
            # PANIC: could not write to file
            self._crash()
            return
        data.wal.flush()
        if data.signal:
            self.state = STANDBY
            self.replayed = Lsn(min(data.wal.end, max(data.checkpoint, data.recovered)))
            self.later(self.dice.uniform(0.0, 1.0), self._replay_local)
            self.later(self.dice.uniform(5.0, 20.0), self._restartpoint)
            return
        if data.control_state != "shut down":
            data.wrote_checkpoint(data.wal.write(data.wal.timeline, "checkpoint", 120))
            data.wal.flush()
        self._open(promoted=False)

    def _open(self, *, promoted: bool) -> None:
        """It is a primary from here on."""
        assert self.data is not None
        self.data.control_state = "in production"
        self.state, self.promoting, self.following = PRIMARY, False, None
        self.sessions.open()
        if self.data.admits:
            self.became_primary(self, promoted)
        soon_s = self.dice.uniform(0.05, 2.0) if promoted else _CHECKPOINT_EVERY_S
        self.later(soon_s, self._checkpoint)

    def admit(self) -> None:
        """Clients may come in."""
        assert self.data is not None
        if not self.data.admits and self.state == PRIMARY:
            self.became_primary(self, False)
        self.data.admits = True

    def _checkpoint(self) -> None:
        self.checkpoint()
        self.later(_CHECKPOINT_EVERY_S, self._checkpoint)

    def checkpoint(self) -> None:
        data = self.data
        if self.state != PRIMARY or data is None or self.stalled:
            return
        data.wrote_checkpoint(data.wal.write(data.wal.timeline, "checkpoint", 120))
        data.wal.flush()
        self.pump()

    def _replay_local(self) -> None:
        if self.data is None:
            return
        self.replayed = self.data.wal.flushed_end
        self.seek()

    def _restartpoint(self) -> None:
        """The control file of a standby follows now and then."""
        data = self.data
        if self.state != STANDBY or data is None:
            return
        data.recovered, data.recovered_timeline = self.position, data.wal.timeline
        self.later(self.dice.uniform(5.0, 20.0), self._restartpoint)

    def promote(self) -> None:
        if self.promoting:
            return
        self.promoting = True
        if self.stuck or self.wedged:
            self.wedged = False
            return
        took_s = self.dice.uniform(0.03, 0.12)
        if self.chance(self.weather.promote_slow):
            took_s = self.dice.choice((0.5, 3.0, 7.0, 20.0)) * self.dice.random()
        self.later(took_s, self._promoted)

    def unstick(self) -> None:
        """What held up its promotion is gone."""
        self.stuck = False
        if self.promoting:
            self.later(0.0, self._promoted)

    def _promoted(self) -> None:
        data = self.data
        if self.state != STANDBY or data is None:
            return
        if self.hung or self.stalled:
            self.later(0.05, self._promoted)
            return
        if self.receiver is not None:
            self.receiver.end()
        data.wal.flush()
        # StartupXLOG removes the signal, durably, before it writes the new timeline's first record.
        data.signal = False
        if self.cut_short:
            self.cut_short = False
            self.kill_postmaster()
            return
        self.later(self.dice.uniform(0.0, 0.02), self.flush, self._new_timeline)

    def _new_timeline(self) -> None:
        data = self.data
        assert data is not None
        record = data.wal.write(data.branch(), "promotion", 80)
        data.wal.flush()
        # CreateEndOfRecoveryRecord: crash recovery must be able to follow the new timeline.
        data.recovered, data.recovered_timeline = record.end, record.timeline
        self._open(promoted=True)

    # ------------------------------------------------------------------ streaming

    @property
    def position(self) -> Lsn:
        """As `observe` tells it."""
        assert self.data is not None
        if self.state == STANDBY:
            return max(self.received, self.replayed)
        return self.data.wal.flushed_end

    def seek(self) -> None:
        """Start a receiver, if there is none and there should be one."""
        wanted = self.following is not None and self.state == STANDBY and not self.promoting
        if self.hung or self.full:
            # Only the postmaster starts a receiver; one without room to write ends at once.
            self.later(_RETRY_S, self.seek)
        elif wanted and self.receiver is None:
            assert self.following is not None
            self.receiver = Receiver(self, self.following)
            self.receiver.connect()

    def receiver_ended(self, receiver: Receiver) -> None:
        if self.receiver is receiver:
            self.receiver = None
            self.later(_RETRY_S, self.seek)

    def standby_received(self, flushed: Lsn) -> None:
        """What a receiver flushed is replayed a moment later."""
        self.received = flushed
        self.replayed = max(self.replayed, flushed)

    def reload_following(self) -> None:
        """primary_conninfo was changed; the old receiver takes its time to end."""
        self.later(self.dice.uniform(0.0, 0.01), self._reloaded_following)

    def _reloaded_following(self) -> None:
        assert self.data is not None
        if self.following == self.data.following or self.state == PRIMARY:
            return
        self.following = self.data.following
        if self.receiver is not None:
            linger_s = self.dice.uniform(0.0, self.weather.linger_s)
            self.later(linger_s, self.receiver.end)
        else:
            self.seek()

    def serve(self, receiver: Receiver, start: Lsn, timeline: int) -> None:
        """A standby asks for WAL from `start` of `timeline` on."""
        data, name = self.data, receiver.server.name
        slot = None if data is None else data.slots.get(name)
        busy = name in self.senders
        if self.hung:
            return
        if self.state != PRIMARY or data is None or slot is None or slot.lost or busy:
            self.network.send(self.name, name, receiver.refused)
            return
        fits = data.history.contains(timeline, start) and start <= data.wal.flushed_end
        if not fits:
            self.network.send(self.name, name, receiver.refused)
            return
        sender = self.senders[name] = Sender(self, receiver, start)
        histories = {tl: h for tl, h in data.histories.items() if tl <= data.wal.timeline}
        sender.out.write(receiver.accepted, sender, histories, timeline)
        sender.pump()

    def pump(self) -> None:
        for sender in list(self.senders.values()):
            sender.pump()

    def sender_ended(self, sender: Sender) -> None:
        if self.senders.get(sender.name) is sender:
            del self.senders[sender.name]
            self._exit_if_sent()

    def standby_flushed(self, sender: Sender) -> None:
        self._exit_if_sent()
        self.sessions.release()
