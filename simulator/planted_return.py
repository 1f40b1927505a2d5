"""The planted bugs of how a node comes back (S9, I10)."""

from simulator.planted import Mutant

RETURN = (
    Mutant(
        "a copy is made of a node that is counted on",
        (
            (
                "decide/following.py",
                "    if _counted_on(view):\n        return _until_not_counted_on(view)\n",
                "",
            ),
        ),
    ),
    Mutant(
        "a node that is counted on is rewound",
        (
            (
                "decide/following.py",
                "    if leader is not None and not fits and _counted_on(view):\n",
                "    if view.now_s < 0:\n",
            ),
            (
                "decide/election.py",
                "        mode=Mode.SOLO,\n        sync=(),\n",
                "        mode=Mode.SYNC,\n        sync=(state.leader,),\n",
            ),
        ),
    ),
    Mutant(
        "who was passed over is rewound",
        (
            (
                "decide/following.py",
                "    if view.me.name in state_of(view).passed_over:\n",
                "    if view.now_s < 0:\n",
            ),
            (
                "decide/following.py",
                "    return not copied and not first\n",
                "    return False\n",
            ),
        ),
    ),
    Mutant(
        "who was passed over follows where it is",
        (
            (
                "decide/following.py",
                "    return not copied and not first\n",
                "    return False\n",
            ),
        ),
    ),
    Mutant(
        "only the leader counts as passed over",
        (
            (
                "decide/election.py",
                "{state.leader, *view.policy.databases, *_that_have_published(view)}\n",
                "{state.leader}\n",
            ),
        ),
    ),
    Mutant(
        "who makes room for another machine does not count as passed over",
        (
            (
                "decide/election.py",
                "{state.leader, *view.policy.databases, *_that_have_published(view)}\n",
                "{state.leader, *view.policy.databases}\n",
            ),
        ),
    ),
    Mutant(
        "two timelines of one number are taken for one",
        (
            (
                "decide/following.py",
                "    return mine.ancestors != theirs.ancestors\n",
                "    return False\n",
            ),
            (
                "decide/following.py",
                "    if data.timeline == leader.history.timeline:\n        return True\n",
                "",
            ),
            (
                "decide/following.py",
                "    if view.me.name in state_of(view).passed_over:\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "a directory that has parted is started as it is",
        (
            (
                "decide/following.py",
                "    fits = leader is not None and _fits(view, data, leader)\n",
                "    fits = leader is not None\n",
            ),
            (
                "decide/following.py",
                "    if leader is not None and _diverged(view, leader):\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
)
