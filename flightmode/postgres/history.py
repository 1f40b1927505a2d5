"""Timeline history files (manual, 26.3.5; the format is that of timeline.c)."""

from pathlib import Path

from flightmode.model.lsn import Lsn
from flightmode.model.timeline import History, Switch


def parse(timeline: int, text: str) -> History:
    """The history of `timeline` from the text of its file."""
    switches = []
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) >= 2:
            switches.append(Switch(int(fields[0]), Lsn.parse(fields[1])))
    return History(timeline, tuple(switches))


def received(data_dir: Path, position: Lsn, segment_bytes: int) -> int:
    """The latest timeline of which the WAL up to `position` is there; 0: none.

    From the names of its segments (manual, 30.5): a segment of a later timeline is there only
    after WAL of it was received, or replayed.
    """
    last = max(position - 1, 0)
    place = f"{last >> 32:08X}{(last & 0xFFFFFFFF) // segment_bytes:08X}"
    names = (path.name for path in (data_dir / "pg_wal").glob(f"*{place}"))
    return max((int(name[:8], 16) for name in names if len(name) == 24), default=0)


def read(data_dir: Path, timeline: int) -> History | None:
    """From pg_wal; None when the file of a later timeline is not there (yet)."""
    if timeline == 1:
        return History(1)
    try:
        return parse(timeline, (data_dir / "pg_wal" / f"{timeline:08X}.history").read_text())
    except FileNotFoundError:
        return None
