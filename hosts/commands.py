"""Commands of this machine that make hosts."""

import subprocess


class HostsFailed(Exception):
    """The machine can't make hosts, or one did not do as it should."""


def run(*argv: str) -> None:
    """Run a command.  Raises HostsFailed with its last words."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise HostsFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout)[-2000:]}")
