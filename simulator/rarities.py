"""What goes wrong rarely: in a few runs, drawn apart from everything else of a plan.

So the stories of the other runs stay as they were when one more is thought of.
"""

from collections.abc import Callable
from random import Random

from simulator.fault import Fault
from simulator.world import NODES

_SOME = 0.35
"""So many runs have any of these."""
_ROOM_S = 4.0

Rarity = Callable[[Random, float], list[Fault]]


def rarely(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """One or two of these, in some runs."""
    if dice.random() > _SOME:
        return ()
    faults: list[Fault] = []
    for _ in range(dice.choice((1, 1, 2))):
        faults += dice.choice(_RARITIES)(dice, dice.uniform(begin_s, end_s - _ROOM_S))
    # Nothing goes wrong any more once everything is healed.
    return tuple(fault for fault in faults if fault.at_s < end_s)


def _taken_away(dice: Random, at_s: float) -> Fault:
    if dice.random() < 0.5:
        return Fault(at_s, "kill postgres", "leader")
    return Fault(at_s, dice.choice(("power", "cut")), "leader", dice.uniform(5.0, 15.0))


def _promotion(dice: Random, at_s: float) -> list[Fault]:
    """The next promotion is cut in two, or never ends in this life of Postgres."""
    kind = dice.choice(("cut promotion", "wedge promotion"))
    return [Fault(at_s, kind, "standby"), _taken_away(dice, at_s + dice.uniform(0.1, 3.0))]


def _held(dice: Random, at_s: float) -> list[Fault]:
    """A swap is carried out much later than it was sent, and its leader is cut off meanwhile."""
    away_s, held_s = dice.uniform(8.0, 14.0), dice.uniform(0.5, 10.0)
    mode = dice.choice(("sync", "solo"))
    cut_s = 2.5 if mode == "sync" else 12.0
    return [
        Fault(at_s, "cut", "leader", cut_s, other="standby"),
        Fault(at_s + dice.uniform(0.0, 3.0), "hold swap", "leader", away_s, mode, held_s),
    ]


def _doubted(dice: Random, at_s: float) -> list[Fault]:
    """A leader, or who claims, is in doubt of a swap; its agent dies, or all of etcd is gone."""
    kind = dice.choice(("doubt swap and die", "doubt swap and etcd"))
    held_s, away_s = dice.uniform(0.3, 4.0), dice.choice((0.01, dice.uniform(8.0, 14.0)))
    if dice.random() < 0.5:
        return [
            Fault(at_s, kind, "standby", away_s, "solo", held_s),
            Fault(at_s + 0.1, "cut", "leader", dice.uniform(3.0, 12.0)),
        ]
    return [
        Fault(at_s, "cut", "standby", 2.5, other="leader"),
        Fault(at_s + 3.0, kind, "leader", away_s, dice.choice(("sync", "solo")), held_s),
    ]


def _overtaken(dice: Random, at_s: float) -> list[Fault]:
    """A swap of an earlier life of the agent arrives right before the first one of the next."""
    away_s = dice.uniform(8.0, 14.0)
    return [
        Fault(at_s, "cut", "standby", 2.5, other="leader"),
        Fault(at_s + 1.0, "overtaken swap", "leader", away_s, dice.choice(("sync", "solo"))),
    ]


def _resumed(dice: Random, at_s: float) -> list[Fault]:
    """A pause is ended by a person, and the leader hangs right then."""
    soon_s = at_s + dice.uniform(2.0, 6.0)
    return [
        Fault(at_s, "ask", "", other="pause", amount=dice.uniform(20.0, 60.0)),
        Fault(soon_s, "hang at resume", "leader", 12.0),
        Fault(soon_s + 0.1, "ask", "", other="resume"),
    ]


def _paused_for_long(dice: Random, at_s: float) -> list[Fault]:
    """A pause that outlasts any permission, and etcd is away for a part of it (I7)."""
    away_s = dice.uniform(6.0, 30.0)
    gone = dice.choice(
        (
            Fault(at_s + dice.uniform(0.2, 8.0), "etcd all", "", away_s),
            Fault(at_s + dice.uniform(0.2, 8.0), "cut", "leader", away_s),
            Fault(at_s + dice.uniform(0.2, 8.0), "store mood", "", away_s, amount=0.9),
        )
    )
    faults = [Fault(at_s, "ask", "", other="pause", amount=dice.uniform(15.0, 90.0)), gone]
    if dice.random() < 0.5:
        faults.append(Fault(gone.at_s + dice.uniform(-1.0, 3.0), "kill agent", "leader", 0.5))
    return faults


def _doubled(dice: Random, at_s: float) -> list[Fault]:
    """Datagrams come twice, and the leader is lost while they do."""
    chance, node = dice.choice((0.1, 0.6)), dice.choice(NODES)
    faults = [Fault(at_s, "double packets", node, dice.uniform(5.0, 15.0), amount=chance)]
    if dice.random() < 0.5:
        faults.append(_taken_away(dice, at_s + dice.uniform(1.0, 5.0)))
    return faults


def _slower(dice: Random, at_s: float) -> list[Fault]:
    """A network that fails by and by: no moment in which it breaks."""
    node, most_s = dice.choice(("leader", "standby", "wit")), dice.choice((0.5, 1.5, 4.0))
    return [Fault(at_s, "slower link", node, dice.uniform(5.0, 25.0), amount=most_s)]


def _disk_of_etcd(dice: Random, at_s: float) -> list[Fault]:
    """The disk of a member stalls; at a database node also that of its Postgres."""
    node, lasts_s = dice.choice(("leader", "standby", "wit")), dice.uniform(1.0, 12.0)
    faults = [Fault(at_s, "stall disk", node, lasts_s)]
    if dice.random() < 0.4:
        faults.append(Fault(at_s + dice.uniform(-1.0, 2.0), "etcd member", "wit", lasts_s))
    return faults


_RARITIES: tuple[Rarity, ...] = (
    _promotion,
    _held,
    _doubted,
    _overtaken,
    _resumed,
    _paused_for_long,
    _doubled,
    _slower,
    _disk_of_etcd,
)
