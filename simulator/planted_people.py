"""The planted bugs of what people, and their tools, do to a cluster."""

from collections.abc import Mapping
from types import MappingProxyType

from simulator.planted import Mutant

PEOPLE = (
    Mutant(
        "names that somebody else has set are not recorded",
        (
            (
                "decide/quorum.py",
                "    if view.server.admits_clients and view.server.sync_names != (holder,):\n",
                "    if view.now_s < 0:\n",
            ),
        ),
    ),
    Mutant(
        "who has not said what it has is taken for empty",
        (
            (
                "decide/bootstrap.py",
                "member.run is Run.ABSENT\n",
                "member.system_identifier is None\n",
            ),
        ),
    ),
    Mutant(
        "one record that cannot be read is taken for a store that does not answer",
        (
            (
                "store/codec.py",
                "    except RecordUnreadable:\n        return None\n",
                "    except KeyError:\n        return None\n",
            ),
        ),
    ),
    Mutant(
        "a leader from a backup starts beside a newer one",
        (
            (
                "decide/superseded.py",
                "        if seen.member.name == view.me.name or not _heard(view, seen):\n",
                "        if view.now_s > 0:\n",
            ),
        ),
    ),
    Mutant(
        "a leader without data renews against a person's word",
        (
            (
                "decide/giving_way.py",
                "    if view.job is not None:\n",
                "    if view.now_s > 0:\n",
            ),
        ),
    ),
    Mutant(
        "what a person asked for outlives its request",
        (("decide/remember.py", "    memory = _task(view, memory)\n", ""),),
    ),
)

BY_PEOPLE: Mapping[str, str] = MappingProxyType(
    {
        "names that somebody else has set are not recorded": "names-that-somebody-else-has-set",
        "who has not said what it has is taken for empty": (
            "etcd-is-made-anew-and-a-holder-is-slow-to-answer"
        ),
        "one record that cannot be read is taken for a store that does not answer": (
            "what-a-newer-version-has-written"
        ),
        "a leader from a backup starts beside a newer one": "etcd-from-a-backup",
        "a leader without data renews against a person's word": (
            "a-leader-without-data-and-a-person-who-accepts-that"
        ),
        "what a person asked for outlives its request": "a-restart-whose-end-is-not-heard-of",
    }
)
"""The kept plan that finds it."""
