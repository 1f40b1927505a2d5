"""What all errors have in common."""

from typing import ClassVar


class FlightmodeError(Exception):
    """Base of all errors that Flightmode raises on purpose."""

    code: ClassVar[str] = "FM000"
    exit_status: ClassVar[int] = 70
    retry: ClassVar[bool] = False
    hint: ClassVar[str] = "flightmode logs"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint_text = self.hint if hint is None else hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
