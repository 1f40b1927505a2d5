"""What the tables of flightmode.toml have in common."""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

NAME: Final = r"^[a-z0-9]([a-z0-9_-]{0,40}[a-z0-9])?$"
HOST: Final = r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$|^::1?$"
ADDRESS: Final = r"^[A-Za-z0-9._:-]+$"
"""No more than its letters: a rule of check.py reads it, and says what to do about a name."""


def _under_base(path: Path, info: ValidationInfo) -> Path:
    """A relative path counts from the directory of flightmode.toml."""
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return path if base is None else Path(base) / path


Location = Annotated[Path, AfterValidator(_under_base)]
"""A path; `{node}` in it stands for the name of the node that reads it."""


class Section(BaseModel):
    """A table of flightmode.toml: frozen, no unknown keys, no guessing of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def seconds(default: float, ge: float, le: float, description: str) -> Any:
    """A setting in seconds, or another number that may have a fraction."""
    return Field(default, ge=ge, le=le, description=description, allow_inf_nan=False)
