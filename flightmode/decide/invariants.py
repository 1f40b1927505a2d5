"""What must hold between a view and its decision, whatever the rules say.

A second, independent statement of the order in S2 and S3: asserted on every decision
in production and in simulation.  A failed assertion is a bug of ours; the agent then
carries out nothing of that decision.
"""

from dataclasses import replace

from flightmode.decide.namesake import holds, namesake
from flightmode.model.action import (
    ExtendFence,
    LiftFence,
    Promote,
    SetSyncNames,
    StartPostgres,
    SwapState,
)
from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.decision import Decision
from flightmode.model.server import Role
from flightmode.model.view import View


def check(view: View, decision: Decision) -> None:
    """Raises AssertionError when the decision breaks a rule."""
    swaps = [action for action in decision.actions if isinstance(action, SwapState)]
    assert len(swaps) <= 1, "more than one swap of the state in a decision"
    for swap in swaps:
        _check_swap(view, decision, swap)
    for action in decision.actions:
        _check_action(view, action)
        if isinstance(action, SwapState):
            # The next action is carried out only when this one was confirmed.
            view = replace(view, store=replace(view.store, state=action.state, in_doubt=None))


def _check_swap(view: View, decision: Decision, swap: SwapState) -> None:
    old, new = view.store.state, swap.state
    assert swap.expected_revision == view.store.state_revision, "a swap of a state not seen"
    alone = namesake(view) is None
    assert alone or holds(view), "another machine has this name, and this one leads nothing (I1)"
    if old is None:
        assert swap.purpose == "create" and new.mode is Mode.SOLO
        return
    assert new.renewal == old.renewal + 1, "every swap is a renewal"
    assert new.system_identifier == old.system_identifier
    if new.leader == old.leader:
        assert new.term == old.term, "the term changes with the leader and only then (I4)"
        assert old.leader == view.me.name, "only the leader renews"
        assert old.given or not new.given, "a term is given by who leads the one before it (S7)"
    else:
        _check_change_of_leader(view, old, new)
    if new.mode is Mode.SYNC and new.sync != old.sync:
        _check_added(view, decision, new)


def _check_change_of_leader(view: View, old: ClusterState, new: ClusterState) -> None:
    assert new.term == old.term + 1, "a term grows by exactly one (I1)"
    assert new.mode is Mode.SOLO and not new.sync, "a new leader begins alone"
    if old.leader != view.me.name:
        assert not new.given, "a term is given by who leads the one before it (S7)"
    if new.leader == old.previous and old.mode is Mode.SOLO and new.leader == view.me.name:
        clean = view.server.data is not None and view.server.data.shut_down_cleanly
        forced = new.leader not in new.passed_over and old.leader in new.passed_over
        assert forced or (old.given and clean), "only what was not taken up is taken back (S7)"
    if new.leader == view.me.name:
        assert view.server.following is None and view.server.receiver is None, "detach first (S3)"


def _check_added(view: View, decision: Decision, new: ClusterState) -> None:
    assert view.server.sync_names == new.sync, "named before recorded (S2)"
    assert view.server.sync_since is not None, "proven before recorded (S2)"
    armed = not view.fence.lifted and view.fence.term == new.term
    arms = any(isinstance(action, ExtendFence) for action in decision.actions)
    assert armed or arms, "the fence has a deadline before anyone is promotable (S2)"


def _check_action(view: View, action: object) -> None:
    state = view.store.state
    match action:
        case LiftFence():
            assert state is not None and state.mode is Mode.SOLO, "no deadline only in solo (I6)"
            assert view.store.in_doubt is None, "nothing is built on a doubt (S1)"
        case SetSyncNames(names=()):
            assert state is not None and state.mode is Mode.SOLO, "recorded before cleared (S2)"
            assert view.store.in_doubt is None, "nothing is built on a doubt (S1)"
        case Promote() | StartPostgres(role=Role.PRIMARY):
            assert state is not None and state.leader == view.me.name, "only the leader (I1)"
            alone = namesake(view) is None
            assert alone or holds(view), "another machine has this name (I1)"
            assert state.handover is None, "an offered handover stands"
            assert not state.given, "taken up before anybody is promoted (S7)"
            renewed = view.renewed is not None and view.renewed.term == state.term
            assert renewed or view.store.saw_term_begin, "an unconfirmed term"
        case _:
            pass
