"""What must never happen, judged over the history of a run: one file per invariant.

They know nothing of the simulator and trust no node's word: only what etcd carried out,
what Postgres had on disk, what clients were told.
"""

from flightmode.model.policy import Policy
from simulator.checkers.alone import who_is_alone_is_not_fenced
from simulator.checkers.guards import crashes_do_not_go_round, no_primary_is_killed_in_vain
from simulator.checkers.judging import Checker, Violation
from simulator.checkers.kept import no_copy_is_thrown_away
from simulator.checkers.lost import two_have_missed_who_is_lost
from simulator.checkers.nothing_lost import nothing_acknowledged_is_lost
from simulator.checkers.one_holder import one_holder_per_term
from simulator.checkers.one_key import one_key_one_swap
from simulator.checkers.parting import a_stop_is_said_before
from simulator.checkers.paused import a_pause_is_kept
from simulator.checkers.permission import permission_ends_in_time
from simulator.checkers.promises import a_promise_is_kept
from simulator.checkers.promotable import only_the_promotable_lead
from simulator.checkers.recovers import it_recovers
from simulator.checkers.switched import a_switchover_loses_nothing
from simulator.checkers.unbroken import nothing_of_ours_breaks
from simulator.history import History

ALL: tuple[Checker, ...] = (
    one_holder_per_term,
    nothing_acknowledged_is_lost,
    one_key_one_swap,
    only_the_promotable_lead,
    who_is_alone_is_not_fenced,
    a_pause_is_kept,
    permission_ends_in_time,
    two_have_missed_who_is_lost,
    a_promise_is_kept,
    a_switchover_loses_nothing,
    a_stop_is_said_before,
    crashes_do_not_go_round,
    no_primary_is_killed_in_vain,
    it_recovers,
    no_copy_is_thrown_away,
    nothing_of_ours_breaks,
)


def judge(history: History, policy: Policy) -> list[Violation]:
    """Everything that was broken, in the order of time."""
    found = [violation for check in ALL for violation in check(history, policy)]
    return sorted(found, key=lambda violation: violation.at_s)


__all__ = ["ALL", "Violation", "judge"]
