"""What clients were told and what was done to the cluster: JSON lines in one directory.

    transactions.jsonl   every transaction, as its client saw it
    states.jsonl         every change of the cluster's state, as the store told it
    rounds.jsonl         every fault, with the times of its begin, its end, and of being whole again
    final.json           all that the database has at the end

Times are CLOCK_BOOTTIME: one clock for every process of the machine, and nobody sets it.
Checkers read nothing but this directory, so a history can be judged again, or by somebody else.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self

from flightmode.demo.ledger import Outcome


class Way(StrEnum):
    """How a client comes to the database."""

    DIRECT = "direct"
    PROXY = "proxy"
    LOCAL = "local"
    """By the socket of one host, whatever happens to the network around it."""


class What(StrEnum):
    """What a transaction does."""

    ROW = "row"
    """Inserts one row that nobody else inserts."""
    LIST = "list"
    """Reads lists, and may append a value that nobody else appends."""
    TRANSFER = "transfer"
    """Moves money between two accounts."""
    TOTAL = "total"
    """Adds up all accounts."""


@dataclass(frozen=True, slots=True)
class Txn:
    """One transaction as its client saw it."""

    client: int
    way: Way
    what: What
    outcome: Outcome
    began_s: float
    commit_s: float | None
    """When COMMIT left; None when it never did."""
    ended_s: float
    node: str = ""
    """The server that said it is the one; empty when nothing was heard of it."""
    timeline: int = 0
    """The timeline that it writes; 0 of a standby."""
    error: str = ""
    sequence: int | None = None
    """With `client` the name of the row."""
    key: int | None = None
    """The list that `value` was appended to."""
    value: int | None = None
    reads: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Lists by key, before this transaction's own append."""
    total: int | None = None

    @property
    def acknowledged(self) -> bool:
        return self.outcome is Outcome.ACKNOWLEDGED

    @property
    def writes(self) -> bool:
        """Whether the server had something to commit."""
        return self.what in (What.ROW, What.TRANSFER) or self.value is not None

    def told(self) -> str:
        """For people."""
        what = f"row {self.client}/{self.sequence}" if self.what is What.ROW else str(self.what)
        where = f"{self.node or '?'} on timeline {self.timeline}"
        return f"{what} of {self.way} client {self.client}, {where}, ended at {self.ended_s:.3f}"

    def as_json(self) -> dict[str, Any]:
        whole = asdict(self) | {"outcome": self.outcome.value}
        return {key: value for key, value in whole.items() if value not in (None, "", {})}

    @classmethod
    def of_json(cls, whole: dict[str, Any]) -> Self:
        reads = {int(key): tuple(values) for key, values in whole.pop("reads", {}).items()}
        return cls(
            **{"commit_s": None, "ended_s": 0.0}
            | whole
            | {
                "way": Way(whole["way"]),
                "what": What(whole["what"]),
                "outcome": Outcome(whole["outcome"]),
                "reads": reads,
            }
        )


@dataclass(frozen=True, slots=True)
class StateSeen:
    """The cluster's state after one of its changes."""

    at_s: float
    term: int
    leader: str
    mode: str
    sync: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """One fault that was done."""

    nemesis: str
    role: str
    node: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One or two faults, from a whole cluster to a whole cluster."""

    number: int
    faults: tuple[Done, ...]
    began_s: float
    healed_s: float
    whole_s: float
    """When the cluster was whole again; the end of waiting when `failure` is set."""
    bound_s: float
    """So long after the healing it had to be whole."""
    failure: str = ""
    """What was wrong with its life (I9); empty: nothing."""

    @property
    def heal_time_s(self) -> float:
        return self.whole_s - self.healed_s


@dataclass(frozen=True, slots=True)
class Final:
    """All that the database has at the end, in the tables of the clients."""

    rows: tuple[tuple[int, int], ...]
    lists: dict[int, tuple[int, ...]]
    money: int
    money_at_first: int


@dataclass(frozen=True, slots=True)
class History:
    """One run, as its directory tells it."""

    txns: tuple[Txn, ...]
    states: tuple[StateSeen, ...] = ()
    rounds: tuple[Round, ...] = ()
    final: Final | None = None
    """None: the run ended before the database could be read."""


class Recorder:
    """Writes the files of a run while it goes on."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._files = {
            name: (directory / f"{name}.jsonl").open("w")
            for name in ("transactions", "states", "rounds")
        }

    def txn(self, txn: Txn) -> None:
        self._write("transactions", txn.as_json())

    def state(self, state: StateSeen) -> None:
        self._write("states", asdict(state))

    def round(self, done: Round) -> None:
        self._write("rounds", asdict(done))
        self._files["rounds"].flush()

    def final(self, final: Final) -> None:
        (self.directory / "final.json").write_text(json.dumps(asdict(final)))

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _write(self, name: str, whole: dict[str, Any]) -> None:
        file: IO[str] = self._files[name]
        file.write(json.dumps(whole) + "\n")


def load(directory: Path) -> History:
    """Read a run's directory.  Raises OSError, ValueError."""
    return History(
        tuple(Txn.of_json(whole) for whole in _lines(directory / "transactions.jsonl")),
        tuple(
            StateSeen(**whole | {"sync": tuple(whole["sync"])})
            for whole in _lines(directory / "states.jsonl")
        ),
        tuple(
            Round(**whole | {"faults": tuple(Done(**each) for each in whole["faults"])})
            for whole in _lines(directory / "rounds.jsonl")
        ),
        _final(directory / "final.json"),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for line in lines:
            # A run that was killed may have left half a line, the last one.
            if line.endswith("\n"):
                yield json.loads(line)


def _final(path: Path) -> Final | None:
    if not path.exists():
        return None
    whole = json.loads(path.read_text())
    return Final(
        tuple((client, sequence) for client, sequence in whole["rows"]),
        {int(key): tuple(values) for key, values in whole["lists"].items()},
        whole["money"],
        whole["money_at_first"],
    )
