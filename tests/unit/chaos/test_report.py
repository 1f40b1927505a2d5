"""What a fault costs: the longest time without a commit that touches its round."""

from dataclasses import replace

from chaos.history import Done, History, Round, Txn, Way, What
from chaos.report import gap_s, rows, story, told
from flightmode.demo.ledger import Outcome

POWER = Done("power", "primary", "ams")
ROUND = Round(1, (POWER,), 10.0, 14.0, 16.0, 90.0)


def commit(at_s: float, way: Way = Way.DIRECT) -> Txn:
    done = Outcome.ACKNOWLEDGED
    return Txn(0, way, What.ROW, done, at_s, at_s, at_s, "ams", 1, sequence=int(at_s * 10))


def test_a_gap_begins_with_the_last_commit_before_the_fault() -> None:
    assert gap_s([1.0, 9.5, 13.0, 13.5, 15.9, 99.0], ROUND) == 3.5
    assert gap_s([], ROUND) == 6.0
    assert gap_s([9.9], ROUND) == ROUND.whole_s - 9.9


def test_two_faults_of_a_round_are_counted_and_not_measured() -> None:
    pair = replace(ROUND, number=2, faults=(POWER, Done("switchover", "primary", "ams")))
    txns = (commit(9.5), commit(13.0), commit(11.0, Way.LOCAL), commit(15.9))
    found = {row.what: row for row in rows([History(txns, rounds=(ROUND, pair))])}
    assert found["power / primary"].rounds == 2
    assert found["power / primary"].gaps_s == (3.5,)
    assert found["power / primary"].heals_s == (2.0,)
    assert (found["switchover / primary"].rounds, found["switchover / primary"].gaps_s) == (1, ())


def test_a_story_tells_what_was_done_and_what_went_wrong() -> None:
    stuck = replace(ROUND, failure="nobody leads")
    assert "power of the primary (ams)" in story([stuck], [])
    assert "nobody leads" in story([stuck], [])
    assert "4 transactions (4 acknowledged" in told(History(tuple(map(commit, range(4)))))
