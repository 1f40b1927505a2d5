"""The planted bugs of a term that was given, and of who can't use one (S7, S10, I9)."""

from simulator.planted import Mutant

GIVEN = (
    Mutant(
        "a given term is used before it was taken up",
        (
            (
                "decide/promotion.py",
                "    taken = (take_up(view),) if state.given else ()\n",
                "    taken = ()\n",
            ),
        ),
    ),
    Mutant(
        "a term that was taken up is taken back",
        (
            (
                "decide/switchover.py",
                "    mine = state.given and state.previous == view.me.name",
                "    mine = state.previous == view.me.name",
            ),
        ),
    ),
    Mutant(
        "nobody takes a given term back",
        (
            (
                "decide/following.py",
                "    return take_back(view, data) or _rejoin(view, data, leader)\n",
                "    return _rejoin(view, data, leader)\n",
            ),
        ),
    ),
    Mutant(
        "a job keeps a hung primary alive",
        (
            (
                "decide/leading.py",
                "    if successor is None or _begins_or_ends(view):\n",
                "    if successor is None or view.job is not None:\n",
            ),
        ),
    ),
)

BY_PLAN = {
    "a given term is used before it was taken up": (
        "the-target-of-a-switchover-is-cut-off-as-it-is-promoted"
    ),
    "a term that was taken up is taken back": (
        "the-target-of-a-switchover-is-cut-off-as-it-is-promoted"
    ),
    "nobody takes a given term back": "the-target-of-a-switchover-loses-its-power",
    "a job keeps a hung primary alive": "a-disk-that-stalls-in-a-switchover",
}
"""The kept plan that finds it."""
