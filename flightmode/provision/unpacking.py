"""A release comes to a host, and is believed to be there only when it is whole.  Pure.

A run may be cut off anywhere, by a lost link, after which its command goes on there, or by a loss
of power, after which a file may have its name and no content; and two operators may run it at once.
"""

import shlex

from flightmode.provision.facts import AGAIN, COMPLETE, CURRENT, RELEASES

LOCK = "/run/flightmode-release.lock"
_WAIT_S = 600


def unpack_command(release: str) -> str:
    """A shell command that reads a tar of wheels and makes the release the current one.

    It needs no package index.  The old release stays, for a way back.  Where the release is there
    and whole nothing is done; one that is current and not whole is made anew beside itself, for it
    may be what runs.
    """
    return f"flock -w {_WAIT_S} {LOCK} sh -c {shlex.quote(_unpacking(release))}"


def _unpacking(release: str) -> str:
    return f"""set -e
whole() {{
    [ -e "$1/{COMPLETE}" ] && "$1/bin/python3" -I -c "import flightmode" 2>/dev/null
}}
home={RELEASES}/{release}
now=$(readlink {CURRENT} || true)
if [ "$now" = "$home" ] || [ "$now" = "$home{AGAIN}" ]; then
    if whole "$now"; then
        cat >/dev/null
        exit 0
    fi
    [ "$now" != "$home" ] || home="$home{AGAIN}"
fi
if whole "$home"; then
    cat >/dev/null
else
    rm -rf "$home" "$home.wheels"
    mkdir -p "$home.wheels"
    tar -x -C "$home.wheels"
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
