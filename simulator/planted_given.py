"""The planted bugs of a planned stop, of a term that was given, and of who can't use one."""

from simulator.planted import Mutant

GIVEN = (
    Mutant(
        "a planned stop is not said before",
        (
            (
                "decide/publishing.py",
                '    planned = memory.task is not None and memory.task_stage == "stop"\n',
                "    planned = memory.task is None and view.now_s < 0\n",
            ),
        ),
    ),
    Mutant(
        "a planned stop gives nobody the time to hear of it",
        (
            (
                "decide/requests.py",
                "    settle_s = view.policy.settle_s if view.server.run is Run.PRIMARY else 0.0\n",
                "    settle_s = 0.0\n",
            ),
        ),
    ),
    Mutant(
        "who was restarted goes on saying that it is about to be stopped",
        (
            (
                "decide/requests.py",
                '        memory = replace(view.memory, task=None, task_stage="")\n'
                "        result = view.result(JobKind.STOP)\n",
                "        memory = view.memory\n        result = view.result(JobKind.STOP)\n",
            ),
            ("decide/remember.py", "    memory = _task(view, memory)\n", ""),
        ),
    ),
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
    "a planned stop is not said before": "a-primary-is-restarted-in-its-place",
    "a planned stop gives nobody the time to hear of it": "a-primary-is-restarted-in-its-place",
    "who was restarted goes on saying that it is about to be stopped": (
        "a-primary-is-restarted-in-its-place"
    ),
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
