"""The planted bugs of pauses (I7), switchovers (S7), the guards (S10), and of reads (S1)."""

from simulator.planted import Mutant

BY_PLAN_OF_GUARDS = {
    "a paused leader is fenced": "a-leader-is-cut-off-in-a-pause",
    "the term is given away before the flush is proven": "a-link-is-cut-as-postgres-stops",
    "a hung primary is ended whoever could serve": "a-postmaster-hangs-while-it-is-alone",
    "crashes go round for ever": "a-query-that-kills-each-primary",
    "a promise of before a machine stood still counts": (
        "a-promise-of-before-a-machine-stood-still"
    ),
    "a promise cuts a pause short": "a-promise-in-a-pause",
    "only an answered swap tells that a leader is alone": "alone-by-a-swap-whose-answer-was-lost",
    "a promotion that stands still is asked for without end": (
        "a-promotion-that-is-wedged-and-nobody-else"
    ),
    "decisions rest on serializable reads": "a-pause-that-ended-and-a-member-that-lags",
}
"""The kept plan that finds each."""

GUARDS = (
    Mutant(
        "a promise of before a machine stood still counts",
        (("agent/steady.py", "_JUMP_S = 0.5\n", "_JUMP_S = 1e9\n"),),
    ),
    Mutant(
        "a promise cuts a pause short",
        (
            (
                "agent/lease.py",
                "        if until_s is None or state.pause is None:\n",
                "        if until_s is None or self._me:\n",
            ),
        ),
    ),
    Mutant(
        "only an answered swap tells that a leader is alone",
        (
            (
                "decide/permission.py",
                "    return state_of(view).mode is Mode.SOLO and confirmed(view)\n",
                "    told = view.renewed is not None and view.renewed.solo\n"
                "    return state_of(view).mode is Mode.SOLO and confirmed(view) and told\n",
            ),
        ),
    ),
    Mutant(
        "a promotion that stands still is asked for without end",
        (("decide/promotion.py", "_STANDS_STILL = 4\n", "_STANDS_STILL = 4000\n"),),
    ),
    Mutant(
        "a paused leader is fenced",
        (
            (
                "decide/permission.py",
                "    if state.pause is not None:\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "the term is given away before the flush is proven",
        (
            (
                "decide/switchover.py",
                "member.run is Run.STANDBY and member.position > data.position:",
                "member.run is Run.STANDBY:",
            ),
        ),
    ),
    Mutant(
        "a hung primary is ended whoever could serve",
        (
            (
                "decide/leading.py",
                "    if successor is None or _begins_or_ends(view):\n",
                "    if _begins_or_ends(view):\n",
            ),
        ),
    ),
    Mutant(
        "crashes go round for ever",
        (
            (
                "decide/leading.py",
                "    return len(recent) >= view.policy.crashes_max\n",
                "    return len(recent) < 0\n",
            ),
        ),
    ),
    Mutant(
        "decisions rest on serializable reads",
        (
            (
                "store/tracker.py",
                "            snapshot = await self._store.read(self._prefix)\n",
                "            snapshot = await self._store.read(self._prefix, serializable=True)\n",
            ),
            (
                "store/tracker.py",
                "            if snapshot.revision < self.revision:\n",
                "            if snapshot.revision < 0:\n",
            ),
        ),
    ),
)
