"""What pg_controldata prints, as a DataDirectory.  Pure."""

from flightmode.errors import DataUnreadable
from flightmode.model.lsn import Lsn
from flightmode.model.server import DataDirectory


def parse(
    text: str, *, pg_major: int, standby_signal: bool, unfinished: str | None
) -> DataDirectory:
    """From its output in the C locale.  Raises DataUnreadable.

    `position` is the latest checkpoint's location, where its record *begins*, or the end of
    the minimum recovery, whichever is further.
    """
    found = fields(text)
    try:
        checkpoint = Lsn.parse(found["Latest checkpoint location"])
        recovered = Lsn.parse(found["Minimum recovery ending location"])
        timeline = int(found["Latest checkpoint's TimeLineID"])
        if recovered > checkpoint:
            timeline = int(found["Min recovery ending loc's timeline"])
        return DataDirectory(
            system_identifier=found["Database system identifier"],
            pg_major=pg_major,
            timeline=timeline,
            control_state=found["Database cluster state"],
            position=max(checkpoint, recovered),
            standby_signal=standby_signal,
            unfinished=unfinished,
        )
    except (KeyError, ValueError) as missing:
        raise DataUnreadable(f"pg_controldata does not tell {missing}") from None


def fields(text: str) -> dict[str, str]:
    """Its lines, by name."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon}
