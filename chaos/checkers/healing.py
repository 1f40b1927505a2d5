"""Life (I9): when faults end, the cluster is whole again within its bound, by itself."""

from collections.abc import Iterator

from chaos.checkers.violation import Violation
from chaos.history import History


def check(history: History) -> Iterator[Violation]:
    """No round failed or outlasted its bound; the database could be read at the end."""
    for round_ in history.rounds:
        what = " + ".join(f"{fault.nemesis} of {fault.node}" for fault in round_.faults)
        if round_.failure:
            yield Violation("stuck", f"round {round_.number}, {what}: {round_.failure}")
        elif round_.heal_time_s > round_.bound_s:
            late = f"whole only {round_.heal_time_s:.1f} s after it was healed"
            yield Violation("stuck", f"round {round_.number}, {what}: {late}")
    if history.final is None:
        yield Violation("stuck", "the database could not be read at the end")
