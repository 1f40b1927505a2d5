"""Which machine makes room for which."""

from itertools import product

import pytest

from flightmode.config.schema import NodeSettings
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.succession import Exchange, next_exchange

DATABASE, WITNESS = NodeKind.DATABASE, NodeKind.WITNESS
TWO = (DATABASE, DATABASE, WITNESS)
THREE = (DATABASE, DATABASE, DATABASE)


def cluster(names: str, kinds: tuple[NodeKind, ...]) -> dict[str, NodeSettings]:
    return {
        name: NodeSettings(kind=kind, host=f"{name}.example")
        for name, kind in zip(names, kinds, strict=True)
    }


def after(nodes: dict[str, NodeSettings], exchange: Exchange) -> dict[str, NodeSettings]:
    left = {name: each for name, each in nodes.items() if name != exchange.out}
    return {**left, exchange.name: exchange.settings}


def databases(nodes: dict[str, NodeSettings]) -> int:
    return sum(each.kind is DATABASE for each in nodes.values())


def moved(now, wanted, primary):
    """All exchanges; the first standby that is found leads when the primary leaves."""
    nodes, exchanges = now, []
    while (exchange := next_exchange(nodes, wanted, primary)) is not None:
        nodes = after(nodes, exchange)
        exchanges.append(exchange)
        if exchange.out == primary:
            primary = next(name for name, each in nodes.items() if each.kind is DATABASE)
    return nodes, exchanges


@pytest.mark.parametrize(("before", "then"), [*product((TWO, THREE), repeat=2)])
@pytest.mark.parametrize("primary", ["a", "b"])
@pytest.mark.parametrize("names", ["xyz", "ayz", "xbz", "xyc", "abz", "ayc", "xbc"])
def test_every_move_ends_where_it_should(before, then, primary, names):
    now, wanted = cluster("abc", before), cluster(names, then)
    if any(now[name] != wanted[name] for name in now.keys() & wanted.keys()):
        with pytest.raises(RequestWrong, match="a name of its own"):
            next_exchange(now, wanted, primary)
        return
    nodes, exchanges = moved(now, wanted, primary)
    assert nodes == wanted
    assert len(exchanges) == len(now.keys() - wanted.keys())


@pytest.mark.parametrize("primary", ["a", "b"])
def test_a_whole_move_keeps_two_copies_and_hands_over_once(primary):
    now, wanted = cluster("abc", TWO), cluster("xyz", TWO)
    nodes, exchanges = moved(now, wanted, primary)
    assert exchanges[0].out == "c", "the witness makes room for a third copy"
    assert exchanges[-1].out == primary
    for exchange in exchanges[:-1]:
        now = after(now, exchange)
        assert databases(now) == 3
    assert databases(nodes) == 2


def test_a_cluster_that_is_there_has_nothing_to_exchange():
    assert next_exchange(cluster("abc", TWO), cluster("abc", TWO), "a") is None


def test_a_name_stands_for_one_machine():
    wanted = {**cluster("abc", TWO), "b": NodeSettings(kind=DATABASE, host="elsewhere.example")}
    with pytest.raises(RequestWrong, match="b is another machine"):
        next_exchange(cluster("abc", TWO), wanted, "a")
