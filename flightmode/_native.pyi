"""The data path of the proxy (rust/py): texts of JSON in, calls that return at once."""

class Proxy:
    """A running proxy, with threads of its own.

    Raises ValueError for settings that make no sense (a list of users, a certificate), OSError
    when it can't listen, RuntimeError when the system gives it no thread.
    """

    def __new__(cls, settings: str) -> Proxy: ...
    def topology(self, news: str) -> None:
        """Who is who now.  Raises ValueError, and RuntimeError after `stop`."""

    def stop(self) -> None:
        """Close everything; may be repeated."""

def check(settings: str) -> None:
    """Raise ValueError, with the place, when these settings can't be read."""

def log_to_stderr(level: str) -> None:
    """Write what happens to standard error, one JSON object a line."""
