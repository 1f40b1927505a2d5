"""The cluster's own certificates and passwords: made once, kept in files of mode 0600.

Every connection between our parts is TLS with both sides proving who they are.
The authority that signs lives with the operator; a node holds its own key only.
"""

from flightmode.pki.authority import Authority, Leaf
from flightmode.pki.contexts import client_context, server_context
from flightmode.pki.files import private_text, write_private, write_public
from flightmode.pki.passwords import SECRETS, make_secrets, pgpass, read_secret
from flightmode.pki.standing import Standing, check_certificate

__all__ = [
    "SECRETS",
    "Authority",
    "Leaf",
    "Standing",
    "check_certificate",
    "client_context",
    "make_secrets",
    "pgpass",
    "private_text",
    "read_secret",
    "server_context",
    "write_private",
    "write_public",
]
