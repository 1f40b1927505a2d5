"""What must be true of a history.  Each checker is pure: a history in, violations out."""

from chaos.checkers import healing, lists, money, rows, servers, terms
from chaos.checkers.violation import Violation
from chaos.history import History

CHECKERS = (
    rows.check,
    servers.one_node_a_timeline,
    servers.no_dual_acknowledgement,
    lists.check,
    lists.no_cycle,
    money.check,
    terms.check,
    healing.check,
)


__all__ = ["CHECKERS", "Violation", "judge"]


def judge(history: History) -> list[Violation]:
    """All violations that any checker finds."""
    return [violation for check in CHECKERS for violation in check(history)]
