"""Which machine makes room for which, when a cluster moves.  Pure.

A cluster is three nodes before, between and after each exchange, as [three_voters] of
flightmode.toml has it.  The witness goes first, for a database node: until the last exchange
there are three of those, and so two complete copies also while one is being made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from flightmode.config.schema import NodeSettings
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind

Nodes = Mapping[str, NodeSettings]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The node `out` leaves, and `name` comes in its place."""

    out: str
    name: str
    settings: NodeSettings


def next_exchange(now: Nodes, wanted: Nodes, primary: str) -> Exchange | None:
    """The first of those that lead from one to the other; None: nothing is left to exchange.

    The primary's turn is the last: the writes move once.  Raises RequestWrong.
    """
    for name in now.keys() & wanted.keys():
        if now[name] != wanted[name]:
            text = f"{name} is another machine or kind there: give the new one a name of its own"
            raise RequestWrong(text, hint="flightmode move --help")
    leave = [name for name in now if name not in wanted]
    come = [name for name in wanted if name not in now]
    if len(leave) != len(come):
        raise RequestWrong(f"{len(leave)} nodes leave and {len(come)} come: a cluster has three")
    exchanges = [Exchange(out, name, wanted[name]) for out, name in product(leave, come)]
    allowed = [each for each in exchanges if _databases(now, each) >= 2]
    return min(
        allowed,
        key=lambda each: (each.out == primary, -_databases(now, each)),
        default=None,
    )


def _databases(now: Nodes, exchange: Exchange) -> int:
    """How many database nodes there are after it."""
    after = [settings for name, settings in now.items() if name != exchange.out]
    return sum(each.kind is NodeKind.DATABASE for each in (*after, exchange.settings))
