"""initdb, pg_basebackup and pg_rewind on the model: they take time, and break off."""

from collections.abc import Awaitable, Callable

from flightmode.errors import PostgresCommandFailed, SourceNotReady
from simulator.history import Discarded
from simulator.postgres import PRIMARY, SimServer
from simulator.wal import Data, Slot, Wal, parting

Takes = Callable[[float], Awaitable[None]]
_SLICES = 5
_SOURCE_READY_S = 30.0


async def initdb(server: SimServer, takes: Takes) -> None:
    server.busy_with = "initdb"
    try:
        await takes(1.0)
        wal = Wal()
        record = wal.write(1, "checkpoint", 120)
        wal.flush()
        system = f"7{server.dice.randrange(10**15):015d}"
        server.data = Data(system, wal, {}, checkpoint=record.start)
    finally:
        server.busy_with = None


def _source(server: SimServer, member: str) -> Data:
    """The data of the server that is copied from.  Raises SourceNotReady."""
    source = server.peer(member)
    reached = server.network.talk(server.name, member) and not source.host.frozen
    if not reached or source.state != PRIMARY or source.data is None:
        raise SourceNotReady(f"{member} can't be reached, or is no primary")
    return source.data


async def _work(server: SimServer, member: str, takes: Takes) -> Data:
    """The long part; the source has to be there all the while."""
    started = server.peer(member).started
    breaks = server.chance(server.weather.copy_fails)
    for number in range(_SLICES):
        await takes(server.weather.copy_slow_s * 2 / _SLICES)
        data = _source(server, member)
        if server.peer(member).started != started or (breaks and number == _SLICES // 2):
            raise PostgresCommandFailed("the connection to the source broke")
    return data


async def clone(server: SimServer, member: str, takes: Takes) -> None:
    """Beside the old directory, which is kept (I10)."""
    server.busy_with = "clone"
    server.copy_begins("clone")
    try:
        await takes(0.05)
        source = _source(server, member)
        if server.name in server.peer(member).senders:
            raise PostgresCommandFailed("the slot is in use")
        source.slots[server.name] = Slot()
        source = await _work(server, member, takes)
        copied = source.copy_of()
        await takes(0.01)
        put_in_place(server, copied)
    finally:
        server.busy_with = None


def put_in_place(server: SimServer, copied: Data) -> None:
    """The old directory is renamed (I10); what is left of its rows is looked up where they are."""
    old = server.data
    if old is not None:
        server.kept.append(old)
    server.data = copied
    if old is not None:
        there = [data.wal.rows() for data in (copied, *server.kept)]
        lost = old.wal.rows().difference(*there)
        server.discarded(
            Discarded(server.loop.time(), server.name, "clone", lost, copied.wal.rows())
        )


async def rewind(server: SimServer, member: str, takes: Takes) -> None:
    """In place: half done it is of no use, and says so."""
    data = server.data
    assert data is not None
    server.busy_with = "rewind"
    server.copy_begins("rewind")
    try:
        await _source_ready(server, member, takes)
        data.unfinished = "rewind"
        source = await _work(server, member, takes)
        if not data.control_state.startswith("shut down"):
            # It recovers an uncleanly stopped target first, in single-user mode.
            data.wrote_checkpoint(data.wal.write(data.wal.timeline, "shutdown", 120))
            data.wal.flush()
            data.control_state = "shut down"
        _rewound(server, data, source)
        data.signal, data.unfinished = True, None
    finally:
        server.busy_with = None


def _rewound(server: SimServer, data: Data, source: Data) -> None:
    common = parting(data.history, source.history)
    if common is None:
        # "source and target cluster are on the same timeline": nothing is done.
        return
    before = data.wal.rows()
    wal = source.wal.copy()
    data.wal = wal
    data.histories = dict(source.histories)
    data.checkpoint, data.checkpoint_timeline = int(common), source.checkpoint_timeline
    data.recovered, data.recovered_timeline = wal.end, wal.timeline
    data.control_state = "in archive recovery"
    lost = before - wal.rows()
    fact = Discarded(server.loop.time(), server.name, "rewind", lost, wal.rows())
    server.discarded(fact)


async def _source_ready(server: SimServer, member: str, takes: Takes) -> None:
    until_s = server.loop.time() + _SOURCE_READY_S
    while server.loop.time() < until_s:
        source = _source(server, member)
        if source.control_timeline() == source.wal.timeline:
            return
        await takes(0.1)
    raise SourceNotReady(f"{member} has written no checkpoint since it was promoted")
