"""A release comes to a host, and is believed to be there only when it is whole.  Pure.

A run may be cut off anywhere, by a lost link, after which its command goes on there, or by a loss
of power, after which a file may have its name and no content; and two operators may run it at once.
"""

import shlex

from flightmode.provision.facts import AGAIN, COMPLETE, CURRENT, RELEASES

_HELD = 75
LOCK = "/run/flightmode-release.lock"
_WAIT_S = 600
_LINK_S = 300
"""Longest that wheels take to come: a link that was lost may not be noticed for hours, and the lock
is held meanwhile."""


def unpack_command(release: str) -> str:
    """A shell command that reads a tar of wheels and makes the release the current one.

    It needs no package index.  The old release stays, for a way back.  Where the release is there
    and whole nothing is done; one that is current and not whole is made anew beside itself, for it
    may be what runs.
    """
    told = f"another run has been bringing a release for {_WAIT_S} s: {LOCK} is held"
    refused = f"[ $? -ne {_HELD} ] || echo {shlex.quote(told)} >&2; exit 1"
    taken = f"flock -E {_HELD} -w {_WAIT_S} {LOCK} sh -c {shlex.quote(_unpacking(release))}"
    return f"{taken} || {{ {refused}; }}"


def _unpacking(release: str) -> str:
    return f"""set -e
whole() {{
    [ -e "$1/{COMPLETE}" ] && "$1/bin/python3" -I -c "import flightmode" 2>/dev/null
}}
home={RELEASES}/{release}
now=$(readlink {CURRENT} || true)
if [ "$now" = "$home" ] || [ "$now" = "$home{AGAIN}" ]; then
    if whole "$now"; then
        timeout {_LINK_S} cat >/dev/null
        exit 0
    fi
    [ "$now" != "$home" ] || home="$home{AGAIN}"
fi
if whole "$home"; then
    timeout {_LINK_S} cat >/dev/null
else
    rm -rf "$home" "$home.wheels"
    mkdir -p "$home.wheels"
    timeout {_LINK_S} tar -x -C "$home.wheels"
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --no-index --no-cache-dir --disable-pip-version-check \\
        --find-links "$home.wheels" flightmode
    rm -rf "$home.wheels"
    sync -f "$home"
    : > "$home/{COMPLETE}"
    sync -f "$home"
fi
ln -sfn "$home" {RELEASES}/.next
mv -T {RELEASES}/.next {CURRENT}
ln -sfn {CURRENT}/bin/flightmode /usr/local/bin/flightmode
sync -f {RELEASES}
"""
