"""Hosts that do not fit: each is told why, with its code, and nothing is changed on any."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.hosts.machines import Founder, founder, missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

HOSTS = ("ams", "fra", "wit", "web")
PRINT = r"""
set -f
aside='( -path /var/log -o -path /var/lib/systemd -o -path /var/tmp ) -prune'
is='%p %m %u:%g'
find /etc /opt /usr /var -xdev $aside -o -type f -printf "$is %s %T@\n" -o -printf "$is %l\n" |
    sort
dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n'
systemctl list-unit-files --no-legend --no-pager
systemctl list-units --no-legend --no-pager --plain --type=service --state=active |
    grep -v '^user' | awk '{ print $1 }'
"""
"""Everything that a provision could change."""


@contextmanager
def unsupported(me: Founder) -> Iterator[None]:
    """Debian 11."""
    sed = 'sed -i \'s/VERSION_ID="{}"/VERSION_ID="{}"/\' /usr/lib/os-release'
    me.hosts.ssh("fra", sed.format(12, 11))
    yield
    me.hosts.ssh("fra", sed.format(11, 12))


@contextmanager
def port_in_use(me: Founder) -> Iterator[None]:
    """Somebody else listens where PostgreSQL should."""
    me.hosts.ssh("ams", "systemd-run --quiet --unit=somebody /usr/sbin/sshd -D -p 5432")
    me.hosts.until_true("ams", "ss -Hltn 'sport = :5432' | grep -q .", within_s=20)
    yield
    me.hosts.ssh("ams", "systemctl stop somebody")


@contextmanager
def no_space(me: Founder) -> Iterator[None]:
    """A small disk at /var/lib."""
    me.hosts.ssh("ams", "mount -t tmpfs -o size=64m tmpfs /var/lib")
    yield
    me.hosts.ssh("ams", "umount /var/lib")


@contextmanager
def slow_disk(me: Founder) -> Iterator[None]:
    """A limit that no disk of a test's keeps."""
    me.edits("#fsync_max_ms = 25.0", "fsync_max_ms = 0.1")
    yield
    me.edits("fsync_max_ms = 0.1", "#fsync_max_ms = 25.0")


Refusal = Callable[[Founder], AbstractContextManager[None]]
REFUSALS: tuple[tuple[Refusal, str], ...] = (
    (unsupported, "fra runs debian 11; Flightmode is made for Debian 12 and 13"),
    (port_in_use, "ams has another program, sshd, listening on port 5432"),
    (no_space, "MB free in /var/lib; 2048 MB are needed"),
    (slow_disk, "to make 8 kB durable; the limit is 0.1 ms (provision.fsync_max_ms)"),
)


def prints(me: Founder) -> dict[str, list[str]]:
    return {name: me.hosts.ssh(name, PRINT).splitlines() for name in HOSTS}


def test_a_host_that_does_not_fit_is_refused_and_nothing_is_changed_on_any() -> None:
    with founder() as me:
        me.begins()
        for refusal, words in REFUSALS:
            with refusal(me):
                before = prints(me)
                assert all(len(lines) > 1000 for name, lines in before.items() if name != "ams")
                refused = me.types("provision", "--config", str(me.toml))
                assert refused.status == 78, refused.out
                assert "error FM804: nothing was changed:" in refused.out
                assert words in refused.out
                after = prints(me)
                for name in HOSTS:
                    assert set(after[name]) ^ set(before[name]) == set(), name
