"""Who decides gets a processor first, as the units of systemd have it (`CPUWeight=`)."""

import contextlib
import os
from pathlib import Path

# Nine times the share of a process of no preference (sched(7), the autogroup feature).
_NICE = -10


def prefer(pid: int) -> None:
    """Before others, for a process that leads a session of its own; only root may say so.

    A kernel that groups by session goes by the group's niceness and not by the process's.
    """
    if os.geteuid() != 0:
        return
    # It may have ended already; whoever waits for it will see why.
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(str(_NICE))
