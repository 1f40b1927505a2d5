"""Write-ahead log as a list of records, and the data directory that holds it."""

from bisect import bisect_right
from dataclasses import dataclass, field, replace

from flightmode.model.lsn import NOWHERE, Lsn
from flightmode.model.server import DataDirectory
from flightmode.model.timeline import History, Switch

FIRST_TIMELINE = History(1)
BEGIN = Lsn(0x1000000)


@dataclass(slots=True, eq=False)
class Record:
    """One record, never changed.  Identity matters: two may share a place on two histories."""

    timeline: int
    start: int
    end: int
    kind: str
    """row | checkpoint | shutdown | promotion | ours"""
    row: int | None = None


@dataclass
class Wal:
    """The records of one directory, oldest first; those from `flushed` on may get lost."""

    records: list[Record] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    flushed: int = 0

    @property
    def end(self) -> Lsn:
        return Lsn(self.ends[-1]) if self.ends else BEGIN

    @property
    def flushed_end(self) -> Lsn:
        return Lsn(self.ends[self.flushed - 1]) if self.flushed else BEGIN

    @property
    def timeline(self) -> int:
        return self.records[-1].timeline if self.records else 1

    def write(self, timeline: int, kind: str, size: int, row: int | None = None) -> Record:
        record = Record(timeline, self.end, self.end + size, kind, row)
        self.put(record)
        return record

    def put(self, record: Record) -> None:
        self.records.append(record)
        self.ends.append(record.end)

    def flush(self) -> None:
        self.flushed = len(self.records)

    def index(self, position: int) -> int:
        """How many records end at or before `position`."""
        return bisect_right(self.ends, position)

    def cut(self, count: int) -> None:
        """Keep the first `count` records."""
        del self.records[count:]
        del self.ends[count:]
        self.flushed = min(self.flushed, count)

    def rows(self, *, flushed: bool = True) -> frozenset[int]:
        """The rows in it."""
        count = self.flushed if flushed else len(self.records)
        return frozenset(r.row for r in self.records[:count] if r.row is not None)

    def copy(self) -> "Wal":
        """What is flushed."""
        return Wal(self.records[: self.flushed], self.ends[: self.flushed], self.flushed)


@dataclass
class Slot:
    """A physical replication slot."""

    lost: bool = False


@dataclass
class Data:
    """A data directory: what survives a stop."""

    system: str
    wal: Wal
    histories: dict[int, History]
    """The history files; timeline 1 has none."""
    control_state: str = "shut down"
    checkpoint: int = BEGIN
    """Where the latest checkpoint's record begins."""
    checkpoint_timeline: int = 1
    recovered: int = 0
    """The minimum recovery end."""
    recovered_timeline: int = 0
    signal: bool = False
    unfinished: str | None = None
    following: str | None = None
    sync_names: tuple[str, ...] = ()
    admits: bool = False
    slots: dict[str, Slot] = field(default_factory=dict)

    @property
    def history(self) -> History:
        """Of the timeline that its WAL has come to."""
        return self.history_of(self.wal.timeline) or FIRST_TIMELINE

    def history_of(self, timeline: int) -> History | None:
        return FIRST_TIMELINE if timeline == 1 else self.histories.get(timeline)

    def newest_timeline(self) -> int:
        return max((1, *self.histories))

    def control_timeline(self) -> int:
        """As the hand reads it: of the further of the checkpoint and the recovery end."""
        further = self.recovered > self.checkpoint
        return self.recovered_timeline if further else self.checkpoint_timeline

    def as_seen(self, *, unfinished: str | None = None) -> DataDirectory:
        """What pg_controldata and the files say."""
        return DataDirectory(
            system_identifier=self.system,
            pg_major=15,
            timeline=self.control_timeline(),
            control_state=self.control_state,
            position=Lsn(max(self.checkpoint, self.recovered)),
            standby_signal=self.signal,
            unfinished=unfinished if unfinished is not None else self.unfinished,
        )

    def wrote_checkpoint(self, record: Record) -> None:
        """The control file follows a checkpoint's record."""
        self.checkpoint, self.checkpoint_timeline = record.start, record.timeline
        self.recovered = self.recovered_timeline = 0

    def branch(self) -> int:
        """Begin a new timeline here; the number is the first that this directory knows free."""
        parent = self.history
        timeline = self.newest_timeline() + 1
        switch = Switch(parent.timeline, self.wal.end)
        self.histories[timeline] = History(timeline, (*parent.ancestors, switch))
        return timeline

    def copy_of(self) -> "Data":
        """As pg_basebackup makes it: no slots, and a standby when it starts."""
        return replace(
            self,
            wal=self.wal.copy(),
            histories=dict(self.histories),
            signal=True,
            unfinished=None,
            following=None,
            sync_names=(),
            slots={},
        )


def parting(mine: History, theirs: History) -> Lsn | None:
    """Up to where both histories are the same, as pg_rewind finds it; None: on one timeline."""
    if mine.timeline == theirs.timeline:
        return None
    ends = [(s.timeline, s.end) for s in mine.ancestors] + [(mine.timeline, None)]
    others = [(s.timeline, s.end) for s in theirs.ancestors] + [(theirs.timeline, None)]
    common = NOWHERE
    for (timeline, end), (other_timeline, other_end) in zip(ends, others, strict=False):
        if timeline != other_timeline:
            break
        known = [each for each in (end, other_end) if each is not None]
        common = min(known)
        if end != other_end:
            break
    return Lsn(common)
