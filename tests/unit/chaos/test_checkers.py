"""Each checker finds what it is there to find, and nothing in a history that is sound."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaos.checkers import judge
from chaos.checkers.cycles import components
from chaos.history import (
    Done,
    Final,
    History,
    Recorder,
    Round,
    StateSeen,
    Txn,
    Way,
    What,
    load,
)
from flightmode.demo.ledger import Outcome


def row(at_s: float, sequence: int, *, node: str = "ams", timeline: int = 1) -> Txn:
    return Txn(
        0,
        Way.DIRECT,
        What.ROW,
        Outcome.ACKNOWLEDGED,
        at_s,
        at_s + 0.1,
        at_s + 0.2,
        node,
        timeline,
        sequence=sequence,
    )


def listed(
    at_s: float,
    value: int | None,
    reads: dict[int, tuple[int, ...]],
    *,
    key: int = 0,
    node: str = "ams",
    timeline: int = 1,
) -> Txn:
    whole = row(at_s, 0, node=node, timeline=timeline)
    return replace(
        whole,
        what=What.LIST,
        sequence=None,
        key=None if value is None else key,
        value=value,
        reads=reads,
    )


def summed(at_s: float, money: int) -> Txn:
    return replace(row(at_s, 0), what=What.TOTAL, sequence=None, total=money)


ROUND = Round(1, (Done("power", "primary", "ams"),), 2.0, 3.0, 4.0, 30.0)
SOUND = History(
    txns=(
        row(0.0, 0),
        row(1.0, 1),
        replace(row(2.0, 2), outcome=Outcome.UNKNOWN),
        replace(row(2.0, 3), outcome=Outcome.REJECTED),
        row(5.0, 4, node="fra", timeline=2),
        listed(0.0, 1, {0: (), 1: ()}),
        listed(1.0, 2, {0: (1,), 1: ()}, key=1),
        listed(5.0, 3, {0: (1,), 1: (2,)}, node="fra", timeline=2),
        listed(6.0, None, {0: (1, 3), 1: (2,)}, node="fra", timeline=2),
        summed(5.5, 12),
    ),
    states=(
        StateSeen(0.0, 1, "ams", "sync", ("fra",)),
        StateSeen(4.0, 2, "fra", "solo", ()),
        StateSeen(4.5, 2, "fra", "sync", ("ams",)),
    ),
    rounds=(ROUND,),
    final=Final(((0, 0), (0, 1), (0, 2), (0, 4)), {0: (1, 3), 1: (2,)}, 12, 12),
)


def with_txn(*more: Txn) -> History:
    return replace(SOUND, txns=SOUND.txns + more)


def ends_with(
    rows: tuple[tuple[int, int], ...] | None = None,
    lists: dict[int, tuple[int, ...]] | None = None,
    money: int = 12,
) -> History:
    final = SOUND.final
    assert final is not None
    return replace(
        SOUND,
        final=Final(
            final.rows if rows is None else rows,
            final.lists if lists is None else lists,
            money,
            12,
        ),
    )


def promises(history: History) -> set[str]:
    return {violation.promise for violation in judge(history)}


def test_a_sound_history_has_no_violation() -> None:
    assert judge(SOUND) == []


PLANTED = {
    "an acknowledged row that is gone": (ends_with(rows=((0, 0), (0, 4))), {"lost"}),
    "a row that is there twice": (
        ends_with(rows=((0, 0), (0, 0), (0, 1), (0, 4))),
        {"duplicate"},
    ),
    "a row that nobody wrote": (
        ends_with(rows=((0, 0), (0, 1), (0, 4), (7, 7))),
        {"phantom"},
    ),
    "a row that was rejected": (
        ends_with(rows=((0, 0), (0, 1), (0, 3), (0, 4))),
        {"rejected, and there"},
    ),
    "two nodes on one timeline": (
        with_txn(replace(row(6.0, 2, node="ams", timeline=2))),
        {"fork"},
    ),
    "the old primary that acknowledges after the new one": (
        with_txn(row(5.4, 2, node="ams", timeline=1)),
        {"dual acknowledgement"},
    ),
    "an acknowledged append that is gone": (
        ends_with(lists={0: (1, 3), 1: ()}),
        {"lost", "fork served"},
    ),
    "a value that was appended twice": (
        ends_with(lists={0: (1, 3, 3), 1: (2,)}),
        {"duplicate"},
    ),
    "a value that nobody appended": (ends_with(lists={0: (1, 3, 9), 1: (2,)}), {"phantom"}),
    "a read of what later was never there": (
        with_txn(listed(2.0, None, {0: (1, 8)})),
        {"fork served"},
    ),
    "a read in another order": (with_txn(listed(6.0, None, {0: (3, 1)})), {"fork served"}),
    "a commit on top of an old snapshot": (
        replace(
            with_txn(listed(7.0, 4, {0: (1,), 1: (2,)}, key=1, node="fra", timeline=2)),
            final=Final(((0, 0), (0, 1), (0, 4)), {0: (1, 3), 1: (2, 4)}, 12, 12),
        ),
        {"stale read", "not serializable"},
    ),
    "two that did not see each other": (
        replace(
            with_txn(
                listed(7.0, 4, {2: (), 3: ()}, key=2, node="fra", timeline=2),
                listed(7.0, 5, {2: (), 3: ()}, key=3, node="fra", timeline=2),
            ),
            final=Final(((0, 0), (0, 1), (0, 4)), {0: (1, 3), 1: (2,), 2: (4,), 3: (5,)}, 12, 12),
        ),
        {"not serializable"},
    ),
    "money that was made": (ends_with(money=13), {"money"}),
    "a sum in the middle of a transfer": (with_txn(summed(6.0, 11)), {"money"}),
    "two leaders of one term": (
        replace(SOUND, states=(*SOUND.states, StateSeen(5.0, 2, "ams", "solo", ()))),
        {"two leaders"},
    ),
    "a term that goes back": (
        replace(SOUND, states=(*SOUND.states, StateSeen(5.0, 1, "ams", "solo", ()))),
        {"term"},
    ),
    "a cluster that stays broken": (
        replace(SOUND, rounds=(replace(ROUND, failure="no primary"),)),
        {"stuck"},
    ),
    "a cluster that heals too late": (
        replace(SOUND, rounds=(replace(ROUND, whole_s=34.0),)),
        {"stuck"},
    ),
    "a database that cannot be read": (replace(SOUND, final=None), {"stuck"}),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str) -> None:
    history, found = PLANTED[planted]
    assert promises(history) == found


def test_an_answer_that_was_late_on_its_way_is_no_dual_acknowledgement() -> None:
    late = replace(row(4.9, 2), ended_s=9.0)
    assert judge(with_txn(late)) == []


def test_who_only_looks_may_see_what_no_order_explains() -> None:
    """M. Cahill: the read-only anomaly of snapshot isolation, here with values 4 and 5."""
    final = SOUND.final
    assert final is not None
    lists = {**final.lists, 2: (4,), 3: (5,)}
    one = listed(7.0, 4, {2: (), 3: (5,)}, key=2, node="fra", timeline=2)
    other = replace(listed(7.0, 5, {3: ()}, key=3, node="fra", timeline=2), ended_s=7.1)
    look = listed(7.0, None, {2: (4,), 3: ()}, node="fra", timeline=2)
    history = replace(with_txn(one, other, look), final=replace(final, lists=lists))
    assert judge(history) == []
    wrote = replace(look, key=4, value=6)
    lists = {**lists, 4: (6,)}
    history = replace(with_txn(one, other, wrote), final=replace(final, lists=lists))
    assert promises(history) == {"not serializable"}


def test_the_old_primary_may_be_read_a_while_longer() -> None:
    assert judge(with_txn(listed(7.0, None, {0: (1,)}))) == []


def test_a_history_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for txn in SOUND.txns:
        recorder.txn(txn)
    for state in SOUND.states:
        recorder.state(state)
    for round_ in SOUND.rounds:
        recorder.round(round_)
    assert SOUND.final is not None
    recorder.final(SOUND.final)
    recorder.close()
    assert load(tmp_path) == SOUND


def test_circles_are_found_in_a_long_chain_without_recursion() -> None:
    length = 50_000
    edges = [[at + 1] for at in range(length - 1)] + [[length - 3]]
    assert components(edges) == [[length - 1, length - 2, length - 3]]
    assert components([[1], [2], []]) == []
