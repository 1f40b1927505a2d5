"""All follows from the seed, and no round strikes more than I9 allows."""

from itertools import islice

from chaos.nemeses import BY_NAME
from chaos.nemeses.scene import ALL
from chaos.schedule import Plan, family, rounds

MANY = 2000


def plans(seed: int, count: int = MANY) -> list[Plan]:
    return list(islice(rounds(seed, BY_NAME), count))


def names(plan: Plan) -> tuple[tuple[str, str, float], ...]:
    return tuple((s.nemesis.name, s.role, s.dice.random()) for s in plan.strikes)


def test_a_seed_is_a_schedule() -> None:
    assert [names(plan) for plan in plans(7, 50)] == [names(plan) for plan in plans(7, 50)]
    assert [names(plan) for plan in plans(7, 50)] != [names(plan) for plan in plans(8, 50)]


def test_no_kind_of_fault_is_forgotten() -> None:
    struck = {strike.nemesis.name for plan in plans(1, len(BY_NAME)) for strike in plan.strikes}
    assert struck == set(BY_NAME)


def test_two_faults_strike_one_host_only() -> None:
    pairs = [plan for plan in plans(3) if len(plan.strikes) == 2]
    assert MANY // 5 < len(pairs) < MANY // 2
    for plan in pairs:
        one, other = plan.strikes
        assert family(one.nemesis) != family(other.nemesis)
        if "switchover" not in (one.nemesis.name, other.nemesis.name):
            assert one.role == other.role


def test_what_strikes_all_strikes_alone_but_for_a_person() -> None:
    for plan in plans(4):
        if any(strike.role == ALL for strike in plan.strikes):
            assert len({s.nemesis.name for s in plan.strikes} - {"switchover"}) == 1


def test_the_disk_of_a_host_without_power_is_left_alone() -> None:
    for plan in plans(5):
        families = {family(strike.nemesis) for strike in plan.strikes}
        assert not families >= {"disk", "power"}
        assert not families >= {"disk", "etcd"}
