"""Positions in the write-ahead log (Postgres manual, 8.20 pg_lsn type)."""

from flightmode.errors import PostgresError


class Lsn(int):
    """A byte position in WAL; prints as Postgres does, `0/16B3748`."""

    @classmethod
    def parse(cls, text: str) -> "Lsn":
        """From `X/X`.  Raises PostgresError when it is not an LSN."""
        high, slash, low = text.partition("/")
        try:
            if not slash:
                raise ValueError(text)
            return cls((int(high, 16) << 32) | int(low, 16))
        except ValueError:
            raise PostgresError(f"not a WAL position: {text!r}") from None

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self!s})"


NOWHERE = Lsn(0)
"""Before all WAL: nothing is known to be there."""
