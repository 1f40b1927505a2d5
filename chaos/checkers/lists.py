"""Lists that clients append to: order tells more than presence.

Every value is appended once, so the last state of a list is the order of its versions, and each
read names the version it saw.  Reads that are no prefix of it saw a fork; and the dependencies
of serializable transactions must have no cycle.  Method: A. Adya, "Weak Consistency" (1999),
and K. Kingsbury and P. Alvaro, "Elle" (2020).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from chaos.checkers.cycles import components
from chaos.checkers.violation import Violation
from chaos.history import Final, History, Txn, What
from flightmode.demo.ledger import Outcome

Append = tuple[int, int]
"""A key and a value."""


def check(history: History) -> Iterator[Violation]:
    """Appends that were acknowledged are there once, in an order that every read agrees with."""
    if history.final is None:
        return
    txns = [txn for txn in history.txns if txn.what is What.LIST]
    writers = _writers(txns)
    yield from _contents(history.final, writers)
    for txn in txns:
        if txn.acknowledged:
            yield from _prefixes(txn, history.final)
    yield from _stale(txns, history.final)


def _writers(txns: Sequence[Txn]) -> dict[Append, Txn]:
    return {
        (txn.key, txn.value): txn for txn in txns if txn.key is not None and txn.value is not None
    }


def _contents(final: Final, writers: dict[Append, Txn]) -> Iterator[Violation]:
    for key, values in final.lists.items():
        if len(set(values)) != len(values):
            yield Violation("duplicate", f"list {key} has a value twice: {values}")
        for value in values:
            writer = writers.get((key, value))
            if writer is None:
                yield Violation("phantom", f"nobody appended {value} to list {key}")
            elif writer.outcome is Outcome.REJECTED:
                yield Violation("rejected, and there", f"{value} in list {key}: {writer.told()}")
    for (key, value), writer in writers.items():
        if writer.acknowledged and value not in final.lists.get(key, ()):
            yield Violation("lost", f"{value} of list {key}: {writer.told()}")


def _prefixes(txn: Txn, final: Final) -> Iterator[Violation]:
    for key, values in txn.reads.items():
        order = final.lists.get(key, ())
        if order[: len(values)] != values:
            agreed = sum(1 for a, b in zip(order, values, strict=False) if a == b)
            story = f"list {key} was read with {values[agreed:][:5]} after {agreed} values"
            yield Violation(
                "fork served", f"{story}, at the end {order[agreed:][:5]}; {txn.told()}"
            )


def _stale(txns: Sequence[Txn], final: Final) -> Iterator[Violation]:
    """Who commits on top of a read has read all that was acknowledged before it began."""
    place = {(key, value): at for key, all_ in final.lists.items() for at, value in enumerate(all_)}
    answered: dict[int, list[tuple[float, int, Txn]]] = defaultdict(list)
    for txn in txns:
        if txn.acknowledged and txn.key is not None and txn.value is not None:
            at = place.get((txn.key, txn.value))
            if at is not None:
                answered[txn.key].append((txn.ended_s, at, txn))
    for txn in txns:
        if not (txn.acknowledged and txn.writes):
            continue
        for key, values in txn.reads.items():
            for ended_s, at, earlier in answered[key]:
                if ended_s < txn.began_s and at >= len(values):
                    story = f"list {key}: {txn.told()} did not see {earlier.value}"
                    yield Violation("stale read", f"{story}: {earlier.told()}")
                    break


def no_cycle(history: History) -> Iterator[Violation]:
    """Transactions that appended and were committed can be put in one order.

    Those that only look are not serializable: a standby, where some of them look, cannot be.
    """
    if history.final is None:
        return
    txns = [txn for txn in history.txns if txn.what is What.LIST and txn.writes]
    order = history.final.lists
    writers = _writers(txns)
    committed = [txn for txn in txns if txn.acknowledged or _is_there(txn, order)]
    number = {id(txn): at for at, txn in enumerate(committed)}
    edges: list[set[int]] = [set() for _ in committed]

    def edge(one: Txn | None, other: Txn | None) -> None:
        if one is not None and other is not None and one is not other:
            a, b = number.get(id(one)), number.get(id(other))
            if a is not None and b is not None:
                edges[a].add(b)

    for key, values in order.items():
        for before, after in pairwise(values):
            edge(writers.get((key, before)), writers.get((key, after)))
    for txn in committed:
        for key, values in txn.reads.items():
            if values:
                edge(writers.get((key, values[-1])), txn)
            if len(values) < len(order.get(key, ())):
                edge(txn, writers.get((key, order[key][len(values)])))
    for group in components(edges):
        told = "; ".join(committed[at].told() for at in group[:4])
        yield Violation("not serializable", f"{len(group)} transactions in a circle: {told}")


def _is_there(txn: Txn, order: dict[int, tuple[int, ...]]) -> bool:
    return txn.key is not None and txn.value in order.get(txn.key, ())
