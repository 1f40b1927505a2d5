"""What is done when: all of it follows from the seed.

Faults are drawn from a bag that holds each kind once, so that none is forgotten; a round has one,
or two of different kinds on one host, or one and an operator.  So two of three hosts are left
alone, as I9 asks, but for the few kinds that say of themselves that they strike all.

Pure.  Which host is the primary then, only the run knows.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from chaos.nemeses.scene import Nemesis

TWO = 0.35
"""How many rounds have two faults."""
HOLD_S = (1.5, 7.0)
SECOND_AFTER_S = (0.0, 2.5)
PEOPLE = "switchover"


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault to come."""

    nemesis: Nemesis
    role: str
    dice: random.Random


@dataclass(frozen=True, slots=True)
class Plan:
    """One round to come."""

    number: int
    strikes: tuple[Strike, ...]
    second_after_s: float
    hold_s: float


def rounds(seed: int, nemeses: Mapping[str, Nemesis]) -> Iterator[Plan]:
    """Rounds without an end."""
    dice = random.Random(seed)
    bag: list[Nemesis] = []
    for number in count(1):
        if not bag:
            bag = [nemeses[name] for name in sorted(nemeses)]
            dice.shuffle(bag)
        first = bag.pop()
        role = dice.choice(first.roles)
        strikes = [Strike(first, role, _fork(dice))]
        beside = _beside(first, role, list(nemeses.values()))
        if beside and dice.random() < TWO:
            strikes.append(Strike(dice.choice(beside), role, _fork(dice)))
            if dice.random() < 0.5:
                strikes.reverse()
        yield Plan(number, tuple(strikes), dice.uniform(*SECOND_AFTER_S), dice.uniform(*HOLD_S))


def _beside(first: Nemesis, role: str, all_: Sequence[Nemesis]) -> list[Nemesis]:
    """What may strike together with it: the same host, or somebody who types a command."""
    fits = [
        other
        for other in sorted(all_, key=lambda each: each.name)
        if family(other) != family(first)
        and role in other.roles
        and {family(first), family(other)} not in _NEVER_TOGETHER
    ]
    people = [other for other in all_ if other.name == PEOPLE and first.name != PEOPLE]
    # A person asks as often as anything else happens beside: half of the time.
    return [*fits, *people * max(1, len(fits))]


# A host that is off has no disk to fill, and none whose etcd could lose its data; and who waits
# for a stalled disk can't be frozen.
_NEVER_TOGETHER = (
    {"disk", "power"},
    {"disk", "etcd"},
    {"disk", "pause"},
    {"power", "etcd"},
    {"power", "pause"},
)


def family(nemesis: Nemesis) -> str:
    """`partition` of `partition-full`: two of one family would undo each other."""
    return "partition" if nemesis.name == "slow-link" else nemesis.name.partition("-")[0]


def _fork(dice: random.Random) -> random.Random:
    return random.Random(dice.getrandbits(64))
