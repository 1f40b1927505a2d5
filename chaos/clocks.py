"""A wall clock for each host, which can be set while the host runs.

Reaches what uses the C library: the agent, the fence, the proxy.  PostgreSQL gets a clean
environment from the fence, and etcd asks the kernel by itself: their clocks stay right.  Time
namespaces would not help: they have no CLOCK_REALTIME, and their offsets cannot change
(time_namespaces(7)).
"""

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from flightmode.demo.command import run

_SOURCE = Path(__file__).with_name("clock.c")
_NANOSECONDS = 1_000_000_000


class Clocks:
    """The clocks of one run."""

    def __init__(self, library: Path, pages: dict[str, Path]) -> None:
        self._library, self._pages = library, pages

    @classmethod
    def make(cls, scratch: Path, hosts: Sequence[str]) -> Self | None:
        """Compile the library and make the pages; None without a C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        library = scratch / "clock.so"
        run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE)])
        pages = {host: scratch / f"{host}.clock" for host in hosts}
        for page in pages.values():
            page.write_bytes(struct.pack("q", 0))
        return cls(library, pages)

    def environment(self, host: str) -> dict[str, str]:
        """What a program of the host is started with."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._pages[host])}

    def set_ahead(self, host: str, by_s: float) -> None:
        """From now on the host's wall clock is ahead of this machine's by so much."""
        with self._pages[host].open("r+b") as page:
            page.write(struct.pack("q", int(by_s * _NANOSECONDS)))
