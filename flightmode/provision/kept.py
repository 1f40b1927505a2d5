"""Archives of wheels that a run before has made, in the user's cache.

At the next run they cost no time; and a lost host can be replaced while no package index answers.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flightmode.pki.files import make_directory, write_private

KEEP_DAYS = 60.0
"""How long one that nothing has asked for stays."""

_SEAL = hashlib.sha256().digest_size


def cache() -> Path:
    """`$XDG_CACHE_HOME/flightmode/wheels`, by default under ~/.cache (XDG Base Directory)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "flightmode" / "wheels"


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """What `make` made when this name was first asked for.  Raises what `make` does.

    A cache that cannot be written, as on a full disk, is done without.
    """
    path = cache() / f"{name}.tar"
    try:
        found = _unsealed(path.read_bytes())
        path.touch()
    except OSError:
        found = None
    if found is not None:
        return found
    made = make()
    with suppress(OSError):
        make_directory(path.parent)
        _forget_old(path.parent)
        write_private(path, made + _seal(made))
    return made


def _unsealed(content: bytes) -> bytes | None:
    """What was kept; None: it is damaged, and made anew."""
    made, seal = content[:-_SEAL], content[-_SEAL:]
    return made if made and seal == _seal(made) else None


def _seal(made: bytes) -> bytes:
    """Behind the archive, whose end tar(1) knows by itself."""
    return hashlib.sha256(made).digest()


def _forget_old(house: Path) -> None:
    before_s = time.time() - KEEP_DAYS * 86400
    for each in house.glob("*.tar"):
        if each.stat().st_mtime < before_s:
            each.unlink(missing_ok=True)
