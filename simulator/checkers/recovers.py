"""I9: with two of three healthy, somebody serves, and everybody knows who."""

import math
from collections.abc import Callable, Iterator
from itertools import zip_longest

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import UNTOLD, Healed, History, Looked

_WRITABLE_WITHIN_S = 30.0
_SYNCED_WITHIN_S = 60.0

_WANTED: dict[str, tuple[float, Callable[[Looked], bool]]] = {
    "writable": (_WRITABLE_WITHIN_S, lambda look: look.served),
    "routed": (_WRITABLE_WITHIN_S, lambda look: look.routed),
    "synced": (_SYNCED_WITHIN_S, lambda look: look.synced),
}


def it_recovers(history: History, policy: Policy) -> Iterator[Violation]:
    """I9: after the healing one writable primary within 30 s, to which all nodes that are there
    send who wants to write; a synchronous standby within 60 s.
    """
    healings = list(history.of(Healed))
    for healed, following in zip_longest(healings, healings[1:]):
        until_s = following.at_s if following is not None else math.inf
        if following is None or following.without != UNTOLD:
            yield from _recovers(history, healed, until_s)


def _recovers(history: History, healed: Healed, until_s: float) -> Iterator[Violation]:
    if healed.without == UNTOLD:
        return
    looks = [look for look in history.of(Looked) if healed.at_s < look.at_s <= until_s]
    end_s = looks[-1].at_s if looks else healed.at_s
    for word, (within_s, holds) in _WANTED.items():
        if healed.without and word == "synced":
            continue
        in_time = [look for look in looks if look.at_s <= healed.from_s + within_s]
        if not any(len(look.primaries) == 1 and holds(look) for look in in_time):
            why = in_time[-1].why if in_time else "nobody looked"
            whom = f"healing of all but {healed.without}" if healed.without else "healing"
            what = f"not {word} {within_s:.0f} s after the {whom}: {why}"
            yield Violation(end_s, "I9", what)
    for look in looks:
        if len(look.primaries) > 1 and look.at_s > healed.from_s + _WRITABLE_WITHIN_S:
            yield Violation(look.at_s, "I9", f"more than one primary: {look.primaries}")
