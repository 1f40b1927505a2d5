"""[postgres.parameters] are judged by the PostgreSQL of the host, before they are written there."""

import shlex

from flightmode.config import Config
from flightmode.config.derive import parameters_of
from flightmode.postgres.commands import HEARD
from flightmode.postgres.settings import quoted

_JUDGE = f"""set -e
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
cat > "$home/postgresql.conf"
said=$("$0" -C port -D "$home" {shlex.join(HEARD)} 2>&1 >/dev/null) || {{
    echo "$said" | grep -v -e 'skipping missing' -e 'contains errors' |
        sed -e 's/^.*\\(LOG\\|FATAL\\|HINT\\): *//' -e 's/ in file .*//' \\
            -e 's/^/[postgres.parameters]: /' >&2
    exit 1
}}
"""


def judging(config: Config) -> str:
    """A shell command, for root, that fails where PostgreSQL would not start with them, and says
    which one it is.  It needs no data and leaves nothing."""
    lines = "".join(f"{name} = {quoted(value)}\n" for name, value in parameters_of(config))
    major, user = config.cluster.postgres_major, config.postgres.user
    program = f"{config.postgres.bin_dir or f'/usr/lib/postgresql/{major}/bin'}/postgres"
    judge = shlex.join(["runuser", "-u", user, "--", "env", "LC_ALL=C", "sh", "-c", _JUDGE])
    return f"printf %s {shlex.quote(lines)} | {judge} {shlex.quote(program)}"
