"""The planted bugs of the fast path (S3.1) and of the peer lease (S6)."""

from simulator.planted import Mutant

_LOST = "decide/election.py"
_SUSPICION = "decide/suspicion.py"
_LEASE = "decide/lease.py"

BY_PLAN = {
    "one observer suffices": "a-witness-that-said-something-long-ago",
    "the other observer alone suffices": "the-witness-hears-nothing-and-an-agent-hangs",
    "WAL is no sign of life": "a-muted-leader-whose-agent-hangs",
    "a renewal is no sign of life": "a-muted-leader-that-only-renews",
    "who slept says that others were silent": "a-witness-that-slept",
    "the fence's heartbeats are not listened to": "an-agent-hangs-behind-a-cut-link",
    "the agent's heartbeats are not listened to": "a-fence-hangs-and-only-the-agent-is-heard",
    "a suspicion of any age counts": "a-witness-that-said-something-long-ago",
    "half the time is long enough": "a-short-cut",
    "a lost leader is replaced by who is not in the sync set": (
        "a-leader-lost-while-its-standby-is-not-promotable"
    ),
    "a lost leader is replaced without a detach": "a-link-that-returns-before-the-promotion",
    "a claim although a promise stands": "etcd-returns-as-the-leader-is-lost",
    "a promise counts from its answer": "a-promise-over-a-slow-link",
    "the margin is added to a promise": "etcd-returns-as-the-leader-is-lost",
    "a promise is taken for more than it is": "a-promise-over-a-slow-link",
    "a promise although a claim is in doubt": "a-claim-in-doubt-and-etcd-gone",
    "a promise although a claim of an earlier life may arrive": (
        "a-claim-of-an-earlier-life-and-etcd-gone"
    ),
}
"""The kept plan that finds each."""

FAST = (
    Mutant(
        "one observer suffices",
        ((_LOST, "if suspects(view) is None or other is None:", "if suspects(view) is None:"),),
    ),
    Mutant(
        "the other observer alone suffices",
        ((_LOST, "if suspects(view) is None or other is None:", "if other is None:"),),
    ),
    Mutant(
        "WAL is no sign of life",
        (
            (
                _SUSPICION,
                "        last_s = max(last_s, view.memory.wal_heard_s)\n",
                "",
            ),
        ),
    ),
    Mutant(
        "a renewal is no sign of life",
        ((_SUSPICION, "max(*beats, view.store.state_changed_s, ", "max(*beats, "),),
    ),
    Mutant(
        "who slept says that others were silent",
        (
            (
                _SUSPICION,
                "view.store.state_changed_s, listening.attentive_since_s)",
                "view.store.state_changed_s)",
            ),
        ),
    ),
    Mutant(
        "the fence's heartbeats are not listened to",
        ((_SUSPICION, "max(*beats, view.store", "max(*beats[:2], view.store"),),
    ),
    Mutant(
        "the agent's heartbeats are not listened to",
        ((_SUSPICION, "max(*beats, view.store", "max(beats[2], view.store"),),
    ),
    Mutant(
        "a suspicion of any age counts",
        ((_SUSPICION, "if known and said_now and", "if known and"),),
    ),
    Mutant(
        "half the time is long enough",
        (
            (
                _SUSPICION,
                "silent_s < view.policy.suspect_after_s:",
                "silent_s < view.policy.suspect_after_s / 2:",
            ),
        ),
    ),
    Mutant(
        "a lost leader is replaced by who is not in the sync set",
        (
            (
                _LOST,
                "view.me.name not in state.sync or paused(view):\n        return None\n",
                "view.me.name not in state.sync or paused(view):\n        return _lost(view)\n",
            ),
        ),
    ),
    Mutant(
        "a lost leader is replaced without a detach",
        (
            (
                _LOST,
                "    if view.server.following is not None or view.server.receiver is not None:\n",
                "    gone = view.server.following is None and view.server.receiver is None\n"
                '    if not gone and " is lost: " not in reason:\n',
            ),
        ),
    ),
    Mutant(
        "a claim although a promise stands",
        (
            (_LOST, "    if promised(view):\n        return None\n", ""),
            (
                "agent/act.py",
                "        if self._leases.promised and not offered:\n",
                "        if False:\n",
            ),
        ),
    ),
    Mutant(
        "a promise counts from its answer",
        (
            (
                "agent/lease.py",
                "        newer = known is None or (known.term, known.sent_s)"
                " < (leased.term, leased.sent_s)\n",
                "        newer = known is None or known is not leased\n",
            ),
            (
                "agent/lease.py",
                "            self.leased = leased\n",
                "            self.leased = Leased(\n"
                "                leased.by, leased.term, self._clock.now_s(), leased.for_s\n"
                "            )\n",
            ),
        ),
    ),
    Mutant(
        "the margin is added to a promise",
        ((_LEASE, "(1 - policy.margin)", "(1 + policy.margin)"),),
    ),
    Mutant(
        "a promise is taken for more than it is",
        ((_LEASE, "leased.sent_s + leased.for_s * (1", "leased.sent_s + 3 * leased.for_s * (1"),),
    ),
    Mutant(
        "a promise although a claim is in doubt",
        ((_LEASE, "        and store.in_doubt is None\n", ""),),
    ),
    Mutant(
        "a promise although a claim of an earlier life may arrive",
        ((_LEASE, "        and store.saw_change\n", ""),),
    ),
)
