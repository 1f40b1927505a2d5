"""A machine that stood still goes by nothing that it was allowed before (S1)."""

from dataclasses import dataclass

from flightmode.agent.steady import Steadiness


@dataclass
class Clocks:
    now: float = 100.0
    wall: float = 5000.0

    def now_s(self) -> float:
        return self.now

    def wall_s(self) -> float:
        return self.wall

    def passes(self, now: float, wall: float) -> None:
        self.now += now
        self.wall += wall


def test_clocks_that_go_together_void_nothing() -> None:
    clocks = Clocks()
    steady = Steadiness(clocks)
    clocks.passes(3600.0, 3600.4)
    assert steady.look() < 100.0


def test_what_was_sent_before_a_pause_of_the_machine_is_void() -> None:
    clocks = Clocks()
    steady = Steadiness(clocks)
    clocks.passes(1.0, 3.6)
    assert steady.look() == 101.0
    clocks.passes(5.0, 5.0)
    assert steady.look() == 101.0, "once is enough"


def test_a_clock_that_is_put_right_by_and_by_is_no_jump() -> None:
    clocks = Clocks()
    steady = Steadiness(clocks)
    for _ in range(20):
        clocks.passes(1.0, 1.1)
        assert steady.look() < 100.0
