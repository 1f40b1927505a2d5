"""How the errors of clients behind the proxy are counted."""

from flightmode.demo.proxied import Fault, Seen, seen


def test_without_an_error_everything_is_as_promised() -> None:
    assert seen([]) == Seen(0, 0, 0, ())
    assert seen([]).as_promised


def test_the_two_truthful_answers_are_counted_apart() -> None:
    found = seen(
        [Fault(1.0, "writer", "40001", ""), Fault(2.0, "writer", "08007", "")] * 2,
    )
    assert found == Seen(0, 2, 2, ())
    assert found.as_promised


def test_an_error_between_transactions_breaks_the_promise_whatever_it_is() -> None:
    for who in ("idle", "new"):
        found = seen([Fault(1.0, who, "40001", "rolled back")])
        assert found.between == 1
        assert not found.as_promised


def test_a_writer_s_other_error_or_lost_connection_breaks_the_promise() -> None:
    found = seen([Fault(1.0, "writer", "", "server closed"), Fault(2.0, "writer", "57P01", "bye")])
    assert found.others == ("connection lost: server closed", "57P01: bye")
    assert not found.as_promised
