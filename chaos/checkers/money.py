"""Money: transfers make none and lose none, and every reader sees all of it at any moment."""

from collections.abc import Iterator

from chaos.checkers.violation import Violation
from chaos.history import History


def check(history: History) -> Iterator[Violation]:
    """Every sum that was read, on whatever node, and the last one, are the first one."""
    if history.final is None:
        return
    want = history.final.money_at_first
    for txn in history.txns:
        if txn.acknowledged and txn.total is not None and txn.total != want:
            yield Violation("money", f"{txn.total} instead of {want}: {txn.told()}")
    if history.final.money != want:
        yield Violation("money", f"{history.final.money} instead of {want} at the end")
