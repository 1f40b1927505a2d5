"""Whom Postgres runs as."""

import pwd

from flightmode.errors import ConfigInvalid


def system_user(name: str) -> pwd.struct_passwd:
    """The entry of that name.  Raises ConfigInvalid."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        text = f"postgres.user: there is no user {name!r} on this machine"
        hint = f"adduser --system --group {name}"
        raise ConfigInvalid("flightmode.toml", (text,), hint=hint) from None
