"""Files that only their owner may read."""

import os
import stat
import tempfile
from pathlib import Path

from flightmode.errors import FileMissing, FileUnsafe


def write_private(path: Path, content: bytes | str) -> None:
    """Write with mode 0600, whole or not at all; a reader never sees a part."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes | str) -> None:
    """Write with mode 0644, whole or not at all."""
    _write(path, content, 0o644)


def _write(path: Path, content: bytes | str, mode: int) -> None:
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def make_directory(path: Path) -> None:
    """A directory for private files: mode 0700 when it is new."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def private_text(path: Path) -> str:
    """What a private file holds, without the line's end.  Raises FileMissing, FileUnsafe."""
    check_private(path)
    return path.read_text().strip()


def check_private(path: Path) -> None:
    """Raise FileMissing or FileUnsafe unless only its owner, who is us or root, can read it.

    Root looks at the files of others too: those of an agent that runs as another user.
    """
    status = _status(path)
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        text = f"{path} can be read by others (mode {mode})"
        raise FileUnsafe(text, hint=f"chmod 600 {path}")
    if os.geteuid() != 0 and status.st_uid not in (0, os.geteuid()):
        text = f"{path} belongs to somebody else (user id {status.st_uid})"
        raise FileUnsafe(text, hint=f"chown {os.geteuid()} {path}")


def check_present(path: Path) -> None:
    """Raise FileMissing unless it is a file that can be read."""
    _status(path)


def _status(path: Path) -> os.stat_result:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno())
    except FileNotFoundError:
        raise FileMissing(f"{path} does not exist") from None
    except OSError as wrong:
        raise FileMissing(f"{path} can't be read: {wrong.strerror}", hint=f"ls -l {path}") from None
