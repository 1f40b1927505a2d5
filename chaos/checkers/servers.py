"""Who acknowledged, and when: never two primaries (I1, I3), never a fork.

A timeline is what one promotion began.  It names its primary better than a host's name does:
the host may have been promoted twice.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from chaos.checkers.violation import Violation
from chaos.history import History, Txn


def one_node_a_timeline(history: History) -> Iterator[Violation]:
    """Two nodes that acknowledge on one timeline have each begun it: a fork."""
    first: dict[int, dict[str, Txn]] = defaultdict(dict)
    for txn in _commits(history):
        first[txn.timeline].setdefault(txn.node, txn)
    for timeline, by_node in sorted(first.items()):
        for one, other in pairwise(by_node.values()):
            story = f"timeline {timeline} was begun twice: {one.told()}; {other.told()}"
            yield Violation("fork", story)


def no_dual_acknowledgement(history: History) -> Iterator[Violation]:
    """Once a timeline has acknowledged, an older one acknowledges nothing more.

    When a COMMIT leaves after another client has its answer from a later timeline, and is
    acknowledged all the same, then the older primary did so after it was replaced.  Exact: an
    answer that was merely late on its way had its COMMIT sent before.
    """
    heirs = _first_answers(history)
    for txn in _commits(history):
        assert txn.commit_s is not None
        for timeline, heir in heirs.items():
            if timeline > txn.timeline and txn.commit_s > heir.ended_s:
                yield Violation("dual acknowledgement", f"{txn.told()}, after {heir.told()}")
                break


def _first_answers(history: History) -> dict[int, Txn]:
    first: dict[int, Txn] = {}
    for txn in sorted(_commits(history), key=lambda each: each.ended_s):
        first.setdefault(txn.timeline, txn)
    return first


def _commits(history: History) -> Iterator[Txn]:
    for txn in history.txns:
        if txn.writes and txn.acknowledged and txn.timeline > 0 and txn.commit_s is not None:
            yield txn
