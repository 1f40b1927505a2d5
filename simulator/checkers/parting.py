"""S7, S5: who is stopped on purpose has said so before."""

from collections.abc import Iterator

from flightmode.model.policy import Policy
from simulator.checkers.judging import Violation
from simulator.history import History, Parted

# So long an etcd that is well takes at most.
_ANSWERED_S = 0.05


def a_stop_is_said_before(history: History, policy: Policy) -> Iterator[Violation]:
    """S7: no leader ends its clients' sessions in peace before the proxies could know.

    Whom etcd does not answer cannot tell anybody, and is stopped all the same.
    """
    for fact in history.of(Parted):
        leads = fact.state is not None and fact.state.leader == fact.node
        silent_s = fact.unanswered_s
        if leads and not fact.said and (silent_s is None or silent_s < _ANSWERED_S):
            yield Violation(fact.at_s, "S7", f"{fact.node} was stopped and had not said so before")
