"""What a run showed, for people: the table of faults, and the story of a failure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from rich.table import Table

from chaos.checkers import Violation
from chaos.history import History, Round, Way
from flightmode.demo.ledger import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of fault at one place: in how many rounds, and what it cost where it was alone."""

    what: str
    rounds: int
    gaps_s: tuple[float, ...]
    """For each round the longest time in which no direct client got a commit acknowledged."""
    heals_s: tuple[float, ...]


def rows(histories: Iterable[History]) -> list[Row]:
    """By fault and role.  What two faults cost together is the cost of neither."""
    found: dict[str, list[tuple[float, float] | None]] = {}
    for history in histories:
        answers = sorted(
            txn.ended_s
            for txn in history.txns
            if txn.writes and txn.acknowledged and txn.way is Way.DIRECT
        )
        for round_ in history.rounds:
            alone = len(round_.faults) == 1
            measured = (gap_s(answers, round_), round_.heal_time_s) if alone else None
            for fault in round_.faults:
                found.setdefault(f"{fault.nemesis} / {fault.role}", []).append(measured)
    return [
        Row(what, len(all_), *_columns([each for each in all_ if each is not None]))
        for what, all_ in sorted(found.items())
    ]


def _columns(
    measured: Sequence[tuple[float, float]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(gap for gap, _ in measured), tuple(heal for _, heal in measured)


def gap_s(answers: Sequence[float], round_: Round) -> float:
    """The longest stretch without an answer that touches the round, in seconds."""
    before = [at for at in answers if at < round_.began_s][-1:]
    during = [at for at in answers if round_.began_s <= at <= round_.whole_s]
    moments = [*(before or [round_.began_s]), *during, round_.whole_s]
    return max(later - earlier for earlier, later in pairwise(moments))


def table(histories: Sequence[History]) -> Table:
    """The rows, and their sum."""
    shown = Table(title="faults; seconds of those that were alone, median / max")
    for title in ("fault / on", "rounds", "alone", "no commit for", "whole again after"):
        shown.add_column(title, justify="left" if title.startswith("fault") else "right")
    for row in rows(histories):
        alone = len(row.gaps_s)
        cost = (_spread(row.gaps_s), _spread(row.heals_s))
        shown.add_row(row.what, str(row.rounds), str(alone), *cost)
    all_rounds = [round_ for history in histories for round_ in history.rounds]
    faults = sum(len(round_.faults) for round_ in all_rounds)
    shown.add_section()
    heals = _spread([round_.heal_time_s for round_ in all_rounds])
    shown.add_row(f"{faults} faults", str(len(all_rounds)), "", "", heals)
    return shown


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} / {max(values):.1f}" if values else "-"


def told(history: History) -> str:
    """What clients did, in a line."""
    by_outcome = {
        outcome: sum(txn.outcome is outcome for txn in history.txns) for outcome in Outcome
    }
    counts = ", ".join(f"{number} {outcome.value}" for outcome, number in by_outcome.items())
    terms = len({state.term for state in history.states})
    return f"{len(history.txns)} transactions ({counts}), {terms} terms"


def story(rounds: Iterable[Round], violations: Iterable[Violation]) -> str:
    """The last rounds and what broke, as `failure.txt` keeps it."""
    lines = [f"{violation.promise}: {violation.story}" for violation in violations]
    lines.append("")
    for round_ in rounds:
        faults = " + ".join(
            f"{f.nemesis} of the {f.role} ({f.node}{': ' + f.note if f.note else ''})"
            for f in round_.faults
        )
        span = f"{round_.began_s:.3f} to {round_.healed_s:.3f}, then {round_.heal_time_s:.1f} s"
        lines.append(f"round {round_.number}: {faults}; {span} {round_.failure}")
    return "\n".join(lines) + "\n"
