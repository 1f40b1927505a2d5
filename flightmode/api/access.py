"""Who may change something: whoever shows a node's or the operator's certificate, or the token."""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flightmode.errors import NotAllowed

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Access:
    """What opens the verbs that change something."""

    token: str | None
    """From the secrets directory; None: certificates only."""
    names: frozenset[str]
    """On certificates that may: those of an application's hosts are the cluster's too."""

    def caller(self, request: "Request") -> str:
        """Who asks, in words.  Raises NotAllowed.

        A certificate has been verified against the cluster's authority by the TLS layer, which
        puts its name into the ASGI scope (ASGI's TLS extension); no header can pretend to it.
        """
        name = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_name")
        if name in self.names:
            return str(name)
        if self._knows_token(request.headers.get("authorization", "")):
            host = request.client.host if request.client else "somewhere"
            return f"token from {host}"
        shown = f"; the certificate shown is that of {name}" if name else ""
        text = f"this needs the certificate of a node or of the operator, or the token{shown}"
        raise NotAllowed(text)

    def _knows_token(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        if self.token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())
