"""S3.1: a failover before the ttl is no false alarm."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation, changes_of_leader
from simulator.history import History

_LOST = " is lost: "
# Clocks drift, and a silence is measured from what was heard to what is sent.
_MOST = 0.9


def two_have_missed_who_is_lost(history: History, policy: Policy) -> Iterator[Violation]:
    """S3.1: two machines have missed every sign of life of the old leader's, and etcd a renewal."""
    for fact, new in changes_of_leader(history):
        early = _LOST in new.reason and fact.missed_s is not None
        if early and (fact.missed_s or 0.0) < policy.suspect_after_s * _MOST:
            what = f"{fact.node} took over; the last sign of life was {fact.missed_s:.2f} s old"
            yield Violation(fact.at_s, "S3", what)
