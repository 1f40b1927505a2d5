"""Unique rows: what was acknowledged is there, once, and nothing else is (I2)."""

from collections.abc import Iterator

from chaos.checkers.violation import Violation
from chaos.history import History, Txn, What
from flightmode.demo.ledger import Attempt, Row
from flightmode.demo.ledger import check as hold_against


def check(history: History) -> Iterator[Violation]:
    """Nothing is lost, nothing is there twice, or was rejected, or came from nowhere."""
    if history.final is None:
        return
    by_row = {_row(txn): txn for txn in history.txns if txn.what is What.ROW}
    attempts = (
        Attempt(row, txn.outcome, txn.began_s, txn.ended_s, txn.node) for row, txn in by_row.items()
    )
    verdict = hold_against(attempts, (Row(*each) for each in history.final.rows))
    found = {
        "lost": verdict.lost,
        "duplicate": verdict.duplicates,
        "phantom": verdict.phantoms,
        "rejected, and there": verdict.resurrected,
    }
    for promise, broken in found.items():
        for row in broken:
            txn = by_row.get(row)
            yield Violation(promise, txn.told() if txn else f"row {row.client}/{row.sequence}")


def _row(txn: Txn) -> Row:
    assert txn.sequence is not None
    return Row(txn.client, txn.sequence)
