"""The ledger finds what is planted, and nothing where nothing is."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightmode.demo.ledger import Attempt, Gap, Outcome, Row, check, client_gaps, write_gap

OK, NO, MAYBE = Outcome.ACKNOWLEDGED, Outcome.REJECTED, Outcome.UNKNOWN


def attempt(client: int, sequence: int, outcome: Outcome = OK, at_s: float = 0.0) -> Attempt:
    return Attempt(Row(client, sequence), outcome, at_s, at_s, "ams")


HISTORY = [
    attempt(1, 1),
    attempt(1, 2),
    attempt(1, 3, MAYBE),
    attempt(2, 1, NO),
    attempt(2, 2),
    attempt(2, 3, MAYBE),
]
ROWS = [Row(1, 1), Row(1, 2), Row(1, 3), Row(2, 2)]


def test_a_database_with_every_acknowledged_row_is_sound() -> None:
    verdict = check(HISTORY, ROWS)
    assert verdict.sound
    assert (verdict.attempted, verdict.acknowledged, verdict.rejected) == (6, 3, 1)
    assert (verdict.unknown_present, verdict.unknown_absent, verdict.unknown) == (1, 1, 2)


def test_a_lost_row_is_found() -> None:
    verdict = check(HISTORY, [row for row in ROWS if row != Row(1, 2)])
    assert verdict.lost == (Row(1, 2),)
    assert not verdict.sound


def test_a_row_that_is_there_twice_is_found() -> None:
    verdict = check(HISTORY, [*ROWS, Row(2, 2)])
    assert verdict.duplicates == (Row(2, 2),)
    assert not verdict.sound


def test_a_row_that_nobody_wrote_is_found() -> None:
    verdict = check(HISTORY, [*ROWS, Row(9, 9)])
    assert verdict.phantoms == (Row(9, 9),)
    assert not verdict.sound


def test_a_row_of_a_transaction_that_failed_is_found() -> None:
    verdict = check(HISTORY, [*ROWS, Row(2, 1)])
    assert verdict.resurrected == (Row(2, 1),)
    assert not verdict.sound


def test_money_that_was_made_is_found() -> None:
    assert not check(HISTORY, ROWS, imbalance=1).sound
    assert not check(HISTORY, ROWS, imbalance=-1).sound


def test_a_missing_row_of_unknown_outcome_is_not_lost() -> None:
    assert check([attempt(1, 1, MAYBE)], []).sound


@given(st.sets(st.integers(0, 40)), st.data())
def test_every_acknowledged_row_that_is_taken_away_is_reported(
    sequences: set[int], data: st.DataObject
) -> None:
    history = [attempt(1, one) for one in sequences]
    taken = data.draw(st.sets(st.sampled_from(sorted(sequences)))) if sequences else set()
    verdict = check(history, [Row(1, one) for one in sequences - taken])
    assert {row.sequence for row in verdict.lost} == taken
    assert verdict.sound == (not taken)


def acknowledged_at(moments: Iterable[float]) -> list[Attempt]:
    return [attempt(1, at, at_s=moment) for at, moment in enumerate(moments)]


def test_the_gap_of_a_crash_goes_from_the_last_answer_before_it_to_the_first_after() -> None:
    history = acknowledged_at([1.0, 2.0, 5.5, 6.0])
    assert write_gap(history, fault_s=2.1, until_s=6.1) == Gap(2.0, 5.5)


def test_the_gap_of_a_switchover_begins_when_the_answers_stop() -> None:
    history = acknowledged_at([1.0, 2.0, 2.2, 2.3, 2.9, 3.0])
    assert write_gap(history, fault_s=2.1, until_s=3.1) == Gap(2.3, 2.9)


def test_a_long_silence_before_the_fault_is_not_its_fault() -> None:
    history = acknowledged_at([1.0, 8.0, 8.4, 8.5])
    assert write_gap(history, fault_s=8.1, until_s=8.6) == Gap(8.0, 8.4)


def test_answers_of_unknown_outcome_do_not_end_a_gap() -> None:
    history = [*acknowledged_at([1.0, 4.0]), attempt(2, 1, MAYBE, at_s=2.0)]
    assert write_gap(history, fault_s=1.0, until_s=4.0) == Gap(1.0, 4.0)


def test_writes_that_never_come_back_are_a_gap_to_the_end() -> None:
    assert write_gap(acknowledged_at([1.0]), fault_s=1.5, until_s=9.0) == Gap(1.0, 9.0)
    assert write_gap([], fault_s=1.5, until_s=9.0).length_s == pytest.approx(7.5)


def test_each_client_has_a_gap_of_its_own() -> None:
    history = [
        *(attempt(1, at, at_s=moment) for at, moment in enumerate([1.0, 2.0, 2.5])),
        *(attempt(2, at, at_s=moment) for at, moment in enumerate([1.1, 2.4])),
    ]
    gaps = client_gaps(history, fault_s=1.5, until_s=2.6)
    assert gaps == {1: Gap(1.0, 2.0), 2: Gap(1.1, 2.4)}
