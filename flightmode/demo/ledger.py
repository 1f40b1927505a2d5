"""Was anything lost?  What the clients were told, held against what the database has.

Each transaction writes one row that no other writes: (client, sequence).  Afterwards four things
can be wrong, each of them a broken promise: a row that was acknowledged is missing, a row is
there twice, a row is there that nobody wrote, or one whose transaction certainly failed.
A transaction whose COMMIT got no answer may be there or not; both are right.

Pure: lists in, a verdict out.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise


class Outcome(Enum):
    """What a client knows of its transaction when it is over."""

    ACKNOWLEDGED = "acknowledged"
    """COMMIT was answered, and without a warning."""
    REJECTED = "rejected"
    """It failed before COMMIT left the client, or the server said that it rolled back."""
    UNKNOWN = "unknown"
    """COMMIT left, and no clear answer came back."""


@dataclass(frozen=True, slots=True)
class Row:
    """The row that one transaction writes."""

    client: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One transaction as its client saw it.  Times are CLOCK_BOOTTIME."""

    row: Row
    outcome: Outcome
    began_s: float
    ended_s: float
    node: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ledger's closing line."""

    attempted: int
    acknowledged: int
    rejected: int
    unknown_present: int
    unknown_absent: int
    lost: tuple[Row, ...]
    duplicates: tuple[Row, ...]
    phantoms: tuple[Row, ...]
    resurrected: tuple[Row, ...]
    imbalance: int = 0
    """How much money the transfers made (or, negative, lost); each moves some, none makes any."""

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        broken = (self.lost, self.duplicates, self.phantoms, self.resurrected)
        return not any(broken) and self.imbalance == 0

    @property
    def unknown(self) -> int:
        """Transactions whose COMMIT got no clear answer."""
        return self.unknown_present + self.unknown_absent


def check(history: Iterable[Attempt], rows: Iterable[Row], *, imbalance: int = 0) -> Verdict:
    """Hold what the clients were told against `rows`, all that the database has."""
    told: dict[Outcome, set[Row]] = {outcome: set() for outcome in Outcome}
    for attempt in history:
        told[attempt.outcome].add(attempt.row)
    acknowledged, rejected, unknown = told.values()
    copies = Counter(rows)
    found = set(copies)
    return Verdict(
        attempted=sum(len(some) for some in told.values()),
        acknowledged=len(acknowledged),
        rejected=len(rejected),
        unknown_present=len(unknown & found),
        unknown_absent=len(unknown - found),
        lost=in_order(acknowledged - found),
        duplicates=in_order(row for row, times in copies.items() if times > 1),
        phantoms=in_order(found - acknowledged - rejected - unknown),
        resurrected=in_order(rejected & found),
        imbalance=imbalance,
    )


def in_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows by client, then sequence."""
    return tuple(sorted(rows, key=lambda row: (row.client, row.sequence)))


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch in which no commit was acknowledged to anybody."""

    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return self.to_s - self.from_s


def write_gap(history: Iterable[Attempt], *, fault_s: float, until_s: float) -> Gap:
    """The longest stretch without an acknowledgement around and after a fault.

    It begins with the last acknowledgement before the fault, or with a later one: a planned
    switchover goes on acknowledging for a while.  When nothing is acknowledged until `until_s`
    the gap ends there, and is at least as long as it seems.
    """
    times = sorted(
        attempt.ended_s
        for attempt in history
        if attempt.outcome is Outcome.ACKNOWLEDGED and attempt.ended_s <= until_s
    )
    before = [moment for moment in times if moment <= fault_s]
    after = [moment for moment in times if moment > fault_s]
    moments = [before[-1] if before else fault_s, *after, until_s]
    return max((Gap(a, b) for a, b in pairwise(moments)), key=lambda gap: gap.length_s)


def client_gaps(history: Iterable[Attempt], *, fault_s: float, until_s: float) -> dict[int, Gap]:
    """The write gap of each client by itself: how long the unluckiest one had to wait."""
    by_client: dict[int, list[Attempt]] = {}
    for attempt in history:
        by_client.setdefault(attempt.row.client, []).append(attempt)
    return {
        client: write_gap(own, fault_s=fault_s, until_s=until_s)
        for client, own in sorted(by_client.items())
    }
