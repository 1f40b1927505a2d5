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


def read(data_dir: Path, timeline: int) -> History | None:
    """From pg_wal; None when the file of a later timeline is not there (yet)."""
    if timeline == 1:
        return History(1)
    try:
        return parse(timeline, (data_dir / "pg_wal" / f"{timeline:08X}.history").read_text())
    except FileNotFoundError:
        return None
