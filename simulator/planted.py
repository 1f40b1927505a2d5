"""The planted bugs: what a tired engineer might have written instead.

Each breaks one sentence of the rules (S1-S10), and nothing else.  Where a second rule covers
for the first, the mutant takes both away, because with one of them nothing can go wrong:

- Who is counted on is rewound: who leads begins with nobody counted on, and adds only who streams
  in its own history, which always fits it.
- Two timelines of one number: two nodes are promoted apart only when a person forces it, and who
  is passed over by that is copied anew, whatever its timeline is called.
- What an earlier life knew: the first renewal of a life goes before everything else that it
  decides, and what follows a swap that failed is not done; so a swap of before has either been
  carried out by then, and ours fails, or it never will be.

Two rules have no mutant, because what they guard against takes other bugs first:

- The term is asked again before each act (agent/act.py): nothing reads the store between a
  decision and its acts.  Only a start waits in between, and the fence takes neither an older term
  nor a deadline that is over.
- Names are cleared before a promotion: whoever follows or detaches has cleared them already.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: in which file, which text becomes what."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


MUTANTS = (
    Mutant(
        "the detach is not verified",
        (
            (
                "decide/election.py",
                "if view.server.following is not None or view.server.receiver is not None:",
                "if view.server.following is not None:",
            ),
        ),
    ),
    Mutant(
        "a claim without detaching",
        (
            (
                "decide/election.py",
                "if view.server.following is not None or view.server.receiver is not None:",
                "if view.now_s < 0:",
            ),
        ),
    ),
    Mutant(
        "a claim by who is not in the sync set",
        (
            (
                "decide/election.py",
                "if state.mode is not Mode.SYNC or view.me.name not in state.sync or paused(view):",
                "if paused(view):",
            ),
        ),
    ),
    Mutant(
        "a claim before the silence has lasted the ttl",
        (
            (
                "decide/election.py",
                "    if silent_for_s(view) >= lease_s(view):\n        return f",
                "    if silent_for_s(view) >= lease_s(view) / 2:\n        return f",
            ),
        ),
    ),
    Mutant(
        "who waits goes by its own ttl",
        (
            (
                "decide/permission.py",
                "    return max(view.policy.ttl_s, state_of(view).ttl_s)\n",
                "    return view.policy.ttl_s\n",
            ),
        ),
    ),
    Mutant(
        "what is left of a longer permission is forgotten",
        (
            (
                "decide/permission.py",
                "    return max(view.policy.ttl_s, fence.deadline_s - view.now_s)\n",
                "    return view.policy.ttl_s\n",
            ),
        ),
    ),
    Mutant(
        "commits stop waiting before the degrade is recorded",
        (
            (
                "decide/quorum.py",
                'alone = (swap(view, "degrade", solo), LiftFence(term), SetSyncNames(term, ()))',
                'alone = (SetSyncNames(term, ()), swap(view, "degrade", solo))',
            ),
        ),
    ),
    Mutant(
        "a standby is recorded before commits are known to wait for it",
        (
            (
                "decide/quorum.py",
                "if names != (candidate,) or view.server.sync_since is None:",
                "if names != (candidate,):",
            ),
            (
                "decide/quorum.py",
                "not _holds_everything(view, candidate) or not _permission_left(view)",
                "not _permission_left(view)",
            ),
        ),
    ),
    Mutant(
        "a standby is recorded that has not flushed everything",
        (
            (
                "decide/quorum.py",
                "not _holds_everything(view, candidate) or not _permission_left(view)",
                "not _permission_left(view)",
            ),
        ),
    ),
    Mutant(
        "an unknown outcome is taken as lost",
        (("agent/act.py", "            self._tracker.doubted(action.expected_revision)\n", ""),),
    ),
    Mutant(
        "an unknown outcome is taken as done",
        (
            (
                "agent/act.py",
                "            self._tracker.doubted(action.expected_revision)\n            raise\n",
                "            txn = Txn(True, action.expected_revision + 1)\n",
            ),
            (
                "agent/act.py",
                "from flightmode.store.port import Compare, Delete, Put",
                "from flightmode.store.port import Compare, Delete, Put, Txn",
            ),
        ),
    ),
    Mutant(
        "a doubt is forgotten by the leader",
        (
            (
                "decide/leading.py",
                "    if view.store.in_doubt is not None:\n",
                "    if view.now_s < 0:\n",
            ),
            (
                "decide/permission.py",
                "    if view.store.in_doubt is not None:\n        return False\n",
                "",
            ),
        ),
    ),
    Mutant(
        "permission counts from the answer",
        (
            (
                "agent/act.py",
                "        if state.leader == self._me:\n            self._tracker.renewed",
                "        sent_s = self._hands.clock.now_s()\n"
                "        if state.leader == self._me:\n            self._tracker.renewed",
            ),
        ),
    ),
    Mutant(
        "the margin is added",
        (("decide/permission.py", "(1 - view.policy.margin)", "(1 + view.policy.margin)"),),
    ),
    Mutant(
        "the fence has no deadline when a standby becomes promotable",
        (
            (
                "decide/permission.py",
                "    if solo_confirmed(view) and not adding:\n",
                "    if fence.lifted or (solo_confirmed(view) and not adding):\n",
            ),
        ),
    ),
    Mutant(
        "the deadline stays in mode solo",
        (
            (
                "decide/permission.py",
                "    if solo_confirmed(view) and not adding:\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "a pause is ignored by who might claim",
        (
            (
                "decide/election.py",
                "view.me.name not in state.sync or paused(view):",
                "view.me.name not in state.sync:",
            ),
        ),
    ),
    Mutant(
        "clients see what crash recovery brought back",
        (
            (
                "decide/leading.py",
                '    if solo_confirmed(view):\n        return answer(view, "leading: admit"',
                '    if view.now_s > 0:\n        return answer(view, "leading: admit"',
            ),
        ),
    ),
    Mutant(
        "Postgres starts although its handover is offered",
        (
            (
                "decide/leading.py",
                "    if state.handover is not None:\n        return _offered(view",
                "    if view.now_s < 0:\n        return _offered(view",
            ),
        ),
    ),
    Mutant(
        "a switchover to who is not promotable",
        (
            (
                "decide/switchover.py",
                "    if state.mode is not Mode.SYNC:\n",
                "    if view.now_s < 0:\n",
            ),
            ("decide/switchover.py", "    if target not in state.sync:\n", "    if not target:\n"),
            (
                "decide/switchover.py",
                '(sync[0] if sync else "")',
                "next(n for n in view.policy.databases if n != view.me.name)",
            ),
            (
                "decide/switchover.py",
                "    if target not in state_of(view).sync:\n",
                "    if not target:\n",
            ),
        ),
    ),
    Mutant(
        "the fence acts late",
        (
            (
                "fence/permission.py",
                "        if now_s >= self.deadline_s:\n",
                "        if now_s >= self.deadline_s + 1.5:\n",
            ),
        ),
    ),
    Mutant(
        "the fence does not look at its clocks",
        (("fence/permission.py", "        if moved_s > JUMP_S:\n", "        if moved_s < 0:\n"),),
    ),
    Mutant(
        "the fence is lifted whatever the mode",
        (
            (
                "decide/permission.py",
                "    if solo_confirmed(view) and not adding:\n",
                "    if confirmed(view) and not adding:\n",
            ),
        ),
    ),
    Mutant(
        "the state is written without comparing",
        (
            (
                "agent/act.py",
                "self._hands.store.commit((compare,), tuple(ops))",
                "self._hands.store.commit((), tuple(ops))",
            ),
        ),
    ),
    Mutant(
        "a claim in the old term",
        (("decide/election.py", "        term=state.term + 1,\n", "        term=state.term,\n"),),
    ),
    Mutant(
        "a new leader begins with the old one in its sync set",
        (
            (
                "decide/election.py",
                "        mode=Mode.SOLO,\n        sync=(),\n",
                "        mode=Mode.SYNC,\n        sync=(state.leader,),\n",
            ),
            (
                "decide/quorum.py",
                "    if view.server.admits_clients and view.server.sync_names != (holder,):\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "the silence counts from the first look, not from the last change",
        (
            (
                "store/tracker.py",
                "state_changed_s=self._view.state_changed_s if unchanged else now_s,",
                "state_changed_s=self._view.state_changed_s if self._view.read_s >= 0 else now_s,",
            ),
        ),
    ),
    Mutant(
        "a primary goes on beside another leader",
        (("decide/following.py", "    if _plays_primary(view):\n", "    if view.now_s < 0:\n"),),
    ),
    Mutant(
        "a promotion that was cut in two goes on as a primary",
        (
            (
                "model/server.py",
                "not self.standby_signal and self.control_state not in _OF_A_STANDBY",
                "not self.standby_signal",
            ),
        ),
    ),
    Mutant(
        "the long permission of a pause outlives it",
        (
            (
                "decide/requests.py",
                '    actions = (*fence_actions(after), swap(view, "resume", without))\n',
                '    actions = (swap(view, "resume", without),)\n',
            ),
            (
                "decide/requests.py",
                "(end_s is None or end_s - view.now_s < _LEFT_S):\n",
                "view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "a promotion that hangs is waited for without end",
        (
            (
                "decide/promotion.py",
                "    if waited_s < view.policy.promote_patience_s:\n",
                "    if waited_s >= 0:\n",
            ),
        ),
    ),
    Mutant(
        "an offered handover is waited for without end",
        (
            (
                "decide/leading.py",
                "    if waited_s < view.policy.handover_patience_s:\n",
                "    if waited_s >= 0:\n",
            ),
        ),
    ),
    Mutant(
        "a standby that is silent is waited for without end",
        (
            (
                "decide/quorum.py",
                "    if relieved or (not alive(view, holder) and not _just_started(view)):\n",
                "    if relieved:\n",
            ),
        ),
    ),
    Mutant(
        "commits wait for nobody although a standby is recorded",
        (
            (
                "decide/quorum.py",
                "    if not view.server.sync_names or busy or not solo_confirmed(view):\n",
                "    if not view.server.sync_names or busy:\n",
            ),
            (
                "decide/quorum.py",
                "return _keep(view)\n",
                "return _keep(view) or (None if _candidate(view) else _wait_for_nobody(view))\n",
            ),
            (
                "decide/quorum.py",
                "    if view.server.admits_clients and view.server.sync_names != (holder,):\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "what was known of an earlier life counts as confirmed",
        (
            (
                "decide/permission.py",
                "    return _renewed_now(view) or view.store.saw_term_begin\n",
                "    return True\n",
            ),
            (
                "decide/leading.py",
                "        return before(decision, renew(view))\n",
                "        return replace(decision, actions=(*decision.actions, renew(view)))\n",
            ),
        ),
    ),
    Mutant(
        "a crashed primary is started as a standby's copy would be",
        (
            (
                "decide/leading.py",
                "    role = Role.PRIMARY if data.was_primary else Role.STANDBY\n",
                "    role = Role.STANDBY\n",
            ),
        ),
    ),
    Mutant(
        "a standby without room claims",
        (
            (
                "decide/election.py",
                "        and view.server.disk_free >= view.policy.disk_floor\n",
                "",
            ),
        ),
    ),
    Mutant(
        "clients come in before commits are proven to wait",
        (
            (
                "decide/leading.py",
                "sync_names == state.sync and view.server.sync_since is not None\n",
                "sync_names == state.sync\n",
            ),
        ),
    ),
)
