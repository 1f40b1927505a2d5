"""The data path of the proxy (rust/py): texts of JSON in and out."""

from collections.abc import Sequence

class Proxy:
    """A running proxy, with threads of its own.  All methods raise RuntimeError after `stop`.

    `sockets`: descriptors that listen already, given away to it.  Raises ValueError for settings
    that make no sense (a list of users, a certificate), OSError when it can't listen,
    RuntimeError when the system gives it no thread.
    """

    def __new__(cls, settings: str, sockets: Sequence[int] = ()) -> Proxy: ...
    def topology(self, news: str) -> None:
        """Who is who now.  Raises ValueError."""

    def reload(self, settings: str) -> None:
        """Other settings, for who is in too.  Raises ValueError; then nothing has changed."""

    def command(self, order: str) -> str:
        """Carry out an order: {"command": "pause"}, resume, reconnect, kill (each with an optional
        "database"), or drain with "within_s"."""

    def stats(self) -> str:
        """How it is; takes less than a second."""

    def events(self, within_s: float) -> str:
        """What has happened since the last call; waits up to `within_s` if nothing has."""

    def sockets(self) -> list[int]:
        """Copies of the sockets that listen, given away to the caller.  Raises OSError."""

    def give_away(self) -> None:
        """Let nobody in any more, and hand every client over, each when it is between two
        transactions: `parcel`."""

    def is_given_away(self) -> bool:
        """Whether nobody is left, beside those that `parcel` gives."""

    def parcel(self, within_s: float) -> tuple[int, bytes] | None:
        """The next client to hand over: its socket, given away to the caller, and what is known
        of it, with what proves it to its servers; waits up to `within_s` for it."""

    def adopt(self, socket: int, state: bytes, stays: bool = False) -> None:
        """Serve a client of another process; the socket is given away to it.  `stays`: it is not
        handed over again.  Raises ValueError."""

    def keep(self, settings: str) -> None:
        """Hand nobody over any more, and listen again.  Raises OSError."""

    def cancel(self, client: int, secret: bytes) -> None:
        """Cancel what the client with this key runs."""

    def stop(self, grace_s: float = 0.0) -> None:
        """Let clients leave between transactions for `grace_s`, then close; may be repeated."""

def check(settings: str) -> None:
    """Raise ValueError, with the place, when these settings can't be read."""

def check_parcel(state: bytes) -> None:
    """Raise ValueError when this is no client that could be adopted."""

def log_to_stderr(level: str) -> None:
    """Write what happens to standard error, one JSON object a line."""
