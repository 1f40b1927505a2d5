"""What reaching a host promises."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended there."""

    status: int
    out: str
    err: str


class Remote(Protocol):
    """One host, as root.  Raises HostUnreachable when the link breaks: what was asked for may
    have been done, so whatever is asked must bear repetition."""

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        """Run a shell command.  A status other than 0 is an answer, not an exception."""

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        """Write a file whole or not at all, with this mode and `user:group`.

        Never with more rights than `mode` in between.  Raises HostRefused.
        """

    async def close(self) -> None:
        """Let go.  May be repeated."""
