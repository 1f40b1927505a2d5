"""The process of the local server, as the system has it."""

import psutil

from flightmode.postgres.settings import PostgresConfig


def _postmaster(config: PostgresConfig) -> psutil.Process | None:
    """The process that postmaster.pid names, if it is a postmaster of this directory."""
    try:
        lines = (config.data_dir / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        # A pid alone is soon somebody else's: the file also holds when it was started.
        same = abs(process.create_time() - float(lines[2])) < 5
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def lives(config: PostgresConfig) -> bool:
    return _postmaster(config) is not None


def end_walsenders(config: PostgresConfig, keep: tuple[str, ...]) -> None:
    """By their titles: a server that is shutting down answers no query.

    Ours carry our role; a kept one also carries its peer's address.
    """
    postmaster = _postmaster(config)
    if postmaster is None:
        return
    kept = tuple(config.peer(name).host for name in keep)
    for child in postmaster.children():
        try:
            title = " ".join(child.cmdline())
            if "walsender" in title and not any(f" {host}(" in title for host in kept):
                child.terminate()
        except psutil.Error:
            continue
