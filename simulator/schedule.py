"""Schedules of faults, drawn from a seed: single ones, and those that go wrong together."""

from collections.abc import Callable
from random import Random

from simulator.fault import Fault
from simulator.world import DATABASES, NODES

_BLOWS = ("power", "power", "cut", "freeze", "hang agent", "hang fence", "starve", "kill postgres")

Draw = Callable[[Random, float], Fault]
Theme = Callable[[Random, float], list[Fault]]


def drawn(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """A schedule: some faults of a few kinds, at random moments, often several at once."""
    kinds = dice.sample(sorted(_DRAWN), dice.randint(2, 6))
    number = dice.randint(3, 14)
    faults: list[Fault] = []
    for _ in range(number):
        at_s = dice.uniform(begin_s, end_s)
        faults.append(_DRAWN[dice.choice(kinds)](dice, at_s))
        if dice.random() < 0.35:
            # What goes wrong while something is going wrong finds the most.
            soon_s = at_s + dice.choice((0.0, 0.05, 0.3, 1.0, 4.5)) * dice.random()
            faults.append(_DRAWN[dice.choice(sorted(_DRAWN))](dice, soon_s))
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        faults += dice.choice(_THEMES)(dice, dice.uniform(begin_s, end_s - 4.0))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def muffled(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """What goes wrong with heartbeats, beside the rest and drawn apart from it."""
    faults: list[Fault] = []
    for _ in range(dice.choice((0, 0, 1, 2, 4))):
        at_s = dice.uniform(begin_s, end_s)
        faults.append(Fault(at_s, "mute", _database(dice), _lasting(dice)))
        if dice.random() < 0.6:
            other = dice.choice(("etcd all", "hang agent", "hang fence", "cut", "one way"))
            who = "" if other == "etcd all" else dice.choice(("leader", "standby", "wit"))
            soon_s = at_s + dice.uniform(-1.0, 1.5)
            faults.append(Fault(soon_s, other, who, dice.choice((1.0, 3.0)) * dice.random()))
    return tuple(faults)


def retimed(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """A shorter ttl is rolled out, node by node, in some runs; drawn apart from the rest."""
    if dice.random() > 0.2:
        return ()
    at_s, amount = dice.uniform(begin_s, end_s), dice.choice((2.5, 3.5))
    nodes = dice.sample(NODES, dice.randint(1, len(NODES)))
    return tuple(
        Fault(at_s + dice.uniform(0.0, 4.0), "retime", node, dice.uniform(1.0, 20.0), "", amount)
        for node in nodes
    )


def struck(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """A switchover, and something happens to whom it gives the term to, just then; in some runs."""
    if dice.random() > 0.15:
        return ()
    at_s, kind = dice.uniform(begin_s, end_s), dice.choice(_BLOWS)
    lasts_s, soon_s = dice.uniform(1.0, 20.0), dice.choice((0.0, 0.005, 0.02, 0.1, 0.5))
    return (
        Fault(at_s, "strike target", "", lasts_s, kind, soon_s * dice.random()),
        Fault(at_s + 0.1, "ask", "", other="switchover"),
    )


def exchanged(dice: Random, begin_s: float, end_s: float) -> tuple[Fault, ...]:
    """A node is to make room for another one, and then stays after all."""
    if dice.random() > 0.5:
        return ()
    at_s, who = dice.uniform(begin_s, end_s), dice.choice(("standby", "standby", "wit", "leader"))
    return (Fault(at_s, "exchange", who, dice.uniform(4.0, 20.0), amount=dice.uniform(0.0, 2.0)),)


def _database(dice: Random) -> str:
    return dice.choice(("leader", "leader", "standby", *DATABASES))


def _any(dice: Random) -> str:
    return dice.choice(("leader", "leader", "standby", *NODES))


def _lasting(dice: Random) -> float:
    return dice.choice((0.3, 2.0, 6.0, 15.0)) * dice.uniform(0.5, 1.5)


def _pair(dice: Random) -> tuple[str, str]:
    one, other = dice.sample(("ams", "fra", "wit"), 2)
    return one, other


def _cut_of(dice: Random, at_s: float) -> Fault:
    kind = dice.choice(("cut", "cut", "one way"))
    if dice.random() < 0.5:
        return Fault(at_s, kind, _any(dice), _lasting(dice))
    one, other = _pair(dice)
    return Fault(at_s, kind, one, _lasting(dice), other=other)


def _asked(dice: Random, at_s: float) -> Fault:
    kind = dice.choice(
        ("switchover", "switchover", "pause", "resume", "restart", "restart", "reload", "reinit")
    )
    node = _who_is_asked(dice, kind)
    return Fault(at_s, "ask", node, other=kind, amount=dice.uniform(2.0, 15.0))


def _who_is_asked(dice: Random, kind: str) -> str:
    if kind in ("pause", "resume"):
        return ""
    if kind == "switchover":
        return dice.choice(("", "standby", "leader"))
    return dice.choice(("leader", "standby"))


_DRAWN: dict[str, Draw] = {
    "kill postgres": lambda d, at: Fault(at, "kill postgres", _database(d)),
    "power": lambda d, at: Fault(at, "power", _any(d), _lasting(d)),
    "cut": _cut_of,
    "slow link": lambda d, at: Fault(
        at, "slow link", _any(d), _lasting(d), amount=d.choice((0.02, 0.2, 0.8))
    ),
    "kill agent": lambda d, at: Fault(at, "kill agent", _any(d), 0.01 + _lasting(d)),
    "hang agent": lambda d, at: Fault(at, "hang agent", _any(d), _lasting(d)),
    "starve": lambda d, at: Fault(at, "starve", _any(d), _lasting(d)),
    "kill fence": lambda d, at: Fault(at, "kill fence", _database(d)),
    "etcd member": lambda d, at: Fault(at, "etcd member", d.choice(NODES), _lasting(d)),
    "etcd all": lambda d, at: Fault(at, "etcd all", "", _lasting(d)),
    "store mood": lambda d, at: Fault(
        at, "store mood", "", _lasting(d), amount=d.choice((0.1, 0.4, 0.9))
    ),
    "store slow": lambda d, at: Fault(
        at, "store slow", "", _lasting(d), amount=d.choice((0.1, 0.4, 0.8))
    ),
    "freeze": lambda d, at: Fault(at, "freeze", _any(d), _lasting(d)),
    "suspend": lambda d, at: Fault(at, "suspend", _any(d), _lasting(d)),
    "jump": lambda d, at: Fault(at, "jump", _any(d), _lasting(d), amount=d.uniform(-30, 30)),
    "lose slot": lambda d, at: Fault(at, "lose slot", "standby"),
    "hang postmaster": lambda d, at: Fault(at, "hang postmaster", _database(d), _lasting(d)),
    "stall disk": lambda d, at: Fault(at, "stall disk", _database(d), _lasting(d)),
    "fill disk": lambda d, at: Fault(at, "fill disk", _database(d), _lasting(d)),
    "lose packets": lambda d, at: Fault(
        at, "lose packets", _any(d), _lasting(d), amount=d.choice((0.02, 0.2, 0.6))
    ),
    "lose data": lambda d, at: Fault(at, "lose data", "standby"),
    "stick promotion": lambda d, at: Fault(at, "stick promotion", "standby", 5.0 + _lasting(d)),
    "forget changes": lambda d, at: Fault(at, "forget changes"),
    "ask": _asked,
}


# ------------------------------------------------------------------ what goes wrong together


def _blow(dice: Random, at_s: float) -> Fault:
    """Something that takes the leader away."""
    kind = dice.choice(("power", "cut", "freeze", "suspend", "starve", "hang agent"))
    if dice.random() < 0.25:
        return Fault(at_s, "kill postgres", "leader")
    return Fault(at_s, kind, "leader", dice.uniform(5.0, 12.0))


def _starved(dice: Random, at_s: float) -> list[Fault]:
    """Nothing of ours ends the old primary: only the detach keeps it from acknowledging (I3)."""
    return [Fault(at_s, "starve", "leader", dice.uniform(6.0, 12.0))]


def _doubted(dice: Random, at_s: float) -> list[Fault]:
    """The standby is added again by a swap of which nothing is known, and the leader is cut off."""
    held_s, away_s = dice.uniform(0.3, 4.0), dice.uniform(8.0, 14.0)
    kind = dice.choice(("doubt swap", "doubt swap alone", "doubt swap alone"))
    return [
        Fault(at_s, "cut", "standby", 2.5, other="leader"),
        Fault(at_s + 3.0, kind, "leader", away_s, other="sync", amount=held_s),
    ]


def _forced(dice: Random, at_s: float) -> list[Fault]:
    """The leader is lost while it is alone, and a person accepts what that means."""
    away_s = dice.uniform(10.0, 25.0)
    return [
        Fault(at_s, "cut", "standby", 4.0, other="leader"),
        Fault(at_s + 3.0, dice.choice(("power", "cut")), "leader", away_s),
        Fault(at_s + 3.0 + dice.uniform(0.0, 8.0), "ask", "standby", other="failover"),
    ]


def _mood(dice: Random, at_s: float) -> Fault:
    return Fault(at_s, "store mood", "", dice.uniform(1.0, 6.0), amount=dice.choice((0.5, 0.95)))


def _lost_standby(dice: Random, at_s: float) -> list[Fault]:
    """The leader degrades, and is lost at about that moment."""
    kind = dice.choice(("cut", "one way"))
    ends = dice.sample(("leader", "standby"), 2)
    faults = [Fault(at_s, kind, ends[0], dice.uniform(1.5, 8.0), other=ends[1])]
    if dice.random() < 0.5:
        faults.append(_mood(dice, at_s + dice.uniform(0.0, 2.5)))
    return [*faults, _blow(dice, at_s + dice.uniform(1.8, 5.0))]


def _returning_standby(dice: Random, at_s: float) -> list[Fault]:
    """The standby is added again, and the leader is lost at about that moment."""
    gone = dice.choice(
        (
            Fault(at_s, "kill postgres", "standby"),
            Fault(at_s, "cut", "standby", dice.uniform(2.2, 5.0), other="leader"),
            Fault(at_s, "kill postgres", "leader"),
        )
    )
    back_s = at_s + dice.choice((1.0, 3.0, 5.0, 11.0, 13.0)) + dice.uniform(0.0, 2.0)
    faults = [gone, _blow(dice, back_s + dice.uniform(0.0, 1.0))]
    if dice.random() < 0.6:
        faults.append(_mood(dice, back_s - 1.0))
    return faults


def _crash(dice: Random, at_s: float) -> list[Fault]:
    """The leader's Postgres dies, and something else with it."""
    soon_s = at_s + dice.choice((0.0, 0.01, 0.03, 0.1, 1.0)) * dice.uniform(0.5, 1.5)
    other = dice.choice(
        (
            Fault(soon_s, "kill postgres", "standby"),
            Fault(soon_s, "cut", "standby", _lasting(dice)),
            Fault(soon_s, "hang agent", "standby", _lasting(dice)),
            Fault(soon_s, "kill agent", "leader", _lasting(dice)),
            _mood(dice, soon_s),
            _blow(dice, soon_s),
        )
    )
    return [Fault(at_s, "kill postgres", "leader"), other]


def _planned(dice: Random, at_s: float) -> list[Fault]:
    """A switchover or a pause, and something goes wrong in the middle of it."""
    kind = dice.choice(("switchover", "switchover", "pause", "restart"))
    node = "leader" if kind == "restart" else ""
    during_s = at_s + dice.uniform(0.0, 1.5)
    amount = dice.uniform(4.0, 15.0)
    faults = [Fault(at_s, "ask", node, other=kind, amount=amount), _either(dice, during_s)]
    if dice.random() < 0.3:
        faults.append(Fault(at_s - 3.0, "cut", "standby", 4.0, other="leader"))
    return faults


def _either(dice: Random, at_s: float) -> Fault:
    if dice.random() < 0.4:
        return _blow(dice, at_s)
    return _DRAWN[dice.choice(sorted(_DRAWN))](dice, at_s)


def _everything(dice: Random, at_s: float) -> list[Fault]:
    """All of it loses power, and comes back one by one."""
    return [Fault(at_s, "power", name, dice.uniform(1.0, 12.0)) for name in NODES]


_THEMES: tuple[Theme, ...] = (
    _lost_standby,
    _lost_standby,
    _returning_standby,
    _returning_standby,
    _crash,
    _planned,
    _everything,
    _forced,
    _starved,
    _doubted,
)
