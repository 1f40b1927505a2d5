"""What the demo prints at the end."""

from rich.console import Console
from rich.table import Table

from flightmode.demo.ledger import Row, Verdict
from flightmode.demo.proxied import Seen
from flightmode.demo.rehearsals import Result

_SHOWN = 10
_SEEN = ("errors between", "40001", "08007", "other")
"""Errors: of clients between transactions; rolled back; commit not known; anything else."""


def show(console: Console, results: list[Result], verdict: Verdict) -> None:
    """The table of rehearsals, and the ledger's closing line."""
    console.print(_table(results))
    console.print(
        f"ledger: {verdict.acknowledged} acknowledged, [bold]{len(verdict.lost)} lost[/bold], "
        f"{verdict.unknown} unknown ({verdict.unknown_present} of them there), "
        f"{verdict.rejected} refused"
    )
    for line in _unpromised(results):
        console.print(f"[red]{line}[/red]", highlight=False)
    if verdict.sound:
        console.print("[green]Every acknowledged row is there, once; the accounts add up.[/green]")
        return
    for what, rows in (
        ("LOST", verdict.lost),
        ("TWICE", verdict.duplicates),
        ("NOBODY WROTE", verdict.phantoms),
        ("ROLLED BACK, AND THERE", verdict.resurrected),
    ):
        if rows:
            console.print(f"[red]{what}: {len(rows)} rows: {_some(rows)}[/red]")
    if verdict.imbalance:
        console.print(f"[red]The accounts are off by {verdict.imbalance}.[/red]")


def _table(results: list[Result]) -> Table:
    table = Table(title="What the writing clients saw", title_justify="left")
    table.add_column("rehearsal")
    table.add_column("primary")
    for heading in ("write gap", "back after", "acknowledged", "unknown", "refused", *_SEEN):
        table.add_column(heading, justify="right")
    for each in results:
        table.add_row(
            each.title + (f" ({each.note})" if each.note else ""),
            f"{each.before} -> {each.after}",
            f"{each.gap_s:.2f} s",
            f"{each.back_s:.1f} s",
            str(each.acknowledged),
            str(each.unknown),
            str(each.rejected),
            *_errors(each.errors),
        )
    return table


def _errors(errors: Seen | None) -> tuple[str, ...]:
    if errors is None:
        return ("",) * len(_SEEN)
    between, others = str(errors.between), str(len(errors.others))
    return (
        between if errors.between == 0 else f"[red]{between}[/red]",
        str(errors.rolled_back),
        str(errors.not_known),
        others if not errors.others else f"[red]{others}[/red]",
    )


def _unpromised(results: list[Result]) -> list[str]:
    """What clients saw that the proxy promises they will not."""
    told = []
    for each in results:
        if each.errors is not None and not each.errors.as_promised:
            told.append(f"{each.title}: {each.errors.between} errors between transactions")
            told += [f"  {error}" for error in each.errors.others[:_SHOWN]]
    return told


def _some(rows: tuple[Row, ...]) -> str:
    shown = ", ".join(f"client {row.client} no. {row.sequence}" for row in rows[:_SHOWN])
    return shown + (", …" if len(rows) > _SHOWN else "")
